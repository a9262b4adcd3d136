package seeder

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// Several neighbours, of late, of what is no weakness: each condition left out is no accusation.
func TestAccused(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	site := func(accusers int, kind status.StrikeKind, ago time.Duration) []status.Seen {
		out := []status.Seen{{Node: status.Node{Site: "s", Node: "evil"}}}
		for i := range 5 {
			n := status.Node{Site: "s", Node: fmt.Sprint("n", i)}
			if i < accusers {
				n.Noted = []status.Strike{{Node: "evil", Kind: kind, Count: 2, First: now.Add(-ago), Last: now.Add(-ago)}}
			}
			out = append(out, status.Seen{Node: n})
		}
		return out
	}
	for _, c := range []struct {
		name  string
		nodes []status.Seen
		want  int
	}{
		{"three saw wrong bytes", site(3, status.StrikeWrongBytes, time.Minute), 1},
		{"two did", site(2, status.StrikeWrongBytes, time.Minute), 0},
		{"long ago", site(3, status.StrikeWrongBytes, 2*time.Hour), 0},
		{"it is slow", site(5, status.StrikeDrip, time.Minute), 0},
		{"a clock that is ahead", site(3, status.StrikeLie, -time.Hour), 1},
	} {
		got := accused(c.nodes, now)
		if len(got) != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
		if len(got) == 1 && (got[0].Node != "evil" || got[0].Since.After(now) || !strings.Contains(got[0].Evidence, "3 neighbours")) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// A verification failure puts a node under quarantine, once; a person's word or a bundle that is whole again ends it.
func TestQuarantineByReports(t *testing.T) {
	clk := newClock(time.Unix(1_800_000_000, 0))
	b := start(t, func(c *Config) { c.Now = clk.now })
	b.site("s1")
	peer := api.PeerID(b.join("s1", "n1", api.TokenSpec{}).id.Public().(ed25519.PublicKey))
	after := b.events.newest()
	seq := uint64(0)
	report := func(b0 status.ReportBody) {
		t.Helper()
		seq++
		b0.Site, b0.Node, b0.Seq, b0.Occurred = "s1", "n1", seq, clk.now()
		body, err := json.Marshal(b0)
		if err != nil {
			t.Fatal(err)
		}
		clk.set(clk.now().Add(time.Minute))
		if _, err := b.db.AddReports(t.Context(), []fleet.Report{{Peer: peer, Recorded: clk.now(), Report: status.Report{Site: "s1", Node: "n1", Seq: seq, Body: body, Sig: []byte{1}}}}); err != nil {
			t.Fatal(err)
		}
		if err := b.followOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	list := func(query string) (out []api.QuarantineEntry) {
		t.Helper()
		w := b.as(b.token, "GET", api.PathQuarantine+query, "")
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Fatalf("%s", w.Body)
		}
		return out
	}
	bad := status.ReportBody{Phase: status.Quarantined, Outcome: "verification_failure", Reason: "ChecksumMismatch", Code: "E2101", Bundle: "app", Version: "1.0"}
	report(status.ReportBody{Phase: status.Staged, Reason: "Complete"})
	if b.quarantined(peer) {
		t.Fatal("a good node is under quarantine")
	}
	report(bad)
	report(bad)
	l := list("")
	if !b.quarantined(peer) || len(l) != 1 || l[0].By != "node" || l[0].Code != "E2101" || l[0].Scope != api.QuarantineNode {
		t.Fatalf("%+v", l)
	}
	b.stop()
	b.run()
	if !b.quarantined(peer) {
		t.Error("forgotten over a restart")
	}
	// Without a reason nobody is released; with one it is written down.
	one := fmt.Sprintf("%s/%d", api.PathQuarantine, l[0].ID)
	if w := b.as(b.token, "DELETE", one, ""); w.Code != http.StatusBadRequest {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	alice := b.access("alice", api.RoleOperator)
	if w := b.as(alice, "DELETE", one+"?reason=disk+replaced", ""); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if all := list("?all=1"); b.quarantined(peer) || len(list("")) != 0 || all[0].ReleasedBy != "alice" || all[0].Why != "disk replaced" {
		t.Errorf("%+v", all)
	}
	// A report that was late and is of before the release changes nothing; a new failure does.
	was := clk.now()
	clk.set(was.Add(-2 * time.Minute))
	report(bad)
	if b.quarantined(peer) {
		t.Error("an old failure counts again")
	}
	clk.set(was.Add(time.Hour))
	report(bad)
	if !b.quarantined(peer) {
		t.Error("a new failure does not count")
	}
	report(status.ReportBody{Phase: status.Staged, Reason: "Complete", Bundle: "app", Version: "1.1"})
	if all := list("?all=1"); b.quarantined(peer) || all[0].ReleasedBy != "node" || !strings.Contains(all[0].Why, "verified again") {
		t.Errorf("%+v", all)
	}
	// By a person, and only by a person again.
	spec := `{"scope": "node", "site": "s1", "node": "n1", "reason": "smells of smoke"}`
	if w := b.as(alice, "POST", api.PathQuarantine, spec); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := b.as(alice, "POST", api.PathQuarantine, spec); w.Code != 409 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if n, _ := b.members.peer(peer); b.seen(n, false).Quarantine != "smells of smoke" { // what rollouts and screens go by
		t.Errorf("the node is seen without its quarantine")
	}
	report(status.ReportBody{Phase: status.Staged, Reason: "Complete"})
	if !b.quarantined(peer) {
		t.Error("a person's quarantine was ended by the node")
	}
	for body, code := range map[string]int{`{"scope": "all", "site": "s1", "node": "n1", "reason": "x"}`: 400, `{"scope": "node", "site": "s1", "node": "n9", "reason": "x"}`: 404,
		`{"scope": "node", "site": "s1", "node": "n1", "reason": " "}`: 400} {
		if w := b.as(b.token, "POST", api.PathQuarantine, body); w.Code != code {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	for path, code := range map[string]int{"/x": 400, "/0": 400, "/999": 404} {
		if w := b.as(b.token, "GET", api.PathQuarantine+path, ""); w.Code != code {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	events, _, _ := b.events.since(max(after, b.events.floor), 100)
	critical := 0
	for _, e := range events {
		if e.Kind == "quarantine" && e.Severity == "critical" {
			critical++
		}
	}
	if critical != 2 { // of this run: the new failure, and the person's
		t.Errorf("%d critical events: %+v", critical, events)
	}
}

// A node under quarantine gets no place in a rollout; control: released, it gets one.
func TestQuarantineKeepsOutOfRollouts(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	for _, name := range []string{"a", "b"} {
		b.join("s1", name, api.TokenSpec{Labels: map[string]string{"role": "pos"}})
	}
	x := b.bundle("2.0", 2, b.release)
	b.push(x, -1)
	q, err := b.admin.AddQuarantine(t.Context(), api.QuarantineSpec{Scope: api.QuarantineNode, Site: "s1", Node: "a", Reason: "smoke"})
	if err != nil {
		t.Fatal(err)
	}
	b.rolling(x, 1, `batchSize: 10, batchDelayMinutes: 0, maxUnavailablePerSite: 10`)
	if g := b.granted("s1"); g == nil || names(g) != "b" {
		t.Errorf("places for %+v", g)
	}
	if _, err := b.admin.ReleaseQuarantine(t.Context(), q.ID, "it was toast"); err != nil {
		t.Fatal(err)
	}
	b.look()
	if g := b.granted("s1"); g == nil || !strings.Contains(names(g), "a") {
		t.Errorf("control: places for %+v", g)
	}
}
