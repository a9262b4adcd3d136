package xfer

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/patchmesh/patchmesh/internal/wire"
)

// liveness knows when the peer was asked and whether anything was heard since. Times are nanoseconds since the
// session began by the monotonic clock: a wall clock that is set right must not end every session of a site.
type liveness struct {
	born    time.Time
	every   atomic.Int64 // interval of pings
	pinged  atomic.Int64 // when the last ping was sent, and its nonce
	asked   atomic.Int64 // when the first ping was sent since which nothing was heard; 0: none
	rtt     atomic.Int64 // smallest round trip seen
	busy    atomic.Int32 // readers inside Handler.Message: their silence is ours
	changed chan struct{}
}

func (l *liveness) start(every time.Duration) {
	l.born, l.changed = time.Now(), make(chan struct{}, 1)
	l.every.Store(int64(every))
}

func (l *liveness) now() int64 { return int64(time.Since(l.born)) + 1 }

func (l *liveness) heard() { l.asked.Store(0) }

func (l *liveness) setInterval(d time.Duration) {
	if l.every.Swap(int64(d)) != int64(d) {
		select {
		case l.changed <- struct{}{}:
		default:
		}
	}
}

// pong takes the answer to the last ping; earlier ones are too late to tell anything.
func (l *liveness) pong(nonce uint64) {
	if sent := l.pinged.Load(); nonce == uint64(sent) {
		if d, old := l.now()-sent, l.rtt.Load(); old == 0 || d < old {
			l.rtt.Store(max(d, 1))
		}
	}
}

// probe sends pings and ends the session when the peer is silent: nothing was heard for two and a half intervals
// after a ping, which itself came at most one interval after the last sign of life. While one of our readers is
// inside the handler nothing can be heard, which is not the peer's fault.
func (s *Session) probe(ctx context.Context) error {
	l := &s.live
	for {
		every, now := l.every.Load(), l.now()
		patience := every * 5 / 2
		if asked := l.asked.Load(); asked != 0 && now-asked >= patience && l.busy.Load() == 0 {
			return fmt.Errorf("%w: no answer for %s", errSilent, time.Duration(now-asked).Round(time.Millisecond))
		}
		if last := l.pinged.Load(); last == 0 || now-last >= every {
			l.pinged.Store(now)
			l.asked.CompareAndSwap(0, now)
			s.Send(&wire.Ping{Nonce: uint64(now)})
		}
		wait := l.pinged.Load() + every - now
		if rest := l.asked.Load() + patience - now; rest > 0 && l.asked.Load() != 0 {
			wait = min(wait, rest)
		}
		t := time.NewTimer(time.Duration(wait))
		select {
		case <-t.C:
		case <-l.changed:
			t.Stop()
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// hearing notes when bytes arrive, so that a long frame on a thin line counts as a sign of life.
type hearing struct {
	r  io.Reader
	l  *liveness
	in *atomic.Int64 // bytes so far
}

func (h hearing) Read(b []byte) (int, error) {
	n, err := h.r.Read(b)
	if n > 0 {
		h.l.heard()
		h.in.Add(int64(n))
	}
	return n, err
}
