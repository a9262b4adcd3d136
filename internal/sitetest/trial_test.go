package sitetest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/testbed"
)

// programs are built once for all tests.
var programs struct {
	once sync.Once
	dir  string
	err  error
}

func build() (dir string, err error) {
	p := &programs
	p.once.Do(func() {
		if p.dir, p.err = os.MkdirTemp("", "patchmesh-programs-"); p.err != nil {
			return
		}
		// The result of these tests depends on all of the source: having looked at it here, the go command runs them again
		// when it has changed.
		p.err = filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() && len(e.Name()) > 2 && e.Name()[0] == '.' {
				return fs.SkipDir
			}
			return err
		})
		if p.err == nil {
			p.err = harness.Build(context.Background(), p.dir)
		}
	})
	return p.dir, p.err
}

func TestMain(m *testing.M) {
	code := testbed.Main(m)
	os.RemoveAll(programs.dir)
	os.Exit(code)
}

// full: take the time for the figures as they are published.
func full() bool { return os.Getenv("PATCHMESH_FULL") == "1" }

// nodes is how many nodes a site has where the number is not what is tested.
func nodes() int {
	if full() {
		return 8
	}
	return 4
}

const (
	app      = "app"
	version  = "1.0"
	chunk    = 256 << 10
	patience = 4 * time.Minute // of a whole trial, on a busy machine
)

// link is the WAN for which the project gives its figures.
var link = testbed.Config{WAN: 50 * testbed.Mbit, RTT: 40 * time.Millisecond}

// broken is the WAN of the trials in which something breaks half-way: the short form moves less, and so more slowly,
// or it would be over before anything breaks.
func broken() testbed.Config {
	c := link
	if !full() {
		c.WAN = 20 * testbed.Mbit
	}
	return c
}

// trial is one or more sites of nodes that have joined and do not run yet, and a bundle that a policy wants on all of
// them. Most trials have one site: what is said of "the site" is said of the first.
type trial struct {
	*testing.T
	ctx    context.Context
	bed    *testbed.Bed
	lab    *harness.Lab
	seeder *harness.Seeder
	site   *harness.Site
	sites  []*harness.Site
	wan    testbed.Config
	tree   string
	bytes  int64               // of the bundle: its distinct chunks, the index's included
	start  []testbed.SiteStats // of each site
	began  time.Time
}

func newTrial(t *testing.T, n int, wan testbed.Config) *trial {
	t.Helper()
	if testing.Short() {
		t.Skip("needs minutes: run without -short")
	}
	if !full() {
		t.Parallel() // most of the time passes on the WAN; figures to be published are taken one by one
	}
	wan.Nodes, wan.Sites = n, max(1, wan.Sites)
	bed := testbed.New(t, wan)
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	lab, err := harness.NewOn(harness.OnBed(bed), bin)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	tr := &trial{T: t, ctx: ctx, bed: bed, lab: lab, wan: wan}
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			lab.Tail(os.Stderr, 25)
		}
		if logs := os.Getenv("PATCHMESH_LOGS"); logs != "" {
			if err := os.CopyFS(filepath.Join(logs, t.Name()), os.DirFS(lab.Path("log"))); err != nil {
				t.Error(err)
			}
		}
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	size := int64(16 << 20)
	if full() {
		size = 64 << 20
	}
	tr.tree = lab.Path("tree")
	tr.must(harness.RandomTree(tr.tree, size, 7))
	tr.seeder, err = lab.NewSeeder(ctx)
	tr.must(err)
	dir, sum, err := tr.seeder.Build(ctx, app, version, 1, tr.tree)
	tr.must(err)
	b, err := chunker.Open(dir)
	tr.must(err)
	tr.bytes = b.Catalog().Bytes()
	tr.must(tr.seeder.Push(ctx, dir))
	for s := range wan.Sites {
		site, err := tr.seeder.Site(ctx, fmt.Sprintf("site%d", s+1), "0", n)
		tr.must(err)
		tr.sites = append(tr.sites, site)
	}
	tr.site = tr.sites[0]
	tr.must(tr.seeder.Policy(ctx, app, version, sum))
	return tr
}

func (tr *trial) must(err error) {
	tr.Helper()
	if err != nil {
		tr.Fatal(err)
	}
}

// stats are the bytes of the site since the nodes were started.
func (tr *trial) stats() testbed.SiteStats {
	tr.Helper()
	return tr.statsOf(0)
}

func (tr *trial) statsOf(site int) testbed.SiteStats {
	tr.Helper()
	s, err := tr.bed.Stats(site + 1)
	tr.must(err)
	return s.Sub(tr.start[site])
}

