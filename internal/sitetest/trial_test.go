package sitetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/testbed"
)

const (
	app      = "app"
	version  = "1.0"
	chunk    = 256 << 10
	patience = 4 * time.Minute // of a whole trial, on a busy machine
)

// setup is what stands there before a trial begins. A zero means the default.
type setup struct {
	wan     testbed.Config       // its link; default link
	nodes   int                  // of each site; default 8, in the short form 4
	sites   int                  // default 1
	size    int64                // of the tree; default 64 MiB, in the short form 16
	flags   func(n int) []string // of "meshctl site token" for node n, counted from 1
	standIn bool                 // the data centre has a second host for the seeder
	idle    bool                 // no policy wants the bundle yet
}

// sitecase is one trial: what stands there, and what is done to it.
type sitecase struct {
	name  string
	stand bool // for the others of its theme, where there is no time for all
	setup
	play func(*trial)
}

// cases runs the cases of a theme, each a subtest, beside each other and beside those of other themes.
func cases(t *testing.T, all ...sitecase) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs minutes: run without -short")
	}
	t.Parallel()
	for _, c := range all {
		if full() || c.stand {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.play(newTrial(t, c.setup))
			})
		}
	}
}

// inTurn runs cases whose times are figures: in the full form one after the other, and nothing beside them.
func inTurn(t *testing.T, all ...sitecase) {
	t.Helper()
	if !full() {
		cases(t, all...)
		return
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) { c.play(newTrial(t, c.setup)) })
	}
}

// link is the WAN for which the project gives its figures.
var link = testbed.Config{WAN: 50 * testbed.Mbit, RTT: 40 * time.Millisecond}

// slower is the WAN of cases in which something breaks half-way: the short form moves less, and so more slowly, or it
// would be over before anything breaks.
func slower() testbed.Config {
	c := link
	if !full() {
		c.WAN = 20 * testbed.Mbit
	}
	return c
}

// either is a number for the full form and one for the short form.
func either[T any](inFull, inShort T) T {
	if full() {
		return inFull
	}
	return inShort
}

// trial is one or more sites of nodes that have joined and do not run yet, and a bundle at the seeder. Most trials have
// one site: what is said of "the site" is said of the first.
type trial struct {
	*testing.T
	ctx    context.Context
	bed    *testbed.Bed
	lab    *harness.Lab
	seeder *harness.Seeder
	site   *harness.Site
	sites  []*harness.Site
	wan    testbed.Config
	disk   string // a directory for disks of the bed: it outlives the bed
	tree   string
	bundle string // directory of the bundle
	sum    manifest.Digest
	bytes  int64 // of the bundle: its distinct chunks, the index's included

	start []testbed.SiteStats // of each site, when the nodes were started
	wired int64               // bytes on the first site's wire until then
	began time.Time
}

func newTrial(t *testing.T, s setup) *trial {
	t.Helper()
	tr := &trial{T: t, wan: s.wan, disk: t.TempDir()}
	if tr.wan.WAN == 0 {
		tr.wan = link
	}
	tr.wan.Nodes, tr.wan.Sites = cmp.Or(s.nodes, either(8, 4)), max(1, s.sites)
	tr.bed = testbed.New(t, tr.wan)
	bin, err := build()
	tr.must(err)
	tr.lab, err = harness.NewOn(harness.OnBed(tr.bed), bin)
	tr.must(err)
	var cancel context.CancelFunc
	tr.ctx, cancel = context.WithTimeout(t.Context(), patience)
	t.Cleanup(func() {
		cancel()
		tr.close()
	})

	tr.tree = tr.lab.Path("tree")
	tr.must(harness.RandomTree(tr.tree, cmp.Or(s.size, either[int64](64, 16)<<20), 7))
	var hosts []string
	if s.standIn {
		hosts = append(hosts, harness.StandIn)
	}
	tr.seeder, err = tr.lab.NewSeeder(tr.ctx, hosts...)
	tr.must(err)
	tr.bundle, tr.sum, err = tr.seeder.Build(tr.ctx, app, version, 1, tr.tree)
	tr.must(err)
	b, err := chunker.Open(tr.bundle)
	tr.must(err)
	tr.bytes = b.Catalog().Bytes()
	tr.must(tr.seeder.Push(tr.ctx, tr.bundle))
	for i := range tr.wan.Sites {
		site, err := tr.seeder.Site(tr.ctx, fmt.Sprintf("site%d", i+1), "0", 0)
		tr.must(err)
		for n := range tr.wan.Nodes {
			var flags []string
			if s.flags != nil {
				flags = s.flags(n + 1)
			}
			_, err := site.Join(tr.ctx, flags...)
			tr.must(err)
		}
		tr.sites = append(tr.sites, site)
	}
	tr.site = tr.sites[0]
	if !s.idle {
		tr.post()
	}
	return tr
}

