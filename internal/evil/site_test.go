package evil_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/internal/evil"
	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/status"
)

// Real programs, each a process, on the loopback; the evil ones are in the test's own process, with the keys of nodes
// that have joined and do not run.

type siege struct {
	*testing.T
	ctx    context.Context
	lab    *harness.Lab
	seeder *harness.Seeder
	site   *harness.Site
	tree   string
	bytes  int64
	bundle *chunker.Bundle
}

func lay(t *testing.T, nodes int, size int64) *siege {
	t.Helper()
	if testing.Short() {
		t.Skip("needs minutes: run without -short")
	}
	bin := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	s := &siege{T: t, ctx: ctx}
	s.must(harness.Build(ctx, bin))
	var err error
	s.lab, err = harness.New(bin)
	s.must(err)
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			s.lab.Tail(os.Stderr, 15)
		}
		if err := s.lab.Close(); err != nil {
			t.Error(err)
		}
	})
	s.seeder, err = s.lab.NewSeeder(ctx)
	s.must(err)
	s.site, err = s.seeder.Site(ctx, "site1", "100Mbit", nodes)
	s.must(err)
	s.tree = s.lab.Path("tree")
	s.must(harness.RandomTree(s.tree, size, 7))
	dir, sum, err := s.seeder.Build(ctx, "app", "1.0", 1, s.tree)
	s.must(err)
	s.bundle, err = chunker.Open(dir)
	s.must(err)
	s.bytes = s.bundle.Catalog().Bytes()
	s.must(s.seeder.Push(ctx, dir))
	s.must(s.seeder.Policy(ctx, "app", "1.0", sum))
	return s
}

func (s *siege) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// loose lets the node's stolen identity loose on others, with roles.
func (s *siege) loose(n *harness.Node, victims []*harness.Node, roles ...evil.Role) *evil.Peer {
	s.Helper()
	cfg, err := evil.Steal(n.State)
	s.must(err)
	cfg.Roles = roles
	cfg.Knows(s.bundle)
	for _, v := range victims {
		has, err := evil.Steal(v.State)
		s.must(err)
		id, err := peer.IDFromPrivateKey(has.Key)
		s.must(err)
		addr, err := netip.ParseAddrPort(v.Addr())
		s.must(err)
		cfg.Targets = append(cfg.Targets, evil.Target{ID: id, Addr: addr})
	}
	p, err := evil.New(cfg)
	s.must(err)
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	s.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.Error(err)
		}
	})
	return p
}

// installed waits until the nodes have the version in force, and checks every file and every chunk.
func (s *siege) installed(nodes ...*harness.Node) {
	s.Helper()
	for _, n := range nodes {
		s.must(harness.Await(s.ctx, n.Name+" complete", 200*time.Millisecond, func() (bool, string, error) {
			st, err := n.Self(s.ctx)
			if err != nil {
				return false, err.Error(), nil
			}
			return st.Phase == status.Installed, fmt.Sprintf("%s %s, %d of %d chunks, noted %d", st.Phase, st.Reason, st.Transfer.ChunksHave, st.Transfer.Chunks, len(st.Noted)), nil
		}))
		s.must(harness.SameTree(s.tree, n.Current("app")))
	}
}

// clean ends the nodes and checks every byte of their stores.
func (s *siege) clean(nodes ...*harness.Node) {
	s.Helper()
	for _, n := range nodes {
		n.Kill() // a node that alone holds what others want would stay for a while
		st, err := store.Open(filepath.Join(n.State, "chunks"), store.Options{})
		s.must(err)
		r, err := st.Fsck(s.ctx, false, nil)
		st.Close()
		if err != nil || !r.Clean() {
			s.Errorf("%s: fsck %+v %v", n.Name, r, err)
		}
	}
}

// show prints what an operator sees.
func (s *siege) show() status.Site {
	s.Helper()
	out, err := s.seeder.Meshctl(s.ctx, "status", "site1")
	s.Logf("meshctl status site1: %v\n%s", err, out)
	v, err := s.site.View(s.ctx)
	s.must(err)
	return v
}

// Nine of ten nodes are evil, each in other ways: the tenth completes, and the centre sees who is called what.
func TestNineOfTen(t *testing.T) {
	t.Parallel()
	s := lay(t, 10, 16<<20)
	honest := s.site.Nodes[0]
	s.must(honest.Start())
	s.must(honest.Ready(s.ctx))
	mixed := [][]evil.Role{
		{evil.Poison}, {evil.Stall, evil.FalseUp}, {evil.Drip}, {evil.Refuse, evil.Flap}, {evil.Bomb, evil.Pings}, {evil.Twice, evil.HaveAdds},
		{evil.Beyond, evil.Stall}, {evil.Unasked, evil.Statuses}, {evil.Long, evil.Forgery},
	}
	for i, roles := range mixed {
		s.loose(s.site.Nodes[i+1], []*harness.Node{honest}, roles...)
	}
	s.installed(honest)
	v := s.show()
	called := 0
	for _, n := range v.Nodes {
		if n.Node.Node != honest.Name && n.Accusers() > 0 {
			called++
		}
		if n.Node.Node == honest.Name && n.Accusers() > 0 {
			t.Errorf("the honest node is accused: %+v", n.Struck)
		}
	}
	if called < 6 {
		t.Errorf("only %d of 9 are called evil at the centre", called)
	}
	t.Logf("WAN: %d bytes of payload for a bundle of %d", v.WAN.Payload, s.bytes)
	s.clean(honest)
}

// All neighbours of the one honest node are evil, and those that can take leases take them all and share nothing: it
// completes through a lease of its own, and what that costs is known.
func TestAllEvil(t *testing.T) {
	t.Parallel()
	evils := 9
	if os.Getenv("PATCHMESH_FULL") != "1" {
		evils = 2 // with the honest one as many as there are leases
	}
	s := lay(t, 1+evils, 8<<20)
	honest := s.site.Nodes[0]
	var all []*evil.Peer
	for i := range evils {
		roles := []evil.Role{evil.Withhold}
		switch i % 3 {
		case 1:
			roles = []evil.Role{evil.Greedy}
		case 2:
			roles = []evil.Role{evil.Withhold, evil.Stall}
		}
		all = append(all, s.loose(s.site.Nodes[i+1], []*harness.Node{honest}, roles...))
	}
	s.must(harness.Await(s.ctx, "the leases taken", 100*time.Millisecond, func() (bool, string, error) {
		n := int64(0)
		for _, p := range all {
			n += p.Counts().Leases.Load()
		}
		return n > 0, fmt.Sprint(n), nil
	}))
	s.must(honest.Start())
	s.must(honest.Ready(s.ctx))
	began := time.Now()
	s.installed(honest)
	v := s.show()
	st, err := honest.Self(s.ctx)
	s.must(err)
	var greedy, leases int64
	for _, p := range all {
		greedy += p.Counts().WAN.Load()
		leases += p.Counts().Leases.Load()
	}
	if most := int64(evils) * (3*s.bytes + 64<<20); greedy > most+most/20 {
		t.Errorf("%d evil uplinks took %d bytes, at most %d are theirs in a day", evils, greedy, most)
	}
	t.Logf("complete after %v; of %d bytes the honest node took %d over the WAN, the evil ones %d with %d leases; %d split leases", time.Since(began).Round(time.Second),
		s.bytes, st.Transfer.FromWAN, greedy, leases, v.WAN.LeaseSplit)
	s.clean(honest)
}