// run starts every node at once.
func (tr *trial) run() {
	tr.Helper()
	for s := range tr.sites {
		stats, err := tr.bed.Stats(s + 1)
		tr.must(err)
		tr.start = append(tr.start, stats)
	}
	tr.began = time.Now()
	for _, s := range tr.sites {
		for _, n := range s.Nodes {
			tr.must(n.Start("--verbose"))
		}
	}
}

// await waits until check says true; state says how far it is.
func (tr *trial) await(what string, check func() (bool, string)) {
	tr.Helper()
	tr.must(harness.Await(tr.ctx, what, 100*time.Millisecond, func() (bool, string, error) {
		done, state := check()
		return done, state, nil
	}))
}

// awaitWAN waits until that share of the bundle has crossed the WAN.
func (tr *trial) awaitWAN(share float64) {
	tr.Helper()
	tr.await("bytes over the WAN", func() (bool, string) {
		n := tr.stats().DownArrived
		return float64(n) >= share*float64(tr.bytes), fmt.Sprintf("%d of %d", n, tr.bytes)
	})
}

// view is the site as the seeder sees it.
func (tr *trial) view() status.Site {
	tr.Helper()
	return tr.viewOf(0)
}

func (tr *trial) viewOf(site int) status.Site {
	tr.Helper()
	v, err := tr.sites[site].View(tr.ctx)
	tr.must(err)
	return v
}

// awaitInstalled waits until these nodes say themselves that they have installed the bundle.
func (tr *trial) awaitInstalled(nodes ...*harness.Node) {
	tr.Helper()
	tr.must(harness.Await(tr.ctx, fmt.Sprintf("%d nodes Installed", len(nodes)), 250*time.Millisecond, func() (bool, string, error) {
		done := 0
		var states []string
		for _, node := range nodes {
			self, err := node.Self(tr.ctx)
			if err != nil {
				states = append(states, fmt.Sprintf("%s: %v", node.Name, err))
				continue
			}
			k, err := harness.Installed(status.Site{Nodes: []status.Seen{{Node: self}}}, app, version)
			if err != nil {
				return false, "", err
			}
			done += k
			states = append(states, fmt.Sprintf("%s: %s %s %d/%d chunks", node.Name, self.Phase, self.Reason, self.Transfer.ChunksHave, self.Transfer.Chunks))
		}
		return done == len(nodes), strings.Join(states, "; "), nil
	}))
}

// figures of a site in a trial that is over.
type figures struct {
	wan  status.WAN
	link testbed.SiteStats
}

// finish waits until every node of the site has installed, compares what they have with what went in, lets them stop,
// checks every store, and logs the figures.
func (tr *trial) finish() figures {
	tr.Helper()
	return tr.finishSite(0)
}

func (tr *trial) finishSite(s int) figures {
	tr.Helper()
	site := tr.sites[s]
	n := len(site.Nodes)
	tr.awaitInstalled(site.Nodes...)
	took := time.Since(tr.began)
	tr.await("every node Installed at the seeder", func() (bool, string) { // reports may be on their way
		k, err := harness.Installed(tr.viewOf(s), app, version)
		return k == n, fmt.Sprintf("%d of %d (%v)", k, n, err)
	})
	f := figures{wan: tr.viewOf(s).WAN, link: tr.statsOf(s)}
	for _, node := range site.Nodes {
		tr.must(harness.SameTree(tr.tree, node.Current(app)))
		tr.must(node.Stop(tr.ctx))
		if _, err := tr.lab.Run(tr.ctx, "meshd", "fsck", "--state", node.State); err != nil {
			tr.Error(err)
		}
	}
	var lan int64
	for _, x := range f.link.Nodes {
		lan += x.LANReceived - x.WANDown
	}
	ratio := func(a int64) float64 { return float64(a) / float64(tr.bytes) }
	tr.Logf("%s, %d nodes, bundle %d bytes: WAN payload %.4f, of it twice %d bytes (%.1f chunks), split leases %d; on the interface %.4f, upwards %.4f; LAN %.3f of N-1 copies; last node after %.1f s, size/rate %.1f s",
		site.Name, n, tr.bytes, ratio(f.wan.Plain), f.wan.Duplicate, float64(f.wan.Duplicate)/chunk, f.wan.LeaseSplit, ratio(f.link.DownArrived), ratio(f.link.UpArrived),
		ratio(lan)/float64(max(1, n-1)), took.Seconds(), float64(tr.bytes)*8/float64(tr.wan.WAN))
	return f
}
