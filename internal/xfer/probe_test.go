package xfer

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/patchmesh/patchmesh/internal/wire"
)

// probed runs the probe of a session without a network and returns the session, how many pings it sent, and a
// channel with what ended it. It belongs into a bubble: the bubble's clock is the session's.
func probed(t *testing.T) (s *Session, pings func() int, ended chan error) {
	s = &Session{x: &Host{cfg: Config{ProbeActive: ProbeActive, ProbeIdle: ProbeIdle}}, wake: make(chan struct{}, 1), cut: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancelCause(t.Context())
	s.live.start(ProbeIdle)
	ended = make(chan error, 1)
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{})
	go func() { defer close(done); ended <- s.probe(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	one, err := wire.Append(nil, &wire.Ping{})
	if err != nil {
		t.Fatal(err)
	}
	return s, func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.queue) / len(one)
	}, ended
}

// Silence is noticed within three and a half intervals of the last sign of life, wherever in an interval that came,
// and not before two and a half.
func TestSilenceIsNoticed(t *testing.T) {
	for _, active := range []bool{false, true} {
		every := ProbeIdle
		if active {
			every = ProbeActive
		}
		for tenth := range 10 {
			synctest.Test(t, func(t *testing.T) {
				s, _, ended := probed(t)
				s.SetActive(active)
				for range 5 { // a while of good answers
					time.Sleep(every / 2)
					s.live.heard()
				}
				time.Sleep(time.Duration(tenth) * every / 10)
				s.live.heard()
				last := time.Now()
				if err := <-ended; !errors.Is(err, errSilent) {
					t.Fatal(err)
				}
				if d := time.Since(last); d < every*5/2 || d > every*7/2 {
					t.Errorf("active %t, at %d/10: noticed after %v", active, tenth, d)
				}
			})
		}
	}
}

// A peer that is heard at least every two intervals is never let go, and costs one ping an interval.
func TestTalkingPeerStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, pings, ended := probed(t)
		begin := time.Now()
		for time.Since(begin) < 24*time.Hour {
			time.Sleep(2 * ProbeIdle)
			s.live.heard()
			if len(ended) > 0 {
				t.Fatal(<-ended)
			}
		}
		synctest.Wait()
		if n, most := pings(), int(24*time.Hour/ProbeIdle)+1; n > most {
			t.Errorf("%d pings a day, at most %d", n, most)
		}
	})
}

// While we are in the handler the peer's silence is ours.
func TestOwnSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, ended := probed(t)
		s.SetActive(true)
		s.live.busy.Add(1)
		time.Sleep(time.Hour)
		if len(ended) > 0 {
			t.Fatal(<-ended)
		}
		s.live.heard()
		s.live.busy.Add(-1)
		time.Sleep(ProbeActive * 2)
		if len(ended) > 0 {
			t.Fatal(<-ended)
		}
		if err := <-ended; !errors.Is(err, errSilent) {
			t.Error(err)
		}
	})
}

// A change of pace neither hides silence nor makes it up: what counts is how long a ping went unanswered.
func TestChangeOfPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, ended := probed(t)
		synctest.Wait()
		s.live.heard()
		time.Sleep(ProbeIdle - time.Second) // idle: nothing asked since
		s.SetActive(true)                   // asks at once
		time.Sleep(ProbeActive * 2)
		if len(ended) > 0 {
			t.Fatalf("the peer had no time to answer: %v", <-ended)
		}
		begin := time.Now()
		for i := 0; len(ended) == 0; i++ { // to and fro, all the time
			time.Sleep(300 * time.Millisecond)
			s.SetActive(i%2 == 0)
			if time.Since(begin) > ProbeActive*4 {
				t.Fatal("the silence is not noticed")
			}
		}
	})
}

func TestRTT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := probed(t)
		s.SetActive(true)
		synctest.Wait()
		if s.RTT() != 0 {
			t.Error("a round trip before the first")
		}
		for _, c := range []struct{ took, want time.Duration }{{30, 30}, {50, 30}, {20, 20}, {900, 20}} {
			nonce := uint64(s.live.pinged.Load())
			time.Sleep(c.took * time.Millisecond)
			s.live.pong(nonce - 1) // an answer to something else
			s.live.pong(nonce)
			s.live.heard()
			if got := s.RTT(); got != c.want*time.Millisecond {
				t.Errorf("%v, want %v", got, c.want*time.Millisecond)
			}
			time.Sleep(time.Duration(int64(nonce) + int64(ProbeActive) - s.live.now()))
			synctest.Wait() // the next ping is out
			s.live.pong(nonce)
			if got := s.RTT(); got != c.want*time.Millisecond {
				t.Errorf("an answer to an earlier ping makes it %v", got)
			}
			s.live.heard()
		}
	})
}
