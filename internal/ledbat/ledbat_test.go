package ledbat

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

// Alone the window fills the link and leaves the queue nearly empty. Control: a flow that does not yield keeps it full.
func TestAlone(t *testing.T) {
	for _, mbit := range []float64{2, 20, 50, 200} {
		for _, base := range []time.Duration{10 * ms, 40 * ms, 200 * ms} {
			packet := time.Duration(1500*8/mbit) * time.Microsecond
			if base < 3*packet {
				continue // two packets, the smallest window, are more than there is room for
			}
			t.Run(fmt.Sprintf("%g Mbit/s, %s", mbit, base), func(t *testing.T) {
				m := newModel(mbit, base)
				s, c := m.ours(new(Base), 0)
				s.start()
				first, _ := m.watch(2*time.Second+10*base, s)
				share, queue := m.watch(60*time.Second, s)
				t.Logf("first %.2f, then %.3f of the link, queue %s / %s, window %d", first, share, queue[len(queue)/2], p95(queue), c.Window())
				if share < 0.95 || c.Yielding() {
					t.Errorf("%.3f of the link used, yielding %v", share, c.Yielding())
				}
				if p95(queue) > 2*Target+4*packet {
					t.Errorf("queue of %s", p95(queue))
				}
				if first < 0.5 {
					t.Errorf("%.2f of the link used at the start", first)
				}

				m = newModel(mbit, base)
				s = m.cubic()
				s.start()
				m.watch(2*time.Second, s)
				if _, queue := m.watch(60*time.Second, s); base <= 40*ms && p95(queue) < 40*ms {
					t.Errorf("control: queue of %s without yielding", p95(queue))
				}
			})
		}
	}
}

// A bulk flow that takes the link has it within five seconds, and we have it back soon after it ends. Control: two flows
// that do not yield share it.
func TestBesideBulk(t *testing.T) {
	for _, mbit := range []float64{20, 50, 200} {
		t.Run(fmt.Sprintf("%g Mbit/s", mbit), func(t *testing.T) {
			m := newModel(mbit, 40*ms)
			s, c := m.ours(new(Base), 0)
			s.start()
			m.run(5 * time.Second)
			bulk := m.cubic()
			bulk.start()
			m.watch(5*time.Second, s)
			share, _ := m.watch(30*time.Second, s)
			if share > 0.1 || !c.Yielding() {
				t.Errorf("%.3f of the link used beside a bulk flow, yielding %v", share, c.Yielding())
			}
			bulk.stop()
			m.watch(2*time.Second, s)
			after, _ := m.watch(5*time.Second, s)
			if after < 0.95 || c.Yielding() {
				t.Errorf("%.3f of the link used when the bulk flow has ended, yielding %v", after, c.Yielding())
			}
			t.Logf("beside %.3f, after %.3f", share, after)

			m = newModel(mbit, 40*ms)
			s, bulk = m.cubic(), m.cubic()
			s.start()
			m.run(5 * time.Second)
			bulk.start()
			m.watch(5*time.Second, s)
			if share, _ := m.watch(30*time.Second, s); share < 0.2 {
				t.Errorf("control: %.3f of the link used without yielding", share)
			}
		})
	}
}

// A flow that begins while another fills the link yields too: at once if the path was seen idle within the hour, and soon if
// it was not, for the other's queue is not always equally long.
func TestLatecomer(t *testing.T) {
	for name, known := range map[string]bool{"known path": true, "unknown path": false} {
		m := newModel(20, 40*ms)
		bulk := m.cubic()
		bulk.start()
		m.run(10 * time.Second)
		base := new(Base)
		if known {
			base.Observe(m.clock().Add(-50*time.Minute), 42*ms)
		}
		s, _ := m.ours(base, 0)
		s.start()
		first, _ := m.watch(5*time.Second, s)
		share, _ := m.watch(30*time.Second, s)
		t.Logf("%s: %.3f of the link at first, then %.3f", name, first, share)
		if share > 0.1 || known && first > 0.1 {
			t.Errorf("%s: %.3f of the link used at first, then %.3f", name, first, share)
		}
	}
}

// What a line loses by chance is no reason to yield, be it one packet in a hundred or five.
func TestRandomLoss(t *testing.T) {
	for _, loss := range []float64{0.01, 0.05} {
		m := newModel(50, 40*ms)
		m.loss = loss
		s, _ := m.ours(new(Base), 0)
		s.start()
		m.watch(3*time.Second, s)
		share, queue := m.watch(60*time.Second, s)
		t.Logf("loss %.2f: %.3f of the link, queue %s", loss, share, p95(queue))
		if share < 0.9*(1-loss) {
			t.Errorf("loss %.2f: %.3f of the link used", loss, share)
		}
	}
}

