package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/testbed"
)

// lanCase says what a broadcast on the LAN is called.
func lanCase(s *stage) string {
	return fmt.Sprintf("%d nodes, LAN broadcast at %d Mbit/s", s.cfg.Nodes, s.cfg.LAN/testbed.Mbit)
}

// port measures what a node's port carries, in bytes per second: one plain HTTP transfer from neighbour to neighbour.
func (s *stage) port(ctx context.Context) (u float64, err error) {
	file, err := s.content(0, s.lanSize())
	if err != nil {
		return 0, err
	}
	o, err := s.serve(testbed.Node(1, 1), testbed.NodeAddr(1, 1)+":80")
	if err != nil {
		return 0, err
	}
	took, _, err := s.plain(ctx, testbed.Node(1, 2), s.url(testbed.NodeAddr(1, 1), file))
	return float64(s.lanSize()) / took.Seconds(), errors.Join(err, o.close())
}

// lanSize is half the size: the sum over all ports is what a LAN of 30 nodes moves.
func (s *stage) lanSize() int64 { return s.size / 2 }

// broadcast imports a bundle from a stick on one node of a site without WAN, and times the others.
func broadcast(ctx context.Context, s *stage, p *part) error {
	u, err := s.port(ctx)
	if err != nil {
		return err
	}
	return s.onSite(ctx, func(t *site) error {
		r := s.row(p, ours, lanCase(s), s.lanSize())
		r.record(portRate, u*8/1e6)
		for range s.runs {
			d, err := t.stick(ctx)
			if err != nil {
				return err
			}
			_, last := d.seconds()
			bound := broadcastTime(d.b.chunks, float64(d.b.bytes)/float64(d.b.chunks), u, s.cfg.Nodes)
			r.record(rLAN, last/bound)
			tr, err := d.traffic(0)
			if err != nil {
				return err
			}
			var got int64
			for _, n := range tr.Nodes {
				got += n.LANReceived
			}
			r.record(aLAN, float64(got)/float64(d.b.bytes)/float64(s.cfg.Nodes-1))
			cpu, peak := d.usage()
			r.record(cpuPerGB, cpu/(float64(d.b.bytes)*float64(s.cfg.Nodes-1)/1e9))
			r.record(rssPeak, float64(peak)/(1<<20))
			s.say("%s: last node after %.2f s, bound %.2f s", lanCase(s), last, bound)
			if err := t.bed.Heal(1); err != nil {
				return err
			}
		}
		return nil
	})
}

// stick cuts the WAN and brings a bundle on a stick to the first node. The time counts from the moment at which the
// stick is read.
func (t *site) stick(ctx context.Context) (*delivery, error) {
	b, err := t.prepare(ctx, t.lanSize())
	if err != nil {
		return nil, err
	}
	if err := t.bed.Cut(1); err != nil {
		return nil, err
	}
	if err := t.seeder.Policy(ctx, bundleName, b.version, b.sum); err != nil {
		return nil, err
	}
	file := filepath.Join(t.lab.Dir, b.version+".mesh")
	if _, err := t.seeder.Meshctl(ctx, "bundle", "export", b.dir, "--policy", bundleName, "--out", file); err != nil {
		return nil, err
	}
	// An idle site takes most of a minute to see that its WAN is gone. A seeder that is gone says so at once.
	t.seeder.Kill()
	if err := errors.Join(t.bed.Heal(1), t.alone(ctx), t.bed.Cut(1), t.seeder.Start(ctx)); err != nil {
		return nil, err
	}
	d, err := t.begin(ctx, b)
	if err != nil {
		return nil, err
	}
	defer d.sampler.stop()
	if _, err := t.groups[0].Nodes[0].Meshctl(ctx, "bundle", "import", file); err != nil {
		return nil, err
	}
	return d, d.arrived(ctx, t.nodes()...)
}

// alone waits until no node believes that it has the WAN.
func (t *site) alone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return harness.Await(ctx, "an end of the lease", 200*time.Millisecond, func() (bool, string, error) {
		for _, n := range t.nodes() {
			if self, err := n.Self(ctx); err != nil || self.Uplink {
				return false, n.Name, err
			}
		}
		return true, "", nil
	})
}

// compareLAN has the rivals that use the LAN bring one node's file to the others.
func compareLAN(ctx context.Context, s *stage, p *part) error {
	u, err := s.port(ctx)
	if err != nil {
		return err
	}
	var trouble []error
	for _, v := range s.rivals(p) {
		if !v.lan {
			continue
		}
		row := s.row(p, v.name, lanCase(s), s.lanSize())
		for range s.times(v) {
			r, err := s.raceFrom(ctx, v, s.lanSize())
			if err != nil {
				trouble = append(trouble, fmt.Errorf("%s: %w", v.name, err))
				break
			}
			_, last, ok := r.times()
			s.say("%s, %s: all complete: %v, last after %.1f s", v.name, lanCase(s), ok, last)
			if !ok {
				trouble = append(trouble, fmt.Errorf("%s: not every node had the file in time", v.name))
				break
			}
			row.record(rLAN, last/broadcastTime(int(r.size/pieceSize), pieceSize, u, s.cfg.Nodes))
			st, err := s.bed.Stats(1)
			if err != nil {
				return err
			}
			var got int64
			for _, n := range st.Sub(r.stats[0]).Nodes {
				got += n.LANReceived
			}
			row.record(aLAN, float64(got)/float64(r.size)/float64(s.cfg.Nodes-1))
			row.record(cpuPerGB, r.cpu/(float64(r.size)*float64(s.cfg.Nodes-1)/1e9))
			row.record(rssPeak, float64(r.peak)/(1<<20))
		}
	}
	return errors.Join(trouble...)
}
