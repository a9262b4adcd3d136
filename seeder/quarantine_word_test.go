package seeder

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// What a node says of its own quarantine counts, once for each, in whatever order and however late its reports come; it
// ends in the list when the node says so, at the time at which it was over there.
func TestQuarantineByTheNodesWord(t *testing.T) {
	clk := newClock(time.Unix(1_800_000_000, 0))
	b := start(t, func(c *Config) { c.Now = clk.now })
	b.site("s1")
	peer := api.PeerID(b.join("s1", "n1", api.TokenSpec{}).id.Public().(ed25519.PublicKey))
	t0 := clk.now()
	at := func(minutes int) time.Time { return t0.Add(time.Duration(minutes) * time.Minute) }
	seq := uint64(0)
	report := func(occurred time.Time, phase status.Phase, outcome string, w *status.Quarantine) {
		t.Helper()
		seq++
		body, err := json.Marshal(status.ReportBody{Site: "s1", Node: "n1", Seq: seq, Occurred: occurred, Phase: phase, Outcome: outcome, Reason: "x", Code: "E2103", Bundle: "app", Version: "2.0", Quarantine: w})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.db.AddReports(t.Context(), []fleet.Report{{Peer: peer, Recorded: clk.now(), Report: status.Report{Site: "s1", Node: "n1", Seq: seq, Body: body, Sig: []byte{1}}}}); err != nil {
			t.Fatal(err)
		}
		if err := b.followOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	word := func(id string, since, ended int, by string) *status.Quarantine {
		w := &status.Quarantine{ID: id, Reason: "ChunkCorrupt", Code: "E2103", Bundle: "app", Version: "2.0", Since: at(since), By: by, Why: "read whole"}
		if by != "" {
			end := at(ended)
			w.Ended = &end
		}
		return w
	}
	all := func() string {
		t.Helper()
		list, err := b.db.Quarantines(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, q := range list {
			line := fmt.Sprintf("%v %s by %s", q.Since.Sub(t0), q.Code, q.By)
			if !q.Released.IsZero() {
				line += fmt.Sprintf(", %v by %s", q.Released.Sub(t0), q.ReleasedBy)
			}
			out = append(out, line)
		}
		return strings.Join(out, "; ")
	}
	want := func(line string) {
		t.Helper()
		if got := all(); got != line {
			t.Fatalf("\n got %s\nwant %s", got, line)
		}
	}
	clk.set(at(60)) // all of it comes an hour late
	report(at(1), status.Quarantined, "verification_failure", word("aa", 1, 0, ""))
	report(at(1), status.Quarantined, "", word("aa", 1, 0, "")) // the report of the quarantine itself
	want("1m0s E2103 by node")
	report(at(2), status.Staged, "", word("aa", 1, 0, "")) // a bundle that is whole says nothing while the node holds itself
	want("1m0s E2103 by node")
	report(at(5), status.Staged, "", word("aa", 1, 5, "check"))
	want("1m0s E2103 by node, 5m0s by node")
	report(at(7), status.Deferred, "", word("bb", 7, 0, "")) // which was before the hour at which the end of the first was heard
	want("7m0s E2103 by node; 1m0s E2103 by node, 5m0s by node")
	report(at(5), status.Staged, "", word("aa", 1, 5, "check")) // again
	if !b.quarantined(peer) {
		t.Fatal("the end of the first ends the second")
	}
	report(at(9), status.Deferred, "", word("bb", 7, 9, "order 12"))
	want("7m0s E2103 by node, 9m0s by order 12; 1m0s E2103 by node, 5m0s by node")
	// An end that is lost: the next one begins.
	report(at(20), status.Deferred, "", word("cc", 20, 0, ""))
	report(at(30), status.Deferred, "", word("dd", 30, 0, ""))
	if got := all(); !strings.HasPrefix(got, "30m0s E2103 by node; 20m0s E2103 by node, 29m59.999999s by node") {
		t.Fatalf("%s", got)
	}

	// A person may not end it here alone: the node would go on.
	list, err := b.db.Quarantines(t.Context(), false)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	one := fmt.Sprintf("%s/%d?reason=disk+replaced", api.PathQuarantine, list[0].ID)
	b.presence.said(peer, status.Node{Site: "s1", Node: "n1", Seq: 1, Quarantined: word("dd", 30, 0, "")}, clk.now())
	if w := b.as(b.token, "DELETE", one, ""); w.Code == 200 || !strings.Contains(w.Body.String(), "E2114") || !strings.Contains(w.Body.String(), "--key") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	b.presence.said(peer, status.Node{Site: "s1", Node: "n1", Seq: 2}, clk.now()) // it has said that it is over
	if w := b.as(b.token, "DELETE", one, ""); w.Code != 200 || b.quarantined(peer) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