// close ends the trial's programs, and shows what they wrote if it failed.
func (tr *trial) close() {
	if tr.Failed() {
		tr.lab.Tail(os.Stderr, 25)
	}
	if logs := os.Getenv("PATCHMESH_LOGS"); logs != "" {
		if err := os.CopyFS(filepath.Join(logs, tr.Name()), os.DirFS(tr.lab.Path("log"))); err != nil {
			tr.Error(err)
		}
	}
	if err := tr.lab.Close(); err != nil {
		tr.Error(err)
	}
}

// post applies the policy that wants the bundle on every node.
func (tr *trial) post() {
	tr.Helper()
	tr.must(tr.seeder.Policy(tr.ctx, app, version, tr.sum))
}

func (tr *trial) must(err error) {
	tr.Helper()
	if err != nil {
		tr.Fatal(err)
	}
}

// run starts every node at once.
func (tr *trial) run() {
	tr.Helper()
	tr.begin()
	for _, s := range tr.sites {
		tr.launch(s.Nodes...)
	}
}

// begin is where bytes and time are counted from.
func (tr *trial) begin() {
	tr.Helper()
	tr.start = nil
	for s := range tr.sites {
		stats, err := tr.bed.Stats(s + 1)
		tr.must(err)
		tr.start = append(tr.start, stats)
	}
	down, _, err := tr.bed.Wires(1)
	tr.must(err)
	tr.wired, tr.began = down.Bytes, time.Now()
}

// launch starts some nodes.
func (tr *trial) launch(nodes ...*harness.Node) {
	tr.Helper()
	for _, n := range nodes {
		tr.must(n.Start("--verbose"))
	}
}

// but is every node of the site but some.
func (tr *trial) but(some ...*harness.Node) []*harness.Node {
	return slices.DeleteFunc(slices.Clone(tr.site.Nodes), func(n *harness.Node) bool { return slices.Contains(some, n) })
}

// host is the bed's name of node n of the site, counted from 1.
func (tr *trial) host(n int) string { return testbed.Node(1, n) }

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

// carried is how many bytes the WAN has carried to the site since the nodes were started.
func (tr *trial) carried() int64 {
	tr.Helper()
	down, _, err := tr.bed.Wires(1)
	tr.must(err)
	return down.Bytes - tr.wired
}

// view is the site as the seeder sees it.
func (tr *trial) view() status.Site {
	tr.Helper()
	return tr.viewOf(0)
}

func (tr *trial) viewOf(site int) status.Site {
	tr.Helper()
	v, err := tr.sites[site].Seen(tr.ctx)
	tr.must(err)
	return v
}

// await waits until check says true; state says how far it is.
func (tr *trial) await(what string, check func() (bool, string)) {
	tr.Helper()
	tr.must(harness.Await(tr.ctx, what, 100*time.Millisecond, func() (bool, string, error) {
		done, state := check()
		return done, state, nil
	}))
}

// awaitWAN waits until that share of the bundle has crossed the WAN, and fails a trial in which all of it has: what
// breaks after that shows nothing.
func (tr *trial) awaitWAN(share float64) {
	tr.Helper()
	tr.await("bytes over the WAN", func() (bool, string) {
		n := tr.carried()
		return float64(n) >= share*float64(tr.bytes), fmt.Sprintf("%d of %d", n, tr.bytes)
	})
	if n := tr.carried(); n >= tr.bytes {
		tr.Fatalf("what was to break at %.0f %% would break after %d of %d bytes", 100*share, n, tr.bytes)
	}
}

