package seeder

import (
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/ledbat"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// A slice waits while the window is full, for as long as it takes, and never when nothing is on its way.
func TestYieldWaits(t *testing.T) {
	l := &link{flows: map[*xfer.Session]*flow{}}
	s, now := new(xfer.Session), time.Unix(1e9, 0)
	p := xfer.Path{RTT: 40 * time.Millisecond}
	if v := l.step(now, s, p, 1000); v.wait != 0 || !v.clean || v.pacing == 0 {
		t.Errorf("first: %+v", v)
	}
	p.Pending = ledbat.First - 1000
	if v := l.step(now, s, p, 1000); v.wait != 0 {
		t.Errorf("room for a slice: %+v", v)
	}
	p.Pending = ledbat.First
	if v := l.step(now, s, p, 1000); v.wait < leastWait || v.wait > mostWait {
		t.Errorf("no room: %+v", v)
	}
	if v := l.step(now.Add(2*idleAfter/3), s, p, 1000); v.wait > mostWait {
		t.Errorf("no room: %+v", v)
	}
	if v := l.step(now.Add(4*idleAfter/3), s, p, 1000); v.wait != stuckWait {
		t.Errorf("nothing was acknowledged for more than a second: %+v", v)
	}
	p.Delivered++
	if v := l.step(now.Add(5*idleAfter/3), s, p, 1000); v.wait > mostWait {
		t.Errorf("acknowledged: %+v", v)
	}
	p.Pending = 0
	if v := l.step(now.Add(6*idleAfter/3), s, p, 1<<20); v.wait != 0 {
		t.Errorf("nothing on its way: %+v", v)
	}
}

// The first lost packet changes the congestion control, once, and the next session begins with it for a while.
func TestYieldLossyLink(t *testing.T) {
	l := &link{flows: map[*xfer.Session]*flow{}}
	s, now := new(xfer.Session), time.Unix(1e9, 0)
	p := xfer.Path{RTT: 40 * time.Millisecond, Sent: 1 << 20, Resent: 5000} // from before chunks were sent
	if v := l.step(now, s, p, 1000); !v.clean || v.lossy {
		t.Errorf("first: %+v", v)
	}
	if v := l.step(now, s, p, 1000); v.clean || v.lossy {
		t.Errorf("nothing lost: %+v", v)
	}
	p.Resent += 1448
	if v := l.step(now, s, p, 1000); v.clean || !v.lossy {
		t.Errorf("a packet lost: %+v", v)
	}
	p.Resent += 1448
	if v := l.step(now, s, p, 1000); v.clean || v.lossy {
		t.Errorf("another packet lost: %+v", v)
	}
	if v := l.step(now.Add(lossyFor/2), new(xfer.Session), xfer.Path{RTT: time.Millisecond}, 1000); v.clean || v.lossy {
		t.Errorf("the next session: %+v", v)
	}
	if v := l.step(now.Add(2*lossyFor), new(xfer.Session), xfer.Path{RTT: time.Millisecond}, 1000); !v.clean {
		t.Errorf("a session much later: %+v", v)
	}
}

// Where the kernel holds back more than the window does, the congestion control is not the right one either.
func TestYieldSlack(t *testing.T) {
	l := &link{flows: map[*xfer.Session]*flow{}}
	s, now := new(xfer.Session), time.Unix(1e9, 0)
	p, changed := xfer.Path{RTT: 40 * time.Millisecond, Pending: ledbat.First, Flight: 2 * ledbat.MSS}, 0
	for range 100 {
		now, p.Delivered = now.Add(p.RTT), p.Delivered+2
		if l.step(now, s, p, 1000).lossy {
			changed++
		}
	}
	if changed != 1 {
		t.Errorf("changed %d times", changed)
	}
}

// What is known of a link outlives a session, and is shown.
func TestYieldState(t *testing.T) {
	now := time.Unix(1e9, 0)
	y := newYielding(Config{Now: func() time.Time { return now }})
	if s := y.state("s1"); s != (yieldState{}) {
		t.Errorf("nothing is known: %+v", s)
	}
	l, a, b := y.link("s1"), new(xfer.Session), new(xfer.Session)
	p := xfer.Path{RTT: 40 * time.Millisecond}
	rounds := func(s *xfer.Session, n int) {
		for range n {
			p.Flight = l.flow(now, s).Window()
			p.Delivered += uint32(p.Flight/ledbat.MSS) + 1
			p.Pending = p.Flight
			now = now.Add(p.RTT)
			l.step(now, s, p, 1000)
		}
	}
	rounds(a, 5)
	window := l.flows[a].Window()
	if window < 4*ledbat.First || y.slice("s1", a) != xfer.SliceBytes {
		t.Fatalf("window %d, slice %d", window, y.slice("s1", a))
	}
	y.gone("s1", a)
	rounds(b, 1)
	if got := l.flows[b].Window(); got < window/2 {
		t.Errorf("a window of %d after one of %d", got, window)
	}
	p.RTT = 90 * time.Millisecond
	rounds(b, 60)
	if s := y.state("s1"); s.BaseRTT != 40*time.Millisecond || s.Queue < 40*time.Millisecond || !s.Yielding {
		t.Errorf("others fill the link: %+v", s)
	}
	if n := y.slice("s1", b); n != 2*ledbat.MSS-xfer.FrameOverhead {
		t.Errorf("slices of %d", n)
	}
	now = now.Add(time.Minute)
	if s := y.state("s1"); s.BaseRTT != 40*time.Millisecond || s.Queue != 0 || s.Yielding {
		t.Errorf("idle: %+v", s)
	}
}
