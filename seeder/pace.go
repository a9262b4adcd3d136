package seeder

import (
	"context"
	"sync"

	"golang.org/x/time/rate"

	"github.com/patchmesh/patchmesh/internal/xfer"
)

// burst is what a limiter lets through at once: one slice with its header, and as much again.
const burst = 2 * xfer.SliceBytes

// pace holds chunk data to the cap of its site and to the cap of all sites together.
type pace struct {
	total *rate.Limiter // nil: no cap

	mu    sync.Mutex
	sites map[string]*rate.Limiter // only sites with a cap
}

func newPace(total int64) *pace {
	return &pace{total: limiter(total), sites: map[string]*rate.Limiter{}}
}

func limiter(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), burst)
}

// set gives a site its cap; 0 is none.
func (p *pace) set(site string, bytesPerSecond int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := limiter(bytesPerSecond); l != nil {
		p.sites[site] = l
	} else {
		delete(p.sites, site)
	}
}

func (p *pace) cap(site string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.sites[site]; l != nil {
		return int64(l.Limit())
	}
	return 0
}

// wait returns when n bytes, at most a slice and its header, may be sent to the site.
func (p *pace) wait(ctx context.Context, site string, n int) error {
	p.mu.Lock()
	l := p.sites[site]
	p.mu.Unlock()
	for _, l := range []*rate.Limiter{l, p.total} {
		if l == nil {
			continue
		}
		if err := l.WaitN(ctx, n); err != nil {
			return err
		}
	}
	return nil
}
