package node_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/status"
)

// manager does what mesh-install.path does: it runs the executor when the request file has changed and is there.
type manager struct {
	t        *testing.T
	request  string
	argv     []string
	mu       sync.Mutex // guards runs
	runs     int
	stop     context.CancelFunc
	finished chan struct{}
}

func (s *site) serviceManager(m member, argv []string, config string) *manager {
	ctx, cancel := context.WithCancel(context.Background())
	g := &manager{t: s.t, request: filepath.Join(m.state, "request.json"), stop: cancel, finished: make(chan struct{})}
	g.argv = append(argv, "apply", "--config", config, "--json", "--request", g.request)
	go func() {
		defer close(g.finished)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		var last os.FileInfo
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if fi, err := os.Lstat(g.request); err == nil && (last == nil || !os.SameFile(last, fi) || !last.ModTime().Equal(fi.ModTime())) { // an inode is used again
				last = fi
				g.run()
			}
		}
	}()
	s.t.Cleanup(g.end)
	return g
}

func (g *manager) run() {
	g.mu.Lock()
	g.runs++
	g.mu.Unlock()
	exec.Command(g.argv[0], g.argv[1:]...).Run() // how it ends, its answer says
}

func (g *manager) end() { g.stop(); <-g.finished }

func (g *manager) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.runs
}

// Without the right to start it, the daemon has the executor work by a file, hears its answer, and hears of what was
// done without it: a rollback by hand holds, a retry by hand goes forward again.
func TestHandoff(t *testing.T) {
	s := newSite(t, 1)
	m := s.members[0]
	argv, config := s.realInstaller(m, "")
	s.handoff = filepath.Join(s.dir, m.name+"-installer")
	g := s.serviceManager(m, argv, config)
	s.start(0)
	one := s.bundle("1.0", 1, map[string][]byte{"f": []byte("one\n")})
	two := s.bundle("2.0", 2, map[string][]byte{"f": []byte("two\n")})
	in := func(phase status.Phase, reason, version string) {
		t.Helper()
		s.await(0, reason+" "+version, func(st status.Node) bool {
			return st.Phase == phase && st.Reason == reason && st.Desired != nil && st.Desired.Version == version
		})
	}
	s.give(0, one, 1)
	in(status.Installed, install.ReasonInstalled, "1.0")
	s.give(0, two, 2)
	in(status.Installed, install.ReasonInstalled, "2.0")
	if got := s.current(m, "f"); got != "two\n" || g.count() != 2 {
		t.Errorf("%q in force after %d runs", got, g.count())
	}
	byHand := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(argv[0], append(args, "--config", config)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	byHand("rollback", "app")
	in(status.RolledBack, install.ReasonOperator, "2.0")
	byHand("retry", "app")
	in(status.Installed, install.ReasonInstalled, "2.0")
	if got := s.current(m, "f"); got != "two\n" || g.count() != 3 {
		t.Errorf("%q in force after %d runs", got, g.count())
	}
	m.stopped(s)
	if _, err := os.Stat(g.request); !os.IsNotExist(err) {
		t.Errorf("the request is still there: %v", err)
	}
}

// stopped ends a member's daemon.
func (m member) stopped(s *site) {
	for i := range s.members {
		if s.members[i].name == m.name {
			s.members[i].stop()
		}
	}
}

// A daemon that was stopped while the executor was at work takes its answer when it is back, and does not ask twice; one
// whose request nobody took up goes on waiting for the same.
func TestHandoffOverARestart(t *testing.T) {
	s := newSite(t, 1)
	m := s.members[0]
	argv, config := s.realInstaller(m, "")
	s.handoff = filepath.Join(s.dir, m.name+"-installer")
	s.start(0)
	s.give(0, s.bundle("1.0", 1, map[string][]byte{"f": []byte("one\n")}), 1)
	request := filepath.Join(m.state, "request.json")
	asked := func() (r install.Request) {
		t.Helper()
		b, err := os.ReadFile(request)
		if err != nil || json.Unmarshal(b, &r) != nil {
			t.Fatal(err)
		}
		return r
	}
	waits := func() {
		t.Helper()
		s.await(0, "asking", func(st status.Node) bool {
			_, err := os.Stat(request)
			return st.Phase == status.Installing && err == nil
		})
	}
	waits()
	first := asked()
	m.stopped(s)
	s.start(0)
	waits()
	if again := asked(); first.ID == "" || again.ID != first.ID {
		t.Errorf("asked for %q and then for %q", first.ID, again.ID)
	}
	m.stopped(s)
	if out, err := exec.Command(argv[0], "apply", "--config", config, "--request", request).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.start(0) // nobody runs the executor any more
	s.await(0, "installed", func(st status.Node) bool { return st.Phase == status.Installed && st.Reason == install.ReasonInstalled })
	m.stopped(s)
	rs, err := install.ReadResults(s.handoff)
	if err != nil || len(rs.Results) != 1 || rs.Results[0].ID != first.ID {
		t.Errorf("%+v, %v", rs, err)
	}
}
