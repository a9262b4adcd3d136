package seeder

import (
	"context"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/ledbat"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// yieldState is what a site's WAN looks like from here.
type yieldState struct {
	BaseRTT  time.Duration // smallest round trip to the uplink; 0: unknown
	Queue    time.Duration // how much longer it is now: what waits in the link's queue
	Yielding bool          // the rate is held down because others use the link
}

// yielding lets what others send over a site's link go before chunk data: it holds the bytes in flight to the uplink
// within a window of package ledbat. The seeder is the sender, so it alone decides, and nothing is asked of a site's routers.
type yielding struct {
	off        bool
	congestion string // for a link that loses packets
	now        func() time.Time

	mu    sync.Mutex
	links map[string]*link
}

// link is a site's WAN.
type link struct {
	mu     sync.Mutex
	base   ledbat.Base
	flows  map[*xfer.Session]*flow // those on which chunks were sent
	window int                     // of the last one that ended
	ended  time.Time
	lossy  time.Time // when packets were last found lost
}

// flow is a session that chunks are sent on.
type flow struct {
	*ledbat.Controller
	clean   bool  // the congestion control is the one for a link that loses nothing
	resent  int64 // when the flow began
	slack   int   // rounds in which the kernel sent less than the window lets it
	pacing  int64
	used    time.Time // when last asked
	packets uint32    // delivered
	moved   time.Time // when that last changed
}

// Times of waiting for the window, and of remembering it.
const (
	leastWait = time.Millisecond
	mostWait  = 20 * time.Millisecond
	stuckWait = 100 * time.Millisecond // when nothing was acknowledged for a second: the link is down, and need not be watched closely
	idleAfter = time.Second            // a window that was not used for so long is a hint
	lossyFor  = 10 * time.Minute       // a link that lost a packet is taken to be one that does
	hintFor   = 10 * time.Minute       // and for so long that of a session that has ended
)

// cleanCongestion is used on a link until it loses a packet. While the window keeps the queue short it has nothing to do,
// and it does nothing; bbr would still empty the pipe for 200 ms every ten seconds to see the round trip without a queue, 2 %
// of the link's time. On a link that loses packets it stops at every one of them, and bbr does not.
const (
	cleanCongestion = "cubic"
	mostSlack       = 8
)

func newYielding(cfg Config) *yielding {
	return &yielding{off: cfg.NoYield, congestion: cfg.Congestion, now: cfg.Now, links: map[string]*link{}}
}

func (y *yielding) link(site string) *link {
	y.mu.Lock()
	defer y.mu.Unlock()
	l := y.links[site]
	if l == nil {
		l = &link{flows: map[*xfer.Session]*flow{}}
		y.links[site] = l
	}
	return l
}

// wait returns when n more bytes may be handed over for a session of a site.
func (y *yielding) wait(ctx context.Context, site string, s *xfer.Session, n int) error {
	if y.off {
		return nil
	}
	l := y.link(site)
	for {
		p, ok := s.Path()
		if !ok {
			return nil // the connection is gone: the write says so
		}
		v := l.step(y.now(), s, p, n)
		if v.pacing > 0 {
			s.SetPacing(v.pacing)
		}
		switch {
		case v.clean:
			_ = s.SetCongestion(cleanCongestion) // what is not allowed is not needed
		case v.lossy:
			_ = s.SetCongestion(y.congestion) // the host has said so if it is not allowed
		}
		if v.wait == 0 {
			return nil
		}
		t := time.NewTimer(v.wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}

// verdict is what is to be done before n bytes are sent.
type verdict struct {
	wait         time.Duration // then ask again; 0: they may be sent
	pacing       int64         // bytes per second to send at from now on; 0: as before
	clean, lossy bool          // the congestion control to send by from now on; neither: as before
}

func (l *link) step(now time.Time, s *xfer.Session, p xfer.Path, n int) (v verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.flow(now, s)
	if f.used.IsZero() && now.Sub(l.lossy) > lossyFor {
		f.clean, f.resent, v.clean = true, p.Resent, true
	}
	if p.Delivered != f.packets {
		f.packets, f.moved = p.Delivered, now
	}
	f.used = now
	changed := f.Observe(now, ledbat.Sample{RTT: p.RTT, Delivered: p.Delivered, Sent: p.Sent, Resent: p.Resent, Flight: p.Flight})
	if changed {
		if x := f.Pacing(); x != f.pacing {
			f.pacing, v.pacing = x, x
		}
		if f.slack++; p.Pending < f.Window()*3/4 || p.Flight > f.Window()/2 {
			f.slack = 0
		}
	}
	if f.clean && (p.Resent > f.resent || f.slack > mostSlack) {
		f.clean, l.lossy, v.lossy = false, now, true
	}
	over := p.Pending + n - f.Window()
	switch {
	case p.Pending == 0 || over <= 0:
	case now.Sub(f.moved) > idleAfter:
		v.wait = stuckWait
	default:
		v.wait = min(max(time.Duration(float64(over)/float64(f.Window())*float64(p.RTT)), leastWait), mostWait)
	}
	return v
}

func (l *link) flow(now time.Time, s *xfer.Session) *flow {
	f := l.flows[s]
	switch {
	case f == nil:
		hint := 0
		if now.Sub(l.ended) < hintFor {
			hint = l.window
		}
		f = &flow{Controller: ledbat.New(&l.base, hint), moved: now}
		l.flows[s] = f
	case !f.used.IsZero() && now.Sub(f.used) > idleAfter:
		f.Idle()
		f.moved = now
	}
	return f
}

// slice is how many bytes are to be handed over for a session at once: a quarter of the window, in whole pairs of packets,
// for the last of an odd number is acknowledged late.
func (y *yielding) slice(site string, s *xfer.Session) int {
	if y.off {
		return xfer.SliceBytes
	}
	l := y.link(site)
	l.mu.Lock()
	defer l.mu.Unlock()
	const pair = 2 * ledbat.MSS
	pairs := max(1, l.flow(y.now(), s).Window()/4/pair)
	return min(pairs*pair-xfer.FrameOverhead, xfer.SliceBytes)
}

// look learns from a session that is idle how far the site is.
func (y *yielding) look(site string, s *xfer.Session) {
	if p, ok := s.Path(); ok {
		l := y.link(site)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.base.Observe(y.now(), p.RTT)
	}
}

// gone forgets a session that has ended.
func (y *yielding) gone(site string, s *xfer.Session) {
	l := y.link(site)
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.flows[s]; f != nil {
		if delete(l.flows, s); !f.Yielding() {
			l.window, l.ended = f.Window(), y.now()
		}
	}
}

// state is what is known of a site's link.
func (y *yielding) state(site string) (out yieldState) {
	l, now := y.link(site), y.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	out.BaseRTT = l.base.Min(now)
	for _, f := range l.flows {
		if now.Sub(f.used) < 5*time.Second {
			out.Queue, out.Yielding = max(out.Queue, f.Queue()), out.Yielding || f.Yielding()
		}
	}
	return out
}