// uplink waits for an uplink other than some and returns it and its number, counted from 1.
func (tr *trial) uplink(but ...*harness.Node) (node *harness.Node, number int) {
	tr.Helper()
	tr.await("an uplink", func() (bool, string) {
		name := tr.view().Uplink
		for i, n := range tr.site.Nodes {
			if n.Name == name && !slices.Contains(but, n) {
				node, number = n, i+1
			}
		}
		return node != nil, name
	})
	return node, number
}

// gap waits until the whole bundle has crossed the WAN and returns the longest time in between in which nothing but
// small talk did.
func (tr *trial) gap() (longest time.Duration) {
	tr.Helper()
	const talk = 64 << 10
	last, at := tr.carried(), time.Now()
	tr.await("the bundle over the WAN", func() (bool, string) {
		n := tr.carried()
		if n-last > talk {
			longest = max(longest, time.Since(at))
			last, at = n, time.Now()
		}
		return n >= tr.bytes, fmt.Sprintf("%d of %d bytes", n, tr.bytes)
	})
	return longest
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
				if err := node.Ended(); err != nil {
					return false, "", err
				}
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
	wan  status.WAN        // the seeder's account
	link testbed.SiteStats // what the interfaces counted
}

// finish waits until every node of the site has installed and the seeder knows it, checks what they have, and logs the
// figures.
func (tr *trial) finish() figures {
	tr.Helper()
	return tr.finishSite(0)
}

func (tr *trial) finishSite(s int) figures {
	tr.Helper()
	site := tr.sites[s]
	tr.awaitInstalled(site.Nodes...)
	took := time.Since(tr.began)
	tr.await("every node Installed at the seeder", func() (bool, string) { // reports may be on their way
		k, err := harness.Installed(tr.viewOf(s), app, version)
		return k == len(site.Nodes), fmt.Sprintf("%d of %d (%v)", k, len(site.Nodes), err)
	})
	f := figures{wan: tr.viewOf(s).WAN, link: tr.statsOf(s)}
	tr.good(site.Nodes...)
	tr.logFigures(s, f, took)
	return f
}

// good compares what nodes have installed with what went in, lets them stop, and checks every chunk of their stores.
func (tr *trial) good(nodes ...*harness.Node) {
	tr.Helper()
	var g errgroup.Group
	for _, n := range nodes {
		g.Go(func() error {
			if err := errors.Join(harness.SameTree(tr.tree, n.Current(app)), n.Stop(tr.ctx)); err != nil {
				return err
			}
			_, err := tr.lab.Run(tr.ctx, "meshd", "fsck", "--state", n.State)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		tr.Error(err)
	}
}

func (tr *trial) logFigures(s int, f figures, took time.Duration) {
	tr.Helper()
	ratio := func(a int64) float64 { return float64(a) / float64(tr.bytes) }
	n := len(tr.sites[s].Nodes)
	tr.Logf("%s, %d nodes, %.1f MiB: WAN payload %.4f, twice %d B = %.1f chunks, split leases %d; interface %.4f, upwards %.4f; LAN %.3f of N-1 copies; last node after %.1f s, size/rate %.1f s",
		tr.sites[s].Name, n, float64(tr.bytes)/(1<<20), ratio(f.wan.Payload), f.twice(), float64(f.twice())/chunk, f.wan.LeaseSplit,
		ratio(f.link.DownArrived), ratio(f.link.UpArrived), ratio(lan(f.link))/float64(max(1, n-1)), took.Seconds(), float64(tr.bytes)*8/float64(tr.wan.WAN))
}

// lan is what the nodes of a site received of each other.
func lan(s testbed.SiteStats) (n int64) {
	for _, x := range s.Nodes {
		n += x.LANReceived - x.WANDown
	}
	return n
}
