package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/testbed"
)

const ours = "patchmesh"

func situation(s *stage) string {
	if s.cfg.Sites > 1 {
		return fmt.Sprintf("%d sites x %d nodes", s.cfg.Sites, s.cfg.Nodes)
	}
	return fmt.Sprintf("%d nodes", max(1, s.cfg.Nodes))
}

// onSite runs f with a site that is settled, and checks every store at the end.
func (s *stage) onSite(ctx context.Context, f func(*site) error) error {
	t, err := s.settle(ctx)
	if err != nil {
		return err
	}
	err = f(t)
	if err == nil {
		err = t.check(ctx)
	}
	return errors.Join(err, t.keepLogs(s.logs), t.leave())
}

// fills delivers to nodes that are up and have found each other, again and again.
func fills(ctx context.Context, s *stage, p *part) error {
	return s.onSite(ctx, func(t *site) error {
		r := s.row(p, ours, situation(s), s.size)
		for i := range s.runs {
			b, err := t.prepare(ctx, s.size)
			if err != nil {
				return err
			}
			plain, err := s.yardstick(ctx, i*p.pairs())
			if err != nil {
				return err
			}
			d, err := t.deliver(ctx, b)
			if err != nil {
				return err
			}
			if err := errors.Join(d.arrived(ctx, t.nodes()...), d.figures(ctx, r)); err != nil {
				return err
			}
			_, last := d.seconds()
			r.record(eWAN, plain.Seconds()/last)
			r.record(linkRate, float64(s.size)*8/1e6/plain.Seconds())
			u := float64(s.cfg.LAN) / 8
			w := float64(b.bytes) / plain.Seconds()
			if u > 0 {
				r.record(fillRatio, last/fillTime(float64(b.bytes), w, u, float64(b.bytes)/float64(b.chunks), s.cfg.Nodes, s.cfg.RTT))
			}
			s.say("%s run %d: last node after %.2f s, curl %.2f s", situation(s), i+1, last, plain.Seconds())
		}
		if p.pairs() == 0 {
			return nil
		}
		return t.idle(ctx, r)
	})
}

// pairs is 1 for the part whose figures are given in full: each of its runs has a yardstick of its own, and it is
// watched doing nothing.
func (p *part) pairs() int {
	if p.Name == "fill-8" {
		return 1
	}
	return 0
}

// figures of a delivery that is over on every node that counts.
func (d *delivery) figures(ctx context.Context, r *row) error {
	d.sampler.stop()
	t := d.t
	first, last := d.seconds()
	base := t.atRate(d.b.bytes)
	r.record(firstNode, first/base)
	r.record(lastNode, last/base)
	cpu, peak := d.usage()
	r.record(cpuPerGB, cpu/(float64(d.b.bytes)*float64(len(t.nodes()))/1e9))
	r.record(rssPeak, float64(peak)/(1<<20))
	var wan, payload, twice, lan float64
	for i, g := range t.groups {
		tr, err := d.traffic(i)
		if err != nil {
			return err
		}
		acc, err := d.account(ctx, i)
		if err != nil {
			return err
		}
		wan = max(wan, float64(tr.DownArrived)/float64(d.b.bytes))
		payload = max(payload, float64(acc.Payload)/float64(d.b.bytes))
		twice += float64(acc.Duplicate)
		var got int64
		for _, n := range tr.Nodes {
			got += n.LANReceived - n.WANDown
		}
		if n := len(g.Nodes); n > 1 {
			lan = max(lan, float64(got)/float64(d.b.bytes)/float64(n-1))
		}
	}
	r.record(wanBytes, wan)
	r.record(wanPayload, payload)
	r.record(twiceBytes, twice)
	if lan > 0 {
		r.record(aLAN, lan)
	}
	return nil
}

// quiet is how long a site is watched doing nothing for each run, after so long for the last words.
const (
	lastWords = time.Minute
	quiet     = 20 * time.Second
)

