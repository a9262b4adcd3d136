package swarm

import (
	"testing"
	"time"
)

// While the seeder wants a pause the uplink keeps its lease and asks for nothing; that nothing comes is no stall; and it
// goes on by itself, or when it is told.
func TestPause(t *testing.T) {
	for name, early := range map[string]bool{"to its end": false, "ended early": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(Config{})
			b.do(Expect{}, add(40, true, 0))
			b.lead()
			open := len(of[Fetch](b.all))
			grant := LeaseGranted{Lease: 1, TTL: 3 * time.Hour, Renew: 3 * time.Hour, RTT: 10 * time.Millisecond, Pause: time.Hour}
			out := b.do(grant)
			out = append(out, b.do(Stored{of[Fetch](b.all)[0].Req})...)
			out = append(out, b.pass(59*time.Minute)...)
			if n := len(of[Fetch](out)) + len(of[Cancel](out)) + len(of[HangUpWAN](out)) + len(of[ReleaseLease](out)); n != 0 || !b.Leads() || open == 0 {
				t.Fatalf("in the pause: %+v", out)
			}
			if til := b.Paused(); til.Sub(b.now) > time.Minute || til.IsZero() {
				t.Fatalf("paused until %v at %v", til, b.now)
			}
			if early {
				grant.Pause = 0
				out = b.do(grant)
			} else {
				out = b.pass(61 * time.Second)
			}
			if len(of[Fetch](out)) != 1 || !b.Paused().IsZero() {
				t.Errorf("after the pause: %+v", out)
			}
		})
	}
}

// A line on which a chunk takes minutes is slow and not dead: what comes of it counts, and when nothing does the uplink
// hangs up.
func TestThinLineIsNotDead(t *testing.T) {
	for name, c := range map[string]struct {
		comes int64 // bytes a second
		hangs bool
	}{"64 kbit/s": {8000, false}, "nothing": {0, true}} {
		t.Run(name, func(t *testing.T) {
			b := newBench(Config{})
			b.do(Expect{}, add(4, true, 0))
			b.lead()
			b.do(LeaseGranted{Lease: 1, TTL: time.Hour, Renew: time.Hour})
			hung := false
			for n := range int64(120) {
				out := append(b.do(Progress{Peer: WAN, Bytes: n * c.comes}), b.pass(time.Second)...)
				hung = hung || len(of[HangUpWAN](out)) > 0
			}
			if hung != c.hangs {
				t.Errorf("hung up: %v", hung)
			}
		})
	}
}

// A large chunk is let pass by smaller ones so often and no oftener.
func TestWindowStaysFull(t *testing.T) {
	b := &bundle{sizes: []int64{700, 100, 50}}
	list, taken := []int{0, 1, 2}, 0
	for range 100 {
		switch b.next(list, 120, false) {
		case 1:
			taken++
		case -1:
			if taken != maxPassed {
				t.Fatalf("%d chunks passed", taken)
			}
			if b.next(list, 700, false) != 0 || b.next(list, 120, false) != 1 {
				t.Error("the large one did not go, or none may pass the next one")
			}
			return
		default:
			t.Fatal("not the largest that fits")
		}
	}
	t.Error("the large chunk never has its turn")
}

// With something to fetch a dead WAN is dialled every few seconds, each dial given up soon; with nothing, thriftily.
func TestRedial(t *testing.T) {
	for name, c := range map[string]struct {
		wants       bool
		least, most int // dials in two minutes
		within      time.Duration
	}{
		"something to fetch": {true, 35, 60, dialQuick},
		"nothing":            {false, 5, 14, dialPatient},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(Config{})
			b.do(Expect{}, add(4, c.wants, 0))
			b.do(WANUp{}, LeaseGranted{Lease: 1, TTL: time.Minute, Renew: time.Minute, RTT: 40 * time.Millisecond}, WANDown{})
			dials := 0
			for end := b.now.Add(2 * time.Minute); b.now.Before(end); {
				for _, d := range of[DialWAN](b.pass(100 * time.Millisecond)) {
					if dials++; d.Within != c.within {
						t.Fatalf("a dial of %v", d.Within)
					}
					b.pass(d.Within)
					b.do(WANDown{})
				}
			}
			if dials < c.least || dials > c.most {
				t.Errorf("%d dials in two minutes", dials)
			}
		})
	}
}
