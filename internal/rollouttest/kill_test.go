package rollouttest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/harness"
)

// In the middle of a rollout the daemon of a node whose turn it is, all of such a node, the seeder, and the uplink are killed,
// each while a node asks whether it is well under the new version, and are started again. The rollout goes on to its end; no node does its turn twice, and
// every outcome is there once.
func TestKillsInMidRollout(t *testing.T) {
	s := newSite(t)
	s.meshctl("site", "create", store, "--timezone", "America/New_York")
	s.release("1")
	s.release("2")
	s.nodes(5)
	s.apply(s.text("1", always, together))
	s.settled("version 1 is everywhere", "1", "1", "1", "1", "1")
	s.receipts(1, 1, 1, 1, 1)

	asks, killed := make(chan *harness.Node), make(chan struct{})
	s.clinic.first(func(n *harness.Node, version string) {
		if version != "2" || len(s.clinic.under("2")) > 4 { // of the last nobody is killed
			return
		}
		select {
		case asks <- n:
			select {
			case <-killed:
			case <-s.ctx.Done():
			}
		case <-s.ctx.Done():
		}
	})
	s.apply(s.text("2", always, inTurn))
	for turn, kill := range []func(at *harness.Node) (who string, again func()){
		func(at *harness.Node) (string, func()) { return "its daemon", s.kill(at) },
		func(at *harness.Node) (string, func()) {
			again := s.kill(at)
			s.killExecutor(at)
			return "its daemon, and its executor,", again
		},
		func(*harness.Node) (string, func()) {
			s.seeder.Kill()
			return "the seeder", func() { s.must(s.seeder.Start(s.ctx)) }
		},
		func(*harness.Node) (string, func()) {
			v, err := s.shop.Seen(s.ctx)
			s.must(err)
			n, err := s.shop.Node(v.Uplink)
			s.must(err)
			return "the uplink, " + n.Name, s.kill(n)
		},
	} {
		select {
		case n := <-asks:
			who, again := kill(n)
			killed <- struct{}{}
			again()
			s.Logf("turn %d, of %s: %s was killed", turn+1, n.Name, who)
		case <-s.ctx.Done():
			s.Fatalf("turn %d did not come", turn+1)
		}
	}
	s.settled("version 2 is everywhere", "2", "2", "2", "2", "2")
	for node, got := range s.receipts(2, 2, 2, 2, 2) {
		if !slices.Equal(got, []string{"->1 success", "1->2 success"}) {
			s.Errorf("receipts of %s: %v", node, got)
		}
	}
	if nodes, most := s.clinic.log("2"); len(nodes) != 5 || most != 1 {
		s.Errorf("%v had their turn, %d at a time, want all, 1 at a time", nodes, most)
	}
	c := s.client()
	s.await("the rollout is done", func() (bool, string) {
		r, err := c.Rollout(s.ctx, name)
		return err == nil && r.State == "Done" && r.Failed == 0 && r.Settled == 5, fmt.Sprint(r.State, r.Failed, r.Settled)
	})
	s.once()
}

// kill kills a node's daemon. An executor that is at work goes on.
func (s *site) kill(n *harness.Node) (again func()) {
	n.Kill()
	return func() {
		s.must(n.Start())
		s.must(n.Ready(s.ctx))
	}
}

// killExecutor kills the executor of a node: every process that was started with its configuration.
func (s *site) killExecutor(n *harness.Node) {
	s.Helper()
	killed := 0
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	s.must(err)
	for _, file := range list {
		b, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(b), n.InstallConfig()) { // it has ended meanwhile
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		s.must(err)
		if syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed++
		}
	}
	if killed == 0 {
		s.Fatal("no executor was at work")
	}
}

// once: every report is there, and none is there twice, however often it was sent.
func (s *site) once() {
	s.Helper()
	page, err := s.client().Reports(s.ctx, api.ReportQuery{Limit: 1000})
	s.must(err)
	seqs := map[string][]uint64{}
	for _, r := range page.Reports {
		seqs[r.Body.Node] = append(seqs[r.Body.Node], r.Body.Seq)
	}
	for node, list := range seqs {
		slices.Sort(list)
		for i, seq := range list {
			if seq != uint64(i+1) {
				s.Errorf("reports of %s: %v, want each once", node, list)
				break
			}
		}
		s.Logf("%s: %d reports, each once", node, len(list))
	}
}