// A queue too short to be seen shows by its losses: we do not lose much more than two packets in a hundred for long, and a
// line that begins to lose more than before is left some room.
func TestShortQueue(t *testing.T) {
	m := newModel(50, 40*ms)
	m.queue = 2 * ms
	s, _ := m.ours(new(Base), 0)
	s.start()
	m.watch(5*time.Second, s)
	before := s.sample
	share, _ := m.watch(60*time.Second, s)
	lost := float64(s.sample.Resent-before.Resent) / float64(s.sample.Sent-before.Sent)
	t.Logf("%.3f of the link, %.4f lost", share, lost)
	if share < 0.8 || lost > 0.02 {
		t.Errorf("%.3f of the link used, %.4f lost", share, lost)
	}
}

// A path that becomes longer is taken for a queue for some ten seconds, and not for an hour; one that becomes shorter at
// once.
func TestRouteChange(t *testing.T) {
	m := newModel(20, 40*ms)
	s, c := m.ours(new(Base), 0)
	s.start()
	m.run(10 * time.Second)
	m.base = 80 * ms
	m.watch(20*time.Second, s)
	share, queue := m.watch(20*time.Second, s)
	if share < 0.9 || c.Yielding() || p95(queue) > 2*Target {
		t.Errorf("longer: %.3f of the link used, yielding %v, queue %s", share, c.Yielding(), p95(queue))
	}
	m.base = 20 * ms
	m.watch(3*time.Second, s)
	share, queue = m.watch(20*time.Second, s)
	if share < 0.95 || p95(queue) > 2*Target {
		t.Errorf("shorter: %.3f of the link used, queue %s", share, p95(queue))
	}
}

// Round trips that tremble cost some of the link, not most of it.
func TestJitter(t *testing.T) {
	m := newModel(20, 40*ms)
	m.jitter = 10 * ms
	s, c := m.ours(new(Base), 0)
	s.start()
	m.watch(3*time.Second, s)
	share, _ := m.watch(60*time.Second, s)
	t.Logf("%.3f of the link", share)
	if share < 0.9 || c.Yielding() {
		t.Errorf("%.3f of the link used, yielding %v", share, c.Yielding())
	}
}

// After twenty seconds of black hole the link is full again within a second or so.
func TestCut(t *testing.T) {
	m := newModel(50, 40*ms)
	s, _ := m.ours(new(Base), 0)
	s.start()
	m.run(10 * time.Second)
	m.down = true
	m.run(30 * time.Second)
	m.down = false
	m.watch(2*time.Second, s) // the model's timer takes one of them
	if share, _ := m.watch(5*time.Second, s); share < 0.95 {
		t.Errorf("%.3f of the link used after a cut", share)
	}
}

// The base is that of the last hour, and a clock that jumps back does no harm.
func TestBase(t *testing.T) {
	now := time.Unix(1e9, 0)
	var b Base
	if b.Min(now) != 0 {
		t.Error("an empty base knows something")
	}
	b.Observe(now, 50*ms)
	b.Observe(now.Add(10*time.Minute), 40*ms)
	b.Observe(now.Add(30*time.Minute), 60*ms)
	b.Observe(now.Add(30*time.Minute), 0)
	for _, c := range []struct {
		after, want time.Duration
	}{{30 * time.Minute, 40 * ms}, {20 * time.Minute, 40 * ms}, {68 * time.Minute, 40 * ms}, {72 * time.Minute, 60 * ms}, {3 * time.Hour, 0}} {
		if got := b.Min(now.Add(c.after)); got != c.want {
			t.Errorf("after %s: %s, want %s", c.after, got, c.want)
		}
	}
}

// Whatever is measured, the window stays within its bounds and the pacing above its least.
func TestAnySample(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b Base
		c := New(&b, rapid.IntRange(-1, 1<<40).Draw(t, "hint"))
		now := time.Unix(1e9, 0)
		var s Sample
		for range rapid.IntRange(1, 200).Draw(t, "samples") {
			now = now.Add(time.Duration(rapid.Int64Range(-1e9, 20e9).Draw(t, "step")))
			s.RTT = time.Duration(rapid.Int64Range(-1, 10e9).Draw(t, "rtt"))
			s.Delivered += uint32(rapid.IntRange(0, 1<<20).Draw(t, "delivered"))
			sent := rapid.Int64Range(0, 1<<30).Draw(t, "sent")
			s.Sent += sent
			s.Resent += rapid.Int64Range(0, sent).Draw(t, "resent")
			s.Flight = rapid.IntRange(0, 1<<30).Draw(t, "flight")
			if rapid.IntRange(0, 20).Draw(t, "idle") == 0 {
				c.Idle()
			}
			c.Observe(now, s)
			if w, p := c.Window(), c.Pacing(); w < Least || w > Most || p != 0 && p < leastPacing || c.Queue() < 0 {
				t.Fatalf("window %d, pacing %d, queue %s", w, p, c.Queue())
			}
		}
	})
}
