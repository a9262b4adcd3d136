package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// quarantines waits until the list is as long as it should be.
func (l *lab) quarantines(want int, args ...string) (list []api.QuarantineEntry) {
	l.Helper()
	l.must(harness.Await(l.ctx, "the list", 200*time.Millisecond, func() (bool, string, error) {
		out, err := l.seeder.Meshctl(l.ctx, append([]string{"quarantine", "list", "--json"}, args...)...)
		if err != nil {
			return false, "", err
		}
		list = nil
		return json.Unmarshal(out, &list) == nil && len(list) == want, string(out), nil
	}))
	return list
}

// The whole way with real programs: a release that a node keeps was changed on its disk, and it is to go back to it. It
// refuses, holds itself under quarantine and is listed; the next release comes to its neighbour and not to it, until an
// operator's key says so.
func TestReleaseFromQuarantine(t *testing.T) {
	l := newLab(t)
	_, err := l.Lab.Run(l.ctx, "meshctl", "key", "generate", l.Path("stranger"))
	l.must(err)
	for i, version := range []string{"1.0", "2.0"} {
		l.release(version, i+1)
		l.await(0, status.Installed, version)
		l.await(1, status.Installed, version)
	}
	kept, err := filepath.Glob(filepath.Join(filepath.Dir(l.site.Nodes[0].Current("app")), "releases", "1.0-*", "version"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("%q, %v", kept, err)
	}
	l.must(os.WriteFile(kept[0], []byte("9.9"), 0o644))
	_, err = l.order("operator", "rollback", "app", "--site", "site1", "--node", "node-1")
	l.must(err)
	list := l.quarantines(1)
	if q := list[0]; q.By != "node" || q.Node != "node-1" || q.Code != string(problem.ChecksumMismatch) || q.Scope != api.QuarantineNode {
		t.Errorf("%+v", q)
	}
	l.release("3.0", 3)
	l.await(1, status.Installed, "3.0")
	held := l.await(0, status.Scheduled, "2.0")
	if held.Reason != "Quarantined" || held.Quarantined == nil || held.NextAttempt == nil {
		t.Errorf("%+v", held)
	}
	for _, args := range [][]string{{"why", "site1/node-1"}, {"status", "site1/node-1"}, {"quarantine", "show", "site1/node-1"}} {
		if out, _ := l.seeder.Meshctl(l.ctx, args...); !strings.Contains(string(out), "ChecksumMismatch") {
			t.Errorf("%v: %s", args, out)
		} else {
			t.Logf("%v\n%s", args, out)
		}
	}

	// Killed and started again it holds itself as before.
	l.site.Nodes[0].Kill()
	l.must(l.site.Nodes[0].Start())
	l.must(harness.Await(l.ctx, "the same quarantine", 200*time.Millisecond, func() (bool, string, error) {
		s, err := l.site.Seen(l.ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		n := s.Nodes[0]
		return n.At.After(held.At) && n.Seq > held.Seq+500 && n.Quarantined != nil && n.Quarantined.ID == held.Quarantined.ID, string(n.Phase), nil
	}))
	l.inForce(0, "2.0")

	release := []string{"quarantine", "release", "site1/node-1", "--reason", "the disk was replaced"}
	var exit *harness.ExitError
	if out, err := l.seeder.Meshctl(l.ctx, release...); !errors.As(err, &exit) || exit.Status != int(problem.ExitVerification) || !strings.Contains(exit.Stderr, "E2114") || !strings.Contains(exit.Stderr, "--key") {
		t.Errorf("without a key: %s %v", out, err)
	}
	if out, err := l.order("release", release[:3]...); !errors.As(err, &exit) || !strings.Contains(exit.Stderr, "E2102") {
		t.Errorf("with another key: %s %v", out, err)
	}
	l.quarantines(1)
	if out, err := l.order("stranger", append(release[:3:3], "--socket", l.site.Nodes[0].Socket)...); !errors.As(err, &exit) || !strings.Contains(exit.Stderr, "E2102") {
		t.Errorf("a stranger on the node: %s %v", out, err)
	}
	// With the seeder gone, by the socket of its neighbour.
	l.seeder.Kill()
	out, err := l.order("operator", append(release[:3:3], "--socket", l.site.Nodes[1].Socket)...)
	l.must(err)
	if !strings.Contains(out, "it ends quarantine "+held.Quarantined.ID) {
		t.Errorf("%s", out)
	}
	l.must(harness.Await(l.ctx, "3.0 on the node", 200*time.Millisecond, func() (bool, string, error) {
		b, err := os.ReadFile(filepath.Join(l.site.Nodes[0].Current("app"), "version"))
		return string(b) == "3.0", string(b), err
	}))
	l.must(l.seeder.Start(l.ctx))
	l.await(0, status.Installed, "3.0")
	l.quarantines(0)
	if all := l.quarantines(1, "--all"); !strings.HasPrefix(all[0].ReleasedBy, "order ") || all[0].Why != "tills freeze" {
		t.Errorf("%+v", all)
	}
}
