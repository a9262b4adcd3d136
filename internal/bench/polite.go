package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/testbed"
)

// pinger asks from a bystander of the first site over the WAN to a server beside the seeder, until stop.
type pinger struct {
	cancel context.CancelFunc
	work   sync.WaitGroup
	echoes []echo
	err    error
}

func (s *stage) pings(ctx context.Context) *pinger {
	ctx, cancel := context.WithCancel(ctx)
	p := &pinger{cancel: cancel}
	p.work.Go(func() { p.echoes, p.err = ping(ctx, s.bed, testbed.Bystander(1), testbed.DC2Addr) })
	return p
}

func (p *pinger) stop() ([]echo, error) {
	p.cancel()
	p.work.Wait()
	return p.echoes, p.err
}

// before is how long the bystander looks at a quiet link.
const before = 4 * time.Second

// impact is what a bystander feels of a transfer, which f makes and which lasts from the first to the second time that
// it returns; and how much of what the link carries it used.
func (s *stage) impact(ctx context.Context, r *row, size int64, w float64, f func() (from, until time.Time, err error)) error {
	p := s.pings(ctx)
	began := time.Now()
	if err := pause(ctx, before); err != nil {
		_, perr := p.stop()
		return errors.Join(err, perr)
	}
	quietUntil := time.Now()
	from, until, err := f()
	echoes, perr := p.stop()
	if err := errors.Join(err, perr); err != nil {
		return err
	}
	base, during := millis(echoes, began, quietUntil), millis(echoes, from, until)
	r.record(pingBase, percentile(base, 95))
	r.record(pingMedian, percentile(during, 50))
	r.record(pingP95, percentile(during, 95))
	r.record(pingRise, percentile(during, 95)-percentile(base, 95))
	r.record(linkUse, float64(size)/until.Sub(from).Seconds()/w)
	s.say("%s, %s: ping p95 %.1f ms before, median %.1f and p95 %.1f during", r.Tool, r.Case, percentile(base, 95), percentile(during, 50), percentile(during, 95))
	return nil
}

// The two situations of politeness.
const (
	politeFill = "bystander's ping, 4 nodes at 20 Mbit/s"
	politeBulk = "beside a bulk flow, 4 nodes at 20 Mbit/s"
)

// politeness has a bystander ping during fills by curl, aria2 and ours, and a bulk flow beside ours.
func politeness(ctx context.Context, s *stage, p *part) error {
	size := s.size / 2
	file, err := s.content(0, size)
	if err != nil {
		return err
	}
	var w float64 // what the link carries, bytes per second
	for range s.runs {
		r := s.row(p, "one curl, one node", politeFill, size)
		err := s.impact(ctx, r, size, float64(s.cfg.WAN)/8, func() (time.Time, time.Time, error) {
			from := time.Now()
			took, _, err := s.plain(ctx, testbed.Node(1, 1), s.url(testbed.DCAddr, file))
			w = max(w, float64(size)/took.Seconds())
			return from, from.Add(took), err
		})
		if err != nil {
			return err
		}
	}
	for _, v := range s.rivals(p) {
		if v.name != "aria2" {
			continue
		}
		r := s.row(p, v.name, politeFill, size) // once: it is not what is measured here
		err := s.impact(ctx, r, size, w, func() (from, until time.Time, err error) {
			x, err := s.race(ctx, v, size, nil)
			if err != nil {
				return from, until, err
			}
			_, last, _ := x.times()
			return x.began, x.began.Add(time.Duration(last * float64(time.Second))), nil
		})
		if err != nil {
			return err
		}
	}
	return s.onSite(ctx, func(t *site) error {
		for range s.runs {
			b, err := t.prepare(ctx, size)
			if err != nil {
				return err
			}
			r := s.row(p, ours, politeFill, size)
			err = s.impact(ctx, r, b.bytes, w, func() (from, until time.Time, err error) {
				d, err := t.deliver(ctx, b)
				if err != nil {
					return from, until, err
				}
				defer d.sampler.stop()
				err = d.arrived(ctx, t.nodes()...)
				_, last := d.seconds()
				return d.began, d.began.Add(time.Duration(last * float64(time.Second))), err
			})
			if err != nil {
				return err
			}
			if err := t.besideBulk(ctx, s.row(p, ours, politeBulk, s.size), w); err != nil {
				return err
			}
		}
		return nil
	})
}

// bulkTime is how long somebody else's transfer takes the link.
const bulkTime = 12 * time.Second

// besideBulk lets a bulk TCP flow (curl, cubic) into a fill and takes it away again.
func (t *site) besideBulk(ctx context.Context, r *row, w float64) error {
	large, err := t.content(99, 8*t.cfg.WAN.Bytes(bulkTime)/4) // twice what it can move
	if err != nil {
		return err
	}
	c, err := t.crew("bulk")
	if err != nil {
		return err
	}
	defer c.end()
	d, err := t.faulty(ctx, t.size, func(d *delivery) ([]*harness.Node, error) {
		if err := d.crossed(ctx, 0.1); err != nil {
			return nil, err
		}
		o, err := t.serve(testbed.DC2, testbed.DC2Addr+":80")
		if err != nil {
			return nil, err
		}
		bulk, err := c.start(testbed.Bystander(1), "bulk", nil, "curl", "-sS", "-o", "/dev/null", t.url(testbed.DC2Addr, large))
		if err != nil {
			return nil, errors.Join(err, o.close())
		}
		share, err := t.share(ctx, 5*time.Second, bulkTime-5*time.Second)
		running := bulk.running()
		bulk.kill()
		err = errors.Join(err, o.close())
		if err != nil {
			return nil, err
		}
		if running { // else it was not there to share the link with
			r.record(bulkShare, share.ours/share.all)
		}
		after, err := t.share(ctx, 3*time.Second, 5*time.Second)
		if err == nil && after.left(d) {
			r.record(recovered, after.ours/after.seconds/w)
		}
		return t.nodes(), err
	})
	if err != nil {
		return err
	}
	d.sampler.stop()
	return nil
}

// used is what crossed the first site's WAN in some seconds, in bytes: the nodes' part and all of it.
type used struct{ ours, all, seconds, total float64 }

func (t *site) share(ctx context.Context, after, during time.Duration) (u used, err error) {
	if err := pause(ctx, after); err != nil {
		return u, err
	}
	a, err := t.bed.Stats(1)
	if err != nil {
		return u, err
	}
	from := time.Now()
	if err := pause(ctx, during); err != nil {
		return u, err
	}
	b, err := t.bed.Stats(1)
	if err != nil {
		return u, err
	}
	u.seconds = time.Since(from).Seconds()
	for i := range b.Nodes {
		u.ours += float64(b.Nodes[i].WANDown - a.Nodes[i].WANDown)
		u.total += float64(b.Nodes[i].WANDown)
	}
	u.all = float64(b.DownArrived - a.DownArrived)
	return u, nil
}

// left reports whether the nodes had still something to fetch at the end: what is over cannot recover.
func (u used) left(d *delivery) bool {
	var before int64
	for _, n := range d.stats[0].Nodes {
		before += n.WANDown
	}
	return u.total-float64(before) < float64(d.b.bytes)
}
