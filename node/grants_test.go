package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// grant lets these nodes start a bundle within the hour, the first of them as the site's canary.
func (s *site) grant(b *chunker.Bundle, serial, revision uint64, failures int, nodes ...string) trust.Signed {
	s.t.Helper()
	return s.grantWith(b, serial, revision, failures, nil, nodes...)
}

func (s *site) grantWith(b *chunker.Bundle, serial, revision uint64, failures int, change func(*grant.Grant), nodes ...string) trust.Signed {
	s.t.Helper()
	opens := s.now.Add(-time.Minute)
	g := &grant.Grant{Schema: grant.Schema, Serial: serial, Created: grant.Timestamp(s.now), Site: "s1", Policy: "all", Revision: revision, Bundle: "app",
		Version: b.Manifest.Version, Checksum: b.Digest, Opens: grant.Timestamp(opens), Expires: grant.Timestamp(opens.Add(time.Hour)),
		First: 1, MaxUnavailable: 1, MaxFailures: failures, Deadline: 600}
	for i, n := range nodes {
		g.Starts = append(g.Starts, grant.Start{Node: n, Batch: i, After: g.Opens})
	}
	if change != nil {
		change(g)
	}
	return s.sign(s.rosterKey, must(g.Encode()))
}

// tellGrant has a neighbour, which had it before the WAN was cut, hand a node a grant.
func tellGrant(p *puppet, se *xfer.Session, serial uint64, d trust.Signed) {
	p.t.Helper()
	tellDoc(p, se, wire.DocGrant, "all", serial, d)
}

// A site without a WAN, with the real executor, patches by a grant that it was given before: its canary, and then one
// node after the other in the grant's order. When more have failed than the grant allows, the site stops by itself; a
// newer grant lets it go on.
func TestSitePatchesInTurn(t *testing.T) {
	t.Parallel()
	s := newSite(t, 5) // the last one hands the grants in and is no part of them
	s.schedule = "{rolloutStrategy: {type: RollingUpdate, batchSize: 1}}"
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(b)
	}
	for i := range 4 {
		m := s.members[i]
		healthy := filepath.Join(s.dir, m.name+"-healthy.sh")
		text := fmt.Sprintf("#!/bin/sh\ncd %s\nexec 9>at-it\nflock -n 9 || echo %s >> overlaps\necho %s >> order\nsleep 0.3\n! grep -q broken %s/app/current/f\n", s.dir, m.name, m.name, s.root(m))
		if err := os.WriteFile(healthy, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		s.installer, s.installConfig = s.realInstaller(m, healthy)
		f := must(os.OpenFile(s.installConfig, os.O_APPEND|os.O_WRONLY, 0))
		fmt.Fprintf(f, "site: s1\nnode: %s\n", m.name)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		s.start(i)
	}
	one := s.bundle("1.0", 1, map[string][]byte{"f": []byte("one\n")})
	s.give(0, one, 1)
	for i := range 4 {
		s.await(i, "waiting for a grant", func(st status.Node) bool {
			return st.Phase == status.Scheduled && st.Reason == grant.LeaseMissing && st.NextAttempt != nil && st.Transfer.Peers == 3
		})
	}
	if got := read("order"); got != "" {
		t.Fatalf("without a grant these were at it: %q", got)
	}

	p := s.puppet(s.members[4].key, "n04")
	se := p.dial(s.members[3].id, s.members[3].addr)
	tellGrant(p, se, 1, s.grant(one, 1, 1, 0, "n02", "n00", "n03", "n01"))
	for i := range 4 {
		st := s.await(i, "installed", func(st status.Node) bool { return st.Phase == status.Installed })
		if st.Grant != 1 {
			t.Errorf("%s: grant %d", st.Node, st.Grant)
		}
	}
	if got := strings.Join(strings.Fields(read("order")), " "); got != "n02 n00 n03 n01" || read("overlaps") != "" {
		t.Fatalf("they went in the order %q, at the same time %q", got, read("overlaps"))
	}

	// The next one is broken, and no failure is allowed.
	two := s.bundle("2.0", 2, map[string][]byte{"f": []byte("broken\n")})
	s.give(0, two, 2)
	s.await(3, "waiting for a newer grant", func(st status.Node) bool {
		return desired(st) == 2 && st.Phase == status.Scheduled && st.Reason == grant.LeaseMissing
	})
	tellGrant(p, se, 2, s.grant(two, 2, 2, 0, "n00", "n01", "n02", "n03"))
	s.await(0, "rolled back", func(st status.Node) bool { return st.Phase == status.RolledBack })
	stopped := func(st status.Node) bool {
		return desired(st) == 2 && st.Phase == status.Scheduled && st.Reason == grant.Paused && strings.HasSuffix(st.Detail, "used up by n00") && st.NextAttempt != nil
	}
	for i := 1; i < 4; i++ {
		s.await(i, "stopped", stopped)
	}
	s.members[1].stop() // what a node holds and what it has heard is there again after a start
	s.installer, s.installConfig = s.realInstaller(s.members[1], filepath.Join(s.dir, "n01-healthy.sh"))
	s.start(1)
	s.await(1, "stopped still", stopped)
	for i := range 4 {
		if got := s.current(s.members[i], "f"); got != "one\n" {
			t.Errorf("n%02d has %q in force", i, got)
		}
	}

	// Control: with a budget of one more the next goes on, and fails too.
	tellGrant(p, se, 3, s.grant(two, 3, 2, 1, "n00", "n01", "n02", "n03"))
	s.await(1, "rolled back", func(st status.Node) bool { return st.Phase == status.RolledBack && desired(st) == 2 })
	for i := 2; i < 4; i++ {
		s.await(i, "stopped again", func(st status.Node) bool {
			return st.Reason == grant.Paused && strings.HasSuffix(st.Detail, "used up by n00, n01") && st.Grant == 3
		})
	}
	if read("overlaps") != "" {
		t.Errorf("at the same time: %q", read("overlaps"))
	}
}

