package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/testbed"
)

const bundleName = "app"

// site is the real programs on a stage: a seeder in the data centre and a daemon on every node, which stages what it
// is told to and does not install. It delivers one bundle after another.
type site struct {
	*stage
	lab    *harness.Lab
	seeder *harness.Seeder
	groups []*harness.Site
	number int // of the last bundle
}

// settle joins and starts every node and waits until each is connected with its neighbours.
func (s *stage) settle(ctx context.Context) (*site, error) {
	lab, err := harness.NewOn(limited{harness.OnBed(s.bed)}, s.bin)
	if err != nil {
		return nil, err
	}
	t := &site{stage: s, lab: lab}
	if err := t.start(ctx); err != nil {
		return nil, errors.Join(err, t.leave())
	}
	return t, nil
}

func (t *site) start(ctx context.Context) (err error) {
	if t.seeder, err = t.lab.NewSeeder(ctx); err != nil {
		return err
	}
	for i := range max(1, t.cfg.Sites) {
		g, err := t.seeder.Site(ctx, fmt.Sprintf("site%d", i+1), "0", max(1, t.cfg.Nodes))
		if err != nil {
			return err
		}
		t.groups = append(t.groups, g)
	}
	for _, n := range t.nodes() {
		if err := t.run(n); err != nil {
			return err
		}
	}
	return t.connected(ctx)
}

// run starts a node's daemon.
func (t *site) run(n *harness.Node) error { return n.Start("--no-install") }