// idle is what a site costs that has nothing to do.
func (t *site) idle(ctx context.Context, r *row) error {
	if err := pause(ctx, lastWords); err != nil {
		return err
	}
	d, err := t.begin(ctx, bundle{})
	if err != nil {
		return err
	}
	defer d.sampler.stop()
	from := time.Now()
	if err := pause(ctx, time.Duration(t.runs)*quiet); err != nil {
		return err
	}
	seconds := time.Since(from).Seconds()
	tr, err := d.traffic(0)
	if err != nil {
		return err
	}
	var lan, worst float64
	for _, n := range tr.Nodes {
		lan += float64(n.LANSent + n.LANReceived)
	}
	for _, n := range t.nodes() {
		u, err := readUsage(n.Proc().PID())
		if err != nil {
			return err
		}
		worst = max(worst, float64(u.now))
	}
	cpu, _ := d.usage()
	r.record(idleWAN, float64(tr.DownArrived+tr.UpSent)/seconds/float64(len(t.groups)))
	r.record(idleLAN, lan/seconds/float64(len(tr.Nodes)))
	r.record(idleCPU, cpu/seconds/float64(len(t.nodes())))
	r.record(rssIdle, worst/(1<<20))
	return nil
}

// faults breaks a delivery half-way, in every way of the table, and lets it recover before the next.
func faults(ctx context.Context, s *stage, p *part) error {
	return s.onSite(ctx, func(t *site) error {
		for range s.runs {
			for _, f := range []func(context.Context, *site, *part) error{noFault, uplinkKilled, cablePulled, wanCut, lossy, coldStart} {
				if err := f(ctx, t, p); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// faulty prepares and posts a bundle, breaks something, and waits for these nodes.
func (t *site) faulty(ctx context.Context, size int64, breakIt func(*delivery) ([]*harness.Node, error)) (*delivery, error) {
	b, err := t.prepare(ctx, size)
	if err != nil {
		return nil, err
	}
	d, err := t.deliver(ctx, b)
	if err != nil {
		return nil, err
	}
	nodes, err := breakIt(d)
	if err == nil {
		err = d.arrived(ctx, nodes...)
	}
	if err != nil {
		d.sampler.stop()
		return nil, err
	}
	return d, nil
}

// faultSize is half the size: the last half is what a fault is about.
func (s *stage) faultSize() int64 { return s.size / 2 }

const withoutFault = "8 nodes, no fault, half the size"

func noFault(ctx context.Context, t *site, p *part) error {
	d, err := t.faulty(ctx, t.faultSize(), func(*delivery) ([]*harness.Node, error) { return t.nodes(), nil })
	if err != nil {
		return err
	}
	return d.figures(ctx, t.row(p, ours, withoutFault, d.b.bytes))
}

// dies is what the death of an uplink costs.
func (d *delivery) dies(ctx context.Context, r *row, at time.Time) error {
	ticks := d.sampler.stop()
	until := d.stats[0].Down.Bytes + d.b.bytes
	r.record(idleSeconds, idle(ticks, at, until, float64(d.t.cfg.WAN)/8).Seconds())
	acc, err := d.account(ctx, 0)
	if err != nil {
		return err
	}
	r.record(twiceBytes, float64(acc.Duplicate))
	_, last := d.seconds()
	r.record(lastNode, last/d.t.atRate(d.b.bytes))
	return nil
}

func uplinkKilled(ctx context.Context, t *site, p *part) error {
	var victim *harness.Node
	var at time.Time
	d, err := t.faulty(ctx, t.faultSize(), func(d *delivery) ([]*harness.Node, error) {
		if err := d.crossed(ctx, 0.5); err != nil {
			return nil, err
		}
		var n int
		var err error
		if victim, n, err = d.fetcher(); err != nil {
			return nil, err
		}
		at = time.Now()
		return t.but(victim), t.bed.Kill(testbed.Node(1, n))
	})
	if err != nil {
		return err
	}
	if err := d.dies(ctx, t.row(p, ours, "8 nodes, uplink killed", d.b.bytes), at); err != nil {
		return err
	}
	if err := t.run(victim); err != nil {
		return err
	}
	return errors.Join(d.arrived(ctx, victim), t.connected(ctx))
}

func cablePulled(ctx context.Context, t *site, p *part) error {
	var victim *harness.Node
	var number int
	var at time.Time
	d, err := t.faulty(ctx, t.faultSize(), func(d *delivery) (rest []*harness.Node, err error) {
		if err := d.crossed(ctx, 0.5); err != nil {
			return nil, err
		}
		if victim, number, err = d.fetcher(); err != nil {
			return nil, err
		}
		at = time.Now()
		return t.but(victim), t.bed.Isolate(1, number)
	})
	if err != nil {
		return err
	}
	if err := d.dies(ctx, t.row(p, ours, "8 nodes, uplink's cable pulled", d.b.bytes), at); err != nil {
		return err
	}
	return errors.Join(t.bed.Join(1, number), d.arrived(ctx, victim), t.connected(ctx))
}

// cutTime is how long the WAN is a black hole.
const cutTime = 20 * time.Second

func wanCut(ctx context.Context, t *site, p *part) error {
	d, err := t.faulty(ctx, t.faultSize(), func(d *delivery) ([]*harness.Node, error) {
		if err := d.crossed(ctx, 0.5); err != nil {
			return nil, err
		}
		if err := t.bed.Cut(1); err != nil {
			return nil, err
		}
		return t.nodes(), errors.Join(pause(ctx, cutTime), t.bed.Heal(1))
	})
	if err != nil {
		return err
	}
	d.sampler.stop()
	_, last := d.seconds()
	whole, _ := p.row(ours, withoutFault).value(lastNode)
	r := t.row(p, ours, "8 nodes, WAN cut for 20 s", d.b.bytes)
	r.record(extra, last-whole*t.atRate(d.b.bytes))
	acc, err := d.account(ctx, 0)
	r.record(twiceBytes, float64(acc.Duplicate))
	return err
}

func lossy(ctx context.Context, t *site, p *part) error {
	if err := t.bed.Loss(1, 0.01); err != nil {
		return err
	}
	d, err := t.faulty(ctx, t.size, func(*delivery) ([]*harness.Node, error) { return t.nodes(), nil })
	if err != nil {
		return err
	}
	return errors.Join(d.figures(ctx, t.row(p, ours, "8 nodes, 1 % loss", d.b.bytes)), t.bed.Loss(1, 0))
}

// coldStart has the policy waiting when every daemon of the site starts: the time counts from the start of the first.
func coldStart(ctx context.Context, t *site, p *part) error {
	for _, n := range t.nodes() {
		if err := n.Stop(ctx); err != nil {
			return err
		}
	}
	b, err := t.prepare(ctx, t.faultSize())
	if err != nil {
		return err
	}
	if err := t.seeder.Policy(ctx, bundleName, b.version, b.sum); err != nil {
		return err
	}
	d, err := t.begin(ctx, b)
	if err != nil {
		return err
	}
	defer d.sampler.stop()
	for _, n := range t.nodes() {
		if err := t.run(n); err != nil {
			return err
		}
	}
	if err := d.arrived(ctx, t.nodes()...); err != nil {
		return err
	}
	first, last := d.seconds()
	r := t.row(p, ours, "8 nodes, all daemons start at once", b.bytes)
	r.record(firstNode, first/t.atRate(b.bytes))
	r.record(lastNode, last/t.atRate(b.bytes))
	tr, err := d.traffic(0)
	if err != nil {
		return err
	}
	r.record(wanBytes, float64(tr.DownArrived)/float64(b.bytes))
	return t.connected(ctx)
}