// Two policies that contradict each other leave a node with what it has, and it says so; the one with the higher priority
// wins. One that is suspended starts nothing.
func TestConflictAndSuspension(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.installer, s.installConfig = s.realInstaller(s.members[0], "")
	s.start(0)
	one, two, three := s.bundle("1.0", 1, map[string][]byte{"f": []byte("one\n")}), s.bundle("2.0", 2, map[string][]byte{"f": []byte("two\n")}), s.bundle("3.0", 3, map[string][]byte{"f": []byte("three\n")})
	in := func(b *chunker.Bundle, phase status.Phase, reason string) status.Node {
		t.Helper()
		return s.await(0, fmt.Sprintf("%s (%s)", phase, reason), func(st status.Node) bool {
			return st.Phase == phase && st.Reason == reason && len(st.Installed) == 1 && st.Installed[0].Checksum == b.Digest
		})
	}
	s.hand(0, one, s.policyOf("all", one, 1, ""))
	in(one, status.Installed, "Installed")
	s.hand(0, two, s.policyOf("tills", two, 1, ""))
	if st := in(one, status.Installed, "Conflict"); st.Code != "E1112" || st.Desired.Policy != "all" || !strings.Contains(fmt.Sprint(st.Alarms), "all, tills") {
		t.Errorf("%+v", st)
	}
	s.hand(0, two, s.policyOf("tills", two, 2, "  priority: 1\n"))
	in(two, status.Installed, "Installed")
	s.hand(0, three, s.policyOf("tills", three, 3, "  priority: 1\n  suspend: true\n"))
	if st := in(two, status.Scheduled, grant.Paused); st.Detail != "suspended by the policy" || st.NextAttempt == nil || st.Code != "" {
		t.Errorf("%+v", st)
	}
	s.hand(0, three, s.policyOf("all", three, 2, "  priority: 1\n")) // one of two goes on, the other is suspended: a conflict as well
	if st := in(two, status.Scheduled, "Conflict"); st.Code != "E1112" || st.NextAttempt == nil {
		t.Errorf("%+v", st)
	}
	s.hand(0, three, s.policyOf("all", three, 3, ""))
	s.hand(0, three, s.policyOf("tills", three, 4, "  priority: 1\n"))
	in(three, status.Installed, "Installed")
}