// connected waits until every node has all its neighbours.
func (t *site) connected(ctx context.Context) error {
	for _, g := range t.groups {
		for _, n := range g.Nodes {
			err := harness.Await(ctx, n.Site+"/"+n.Name+" and its neighbours", 100*time.Millisecond, func() (bool, string, error) {
				self, err := n.Self(ctx)
				return err == nil && self.Transfer.Peers >= len(g.Nodes)-1, fmt.Sprint(self.Transfer.Peers, err), nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// leave ends everything.
func (t *site) leave() error { return t.lab.Close() }

// check stops the nodes and reads every store with the project's own oracle: a figure of a transfer that delivered
// something else is worth nothing.
func (t *site) check(ctx context.Context) error {
	for _, n := range t.nodes() {
		if !n.Running() {
			continue
		}
		if err := n.Stop(ctx); err != nil {
			return err
		}
		if _, err := t.lab.Run(ctx, "meshd", "fsck", "--state", n.State); err != nil {
			return fmt.Errorf("%s/%s: %w", n.Site, n.Name, err)
		}
	}
	return nil
}

func (t *site) nodes() (all []*harness.Node) {
	for _, g := range t.groups {
		all = append(all, g.Nodes...)
	}
	return all
}

// bundle that the seeder has and nobody wants yet.
type bundle struct {
	dir     string
	version string
	sum     manifest.Digest
	bytes   int64 // of its distinct chunks
	chunks  int
}

// prepare builds and pushes a bundle of one new file.
func (t *site) prepare(ctx context.Context, size int64) (b bundle, err error) {
	t.number++
	b.version = fmt.Sprintf("1.%d", t.number)
	file, err := t.content(t.number, size)
	if err != nil {
		return b, err
	}
	if b.dir, b.sum, err = t.seeder.Build(ctx, bundleName, b.version, t.number, filepath.Dir(file)); err != nil {
		return b, err
	}
	built, err := chunker.Open(b.dir)
	if err != nil {
		return b, err
	}
	c := built.Catalog()
	b.bytes, b.chunks = c.Bytes(), len(c.Chunks)
	return b, t.seeder.Push(ctx, b.dir)
}

// delivery is a bundle on its way to every node.
type delivery struct {
	t       *site
	b       bundle
	began   time.Time
	seen    map[*harness.Node]int // bytes of its log before
	staged  map[*harness.Node]time.Time
	cpu     map[*harness.Node]time.Duration // before; of one that was restarted there is none
	stats   []testbed.SiteStats             // before, of each site
	wan     []status.WAN
	sampler *sampler
}

// begin notes everything as it is before a delivery.
func (t *site) begin(ctx context.Context, b bundle) (*delivery, error) {
	d := &delivery{t: t, b: b, seen: map[*harness.Node]int{}, staged: map[*harness.Node]time.Time{}, cpu: map[*harness.Node]time.Duration{}}
	for i, g := range t.groups {
		st, err := t.bed.Stats(i + 1)
		if err != nil {
			return nil, err
		}
		v, err := g.View(ctx)
		if err != nil {
			return nil, err
		}
		d.stats, d.wan = append(d.stats, st), append(d.wan, v.WAN)
	}
	for _, n := range t.nodes() {
		d.seen[n] = len(log(n))
		if !n.Running() {
			continue
		}
		u, err := readUsage(n.Proc().PID())
		if err != nil {
			return nil, err
		}
		d.cpu[n] = u.cpu
		if err := resetPeak(n.Proc().PID()); err != nil {
			return nil, err
		}
	}
	d.sampler = sample(t.bed, 1)
	d.began = time.Now()
	return d, nil
}

// post puts the policy in force that wants the bundle.
func (d *delivery) post(ctx context.Context) error {
	return d.t.seeder.Policy(ctx, bundleName, d.b.version, d.b.sum)
}

// deliver begins and posts: the time of a delivery counts from the moment at which the operator says so.
func (t *site) deliver(ctx context.Context, b bundle) (*delivery, error) {
	d, err := t.begin(ctx, b)
	if err != nil {
		return nil, err
	}
	if err := d.post(ctx); err != nil {
		d.sampler.stop()
		return nil, err
	}
	return d, nil
}

// log is what a node's daemons have said so far.
func log(n *harness.Node) string {
	if n.Proc() == nil {
		return ""
	}
	return n.Proc().Log()
}

// stagedAt finds in a daemon's log when the bundle of this version was complete and verified. Phases do not name the
// version: what counts is said after its manifest came.
func stagedAt(log, version string) (time.Time, bool) {
	known := false
	for line := range strings.Lines(log) {
		if strings.Contains(line, "msg=manifest ") {
			known = strings.Contains(line, " version="+version+" ")
		}
		if !known || !strings.Contains(line, "msg=phase ") || !strings.Contains(line, " phase=Staged reason=Complete") {
			continue
		}
		word, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		if at, err := time.Parse(time.RFC3339Nano, word); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

// arrived waits until these nodes have the bundle.
func (d *delivery) arrived(ctx context.Context, nodes ...*harness.Node) error {
	return harness.Await(ctx, fmt.Sprintf("bundle %s on %d nodes", d.b.version, len(nodes)), 50*time.Millisecond, func() (bool, string, error) {
		var missing []string
		for _, n := range nodes {
			if _, ok := d.staged[n]; ok {
				continue
			}
			if all := log(n); len(all) >= d.seen[n] {
				if at, ok := stagedAt(all[d.seen[n]:], d.b.version); ok {
					d.staged[n] = at
					continue
				}
			}
			missing = append(missing, n.Site+"/"+n.Name)
		}
		return len(missing) == 0, "without it: " + strings.Join(missing, " "), nil
	})
}

// crossed waits until a share of the bundle has crossed the first site's WAN.
func (d *delivery) crossed(ctx context.Context, share float64) error {
	return harness.Await(ctx, "bytes over the WAN", sampleEvery, func() (bool, string, error) {
		down, _, err := d.t.bed.Wires(1)
		n := down.Bytes - d.stats[0].Down.Bytes
		return float64(n) >= share*float64(d.b.bytes), fmt.Sprintf("%d of %d", n, d.b.bytes), err
	})
}

// seconds until the first and the last of the nodes that have it.
func (d *delivery) seconds() (first, last float64) {
	var times []float64
	for _, at := range d.staged {
		times = append(times, at.Sub(d.began).Seconds())
	}
	return slices.Min(times), slices.Max(times)
}

// usage since the beginning: CPU seconds of all daemons, and the largest resident memory of one.
func (d *delivery) usage() (cpu float64, peak int64) {
	for _, n := range d.t.nodes() {
		if n.Proc() == nil {
			continue
		}
		if u, err := readUsage(n.Proc().PID()); err == nil {
			cpu += (u.cpu - d.cpu[n]).Seconds()
			peak = max(peak, u.peak)
		}
	}
	return cpu, peak
}

// traffic of a site since the beginning, 0 the first.
func (d *delivery) traffic(i int) (testbed.SiteStats, error) {
	s, err := d.t.bed.Stats(i + 1)
	if err != nil {
		return s, err
	}
	return s.Sub(d.stats[i]), nil
}

// account of a site by the seeder, since the beginning.
func (d *delivery) account(ctx context.Context, i int) (w status.WAN, err error) {
	v, err := d.t.groups[i].View(ctx)
	w = v.WAN
	w.Payload -= d.wan[i].Payload
	w.Plain -= d.wan[i].Plain
	w.Needed -= d.wan[i].Needed
	w.Duplicate -= d.wan[i].Duplicate
	return w, err
}

// fetcher is the node of the first site that has taken most over the WAN.
func (d *delivery) fetcher() (n *harness.Node, number int, err error) {
	s, err := d.traffic(0)
	if err != nil {
		return nil, 0, err
	}
	for i, x := range s.Nodes {
		if x.WANDown > s.Nodes[number].WANDown {
			number = i
		}
	}
	return d.t.groups[0].Nodes[number], number + 1, nil
}

// but is every node except one.
func (t *site) but(one *harness.Node) []*harness.Node {
	return slices.DeleteFunc(t.nodes(), func(n *harness.Node) bool { return n == one })
}

// keepLogs copies the programs' logs, for a person who asks why.
func (t *site) keepLogs(dir string) error {
	if dir == "" {
		return nil
	}
	return os.CopyFS(filepath.Join(dir, fmt.Sprintf("%s-%d", t.bed.Name(), time.Now().Unix())), os.DirFS(t.lab.Path("log")))
}
