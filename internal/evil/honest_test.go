package evil_test

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/testbed"
)

func TestMain(m *testing.M) { os.Exit(testbed.Main(m)) }

// The worse error is to call an honest node evil. Eight of them, with one packet in a hundred lost on every port, one
// behind 2 Mbit/s, one killed and started again, one that stands still for ten seconds: nobody bans anybody, and who stood
// still is in use again within seconds.
func TestHonestSiteBansNobody(t *testing.T) {
	if testing.Short() {
		t.Skip("needs minutes: run without -short")
	}
	const nodes, slow, killed, frozen = 8, 8, 3, 5
	bed := testbed.New(t, testbed.Config{Nodes: nodes, WAN: 50 * testbed.Mbit, RTT: 40 * time.Millisecond, LAN: 100 * testbed.Mbit})
	bin := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	s := &siege{T: t, ctx: ctx}
	s.must(harness.Build(ctx, bin))
	lab, err := harness.NewOn(harness.OnBed(bed), bin)
	s.must(err)
	s.lab = lab
	t.Cleanup(func() {
		if t.Failed() {
			lab.Tail(os.Stderr, 15)
		}
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	s.seeder, err = lab.NewSeeder(ctx)
	s.must(err)
	s.site, err = s.seeder.Site(ctx, "site1", "0", 0)
	s.must(err)
	for n := 1; n <= nodes; n++ {
		var flags []string
		if n == slow { // as uplink it would only make the test long
			flags = []string{"--wan", "never"}
		}
		_, err := s.site.Join(ctx, flags...)
		s.must(err)
	}
	s.tree = lab.Path("tree")
	s.must(harness.RandomTree(s.tree, 8<<20, 7))
	dir, sum, err := s.seeder.Build(ctx, "app", "1.0", 1, s.tree)
	s.must(err)
	s.must(s.seeder.Push(ctx, dir))
	for n := 1; n <= nodes; n++ {
		s.must(bed.NodeLoss(1, n, 0.01))
	}
	s.must(bed.NodeRate(1, slow, 2*testbed.Mbit))
	s.must(s.site.Start(ctx))
	s.must(s.seeder.Policy(ctx, "app", "1.0", sum))
	node := func(n int) *harness.Node { return s.site.Nodes[n-1] }
	has := func(n *harness.Node, chunks int) {
		s.must(harness.Await(ctx, n.Name+" has begun", 20*time.Millisecond, func() (bool, string, error) {
			st, err := n.Self(ctx)
			if err != nil {
				return false, err.Error(), nil
			}
			return st.Transfer.ChunksHave >= chunks, fmt.Sprint(st.Transfer.ChunksHave), nil
		}))
	}
	has(node(frozen), 8)
	pid := node(frozen).Proc().PID()
	s.must(syscall.Kill(pid, syscall.SIGSTOP))
	node(killed).Kill()
	has(node(slow), 4)
	s.must(node(killed).Start())
	time.Sleep(10 * time.Second) // what is tested is a node that stands still for so long
	s.must(syscall.Kill(pid, syscall.SIGCONT))
	thawed := time.Now()
	s.must(harness.Await(ctx, "the thawed node among its neighbours", 100*time.Millisecond, func() (bool, string, error) {
		st, err := node(frozen).Self(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		return st.Transfer.Peers >= nodes-1, fmt.Sprint(st.Transfer.Peers), nil
	}))
	back := time.Since(thawed)
	s.installed(s.site.Nodes...)
	v := s.show()
	for _, n := range v.Nodes {
		if len(n.Struck) > 0 || len(n.Noted) > 0 {
			t.Errorf("%s is honest: struck %+v, noted %+v", n.Node.Node, n.Struck, n.Noted)
		}
	}
	for _, n := range s.site.Nodes {
		st, err := n.Self(ctx)
		s.must(err)
		for _, x := range st.Noted {
			t.Errorf("%s has noted %+v", n.Name, x)
		}
		if st.Phase != status.Installed {
			t.Errorf("%s is %s", n.Name, st.Phase)
		}
	}
	t.Logf("back among its neighbours %v after it thawed", back.Round(100*time.Millisecond))
}
