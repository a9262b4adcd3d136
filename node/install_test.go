package node_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/status"
)

// realInstaller builds mesh-install and configures it for one node.
func (s *site) realInstaller(m member, health string) (command []string, config string) {
	s.t.Helper()
	bin := filepath.Join(s.dir, "mesh-install")
	if _, err := os.Stat(bin); err != nil {
		out, err := exec.Command("go", "build", "-o", bin, "../cmd/mesh-install").CombinedOutput()
		if err != nil {
			s.t.Fatalf("build: %v\n%s", err, out)
		}
	}
	cfg := filepath.Join(s.dir, m.name+"-install.yaml")
	text := fmt.Sprintf("root: %s\nstate: %s\ntrust: %s\nmachine: %s\nreserveBytes: 0\nfacts: {os: debian, release: \"12\", arch: amd64}\n",
		s.root(m), filepath.Join(s.dir, m.name+"-installer"), filepath.Join(m.state, "trust.json"), filepath.Join(s.dir, m.name+"-machine"))
	if health != "" {
		text += fmt.Sprintf("health: {command: [%s], timeoutSeconds: 2}\n", health)
	}
	if err := os.WriteFile(cfg, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return []string{bin}, cfg
}

func (s *site) root(m member) string { return filepath.Join(s.dir, m.name+"-root") }

func (s *site) current(m member, file string) string {
	b, err := os.ReadFile(filepath.Join(s.root(m), "app", "current", file))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// The real installer puts a first and a second version in force; an older sequence is shared and refused; a version
// that does not become healthy is taken back and stays taken back.
func TestRealInstaller(t *testing.T) {
	s := newSite(t, 1)
	m := s.members[0]
	healthy := filepath.Join(s.dir, "healthy.sh")
	if err := os.WriteFile(healthy, []byte("#!/bin/sh\n! grep -q broken "+s.root(m)+"/app/current/f\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.installer, s.installConfig = s.realInstaller(m, healthy)
	s.start(0)
	versions := map[string]*chunker.Bundle{
		"1.0": s.bundle("1.0", 1, map[string][]byte{"f": []byte("one\n")}),
		"2.0": s.bundle("2.0", 2, map[string][]byte{"f": []byte("two\n")}),
		"3.0": s.bundle("3.0", 3, map[string][]byte{"f": []byte("broken\n")}),
	}
	for revision, c := range []struct {
		version, reason string
		phase           status.Phase
		current         string
	}{
		{"1.0", "Installed", status.Installed, "one\n"},
		{"2.0", "Installed", status.Installed, "two\n"},
		{"1.0", "SequenceTooOld", status.Deferred, "two\n"},
		{"3.0", "HealthCheck", status.RolledBack, "two\n"},
		{"2.0", "Installed", status.Installed, "two\n"},
	} {
		s.give(0, versions[c.version], uint64(revision+1))
		st := s.await(0, fmt.Sprintf("%s (%s) with %s", c.phase, c.reason, c.version), func(st status.Node) bool {
			return st.Desired != nil && st.Desired.Version == c.version && st.Phase == c.phase && st.Reason == c.reason
		})
		if got := s.current(m, "f"); got != c.current {
			t.Errorf("revision %d: %q in force, want %q (%+v)", revision+1, got, c.current, st)
		}
	}
	st := s.await(0, "a receipt", func(st status.Node) bool { return len(st.Installed) == 1 && st.Installed[0].Receipt != "" })
	s.members[0].stop()
	s.receipts(m, st.Installed[0].Receipt, "nothing -> 1.0 success", "1.0 -> 2.0 success", "2.0 -> 2.0 rolled_back", "2.0 -> 2.0 success")
}

// receipts checks what a node keeps: a chain that verifies with its key, whose newest is the one that it shows.
func (s *site) receipts(m member, newest string, want ...string) {
	s.t.Helper()
	var links []status.Link
	var got []string
	version := func(b *status.ReceiptBundle) string {
		if b == nil {
			return "nothing"
		}
		return b.Version
	}
	dir := filepath.Join(m.state, "receipts")
	for _, e := range must(os.ReadDir(dir)) {
		var r status.Report
		if err := json.Unmarshal(must(os.ReadFile(filepath.Join(dir, e.Name()))), &r); err != nil {
			s.t.Fatal(err)
		}
		l, err := status.NewLink(r)
		if err != nil {
			s.t.Fatal(err)
		}
		c := l.Body.Receipt
		if c.Ended.Before(c.Started) || c.Software == "" || c.Zoneinfo == "" || l.Body.Policy == "" {
			s.t.Errorf("%+v", c)
		}
		links = append(links, l)
		got = append(got, version(c.From)+" -> "+version(c.Now)+" "+l.Body.Outcome)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Error(diff)
	}
	if len(links) > 0 && links[len(links)-1].Hash.String() != newest {
		s.t.Errorf("the node shows %s", newest)
	}
	for _, err := range status.VerifyChain(must(must(m.id.ExtractPublicKey()).Raw()), links, true) {
		s.t.Error(err)
	}
}

// What cannot be written down is not done: with a state.json that cannot be replaced the installer is not started.
func TestInstallWaitsForTheState(t *testing.T) {
	s := newSite(t, 1)
	m := s.members[0]
	s.installer, s.installConfig = s.realInstaller(m, "")
	s.start(0)
	file := filepath.Join(m.state, "state.json")
	s.await(0, "running", func(st status.Node) bool { return st.Node != "" })
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(file, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.give(0, s.bundle("1.0", 1, map[string][]byte{"f": []byte("one\n")}), 1)
	s.await(0, "deferred", func(st status.Node) bool { return st.Phase == status.Deferred && st.Reason == "StateNotSaved" })
	if _, err := os.Stat(filepath.Join(s.root(m), "app")); err == nil {
		t.Error("something was installed")
	}
	if err := os.RemoveAll(file); err != nil { // so that the daemon ends well
		t.Fatal(err)
	}
}
