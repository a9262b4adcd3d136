package seeder

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// One history, asked at different times about different times.
func TestCompliance(t *testing.T) {
	t0 := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	day := func(n int) time.Time { return t0.AddDate(0, 0, n) }
	clock := newClock(t0)
	b := start(t, func(c *Config) { c.Now = clock.now })
	b.site("s1")
	a, gone, _ := b.join("s1", "n1", api.TokenSpec{}), b.join("s1", "n2", api.TokenSpec{}), b.join("s1", "n3", api.TokenSpec{Labels: map[string]string{"role": "till"}})
	x := b.bundle("1.0", 1, b.release)
	if _, err := b.db.PutPolicy(t.Context(), fleet.Policy{Name: "pos", Revision: 1, Document: b.policy(x, 1, x.Digest, b.operator), Recorded: t0}); err != nil {
		t.Fatal(err)
	}

	type step struct {
		st              *station
		number          uint64
		version         string
		ended, recorded int // days
		skip            bool
	}
	heads := map[*station]*manifest.Digest{}
	hashes := map[string]manifest.Digest{}
	for _, x := range []step{
		{a, 1, "1.0", 2, 2, false}, {gone, 1, "1.0", 2, 2, false},
		{a, 2, "2.0", 9, 20, false}, // late
		{a, 3, "1.0", 21, 22, false},
		{gone, 2, "2.0", 5, 5, true}, // never came
		{gone, 3, "3.0", 6, 6, false},
	} {
		d := manifest.DigestOf([]byte(x.version))
		r := x.st.report(10*x.number, func(body *status.ReportBody) {
			body.Phase, body.Outcome, body.Reason, body.Bundle, body.Policy, body.Revision = status.Installed, "success", "Installed", "app", "pos", 1
			body.Receipt = &status.Receipt{Number: x.number, Previous: heads[x.st], Ended: day(x.ended), Now: &status.ReceiptBundle{Version: x.version, Checksum: d}}
		})
		hash := manifest.DigestOf(r.Body)
		heads[x.st], hashes[x.st.name+x.version] = &hash, hash
		if x.skip {
			continue
		}
		if _, err := b.db.AddReports(t.Context(), []fleet.Report{{Peer: x.st.peerID(), Recorded: day(x.recorded), Report: r}}); err != nil {
			t.Fatal(err)
		}
	}
	clock.set(day(30))
	if err := b.admin.RemoveNode(t.Context(), "s1", "n2"); err != nil {
		t.Fatal(err)
	}
	clock.set(day(40))

	for _, tt := range []struct {
		what        string
		q           api.ComplianceQuery
		want        []string // node, version, source, gap
		n1recorded  int
		n1lastKnown bool
	}{
		{"before all", api.ComplianceQuery{AsOf: day(1)}, []string{"n1  none", "n2  none gap", "n3  none"}, -1, false},
		{"as it was", api.ComplianceQuery{AsOf: day(10)}, []string{"n1 2.0 receipt", "n2 3.0 receipt gap", "n3  none"}, 20, false},
		{"as was known then", api.ComplianceQuery{AsOf: day(10), KnownAt: day(10)}, []string{"n1 1.0 receipt", "n2 3.0 receipt gap", "n3  none"}, 2, true},
		{"the day it came", api.ComplianceQuery{AsOf: day(10), KnownAt: day(20)}, []string{"n1 2.0 receipt", "n2 3.0 receipt gap", "n3  none"}, 20, true},
		{"now", api.ComplianceQuery{}, []string{"n1 1.0 receipt", "n3  none"}, 22, true},
		{"by label", api.ComplianceQuery{AsOf: day(10), Selector: "role=till"}, []string{"n3  none"}, -1, false},
		{"another bundle", api.ComplianceQuery{AsOf: day(10), Bundle: "other"}, []string{"n1  none", "n2  none gap", "n3  none"}, -1, false},
		{"by policy", api.ComplianceQuery{AsOf: day(1), Policy: "pos"}, []string{"n1  none", "n2  none gap"}, -1, false},
		{"another site", api.ComplianceQuery{Site: "s2"}, nil, -1, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			page, err := b.admin.Compliance(t.Context(), tt.q)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			history, err := b.admin.PolicyHistory(t.Context(), "pos")
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page.Rows {
				if i := slices.IndexFunc(history, func(p api.PolicyRevision) bool { return p.Revision == r.Revision }); i >= 0 && history[i].SignedBy != r.SignedBy {
					t.Errorf("signed by %s, by the policy's history by %s", r.SignedBy, history[i].SignedBy)
				}
				line := r.Node + " " + r.Version + " " + r.Source
				if r.Gap {
					line += " gap"
				}
				got = append(got, line)
				if r.Node != "n1" || tt.n1recorded < 0 {
					continue
				}
				if !r.Recorded.Equal(day(tt.n1recorded)) || r.LastKnown != tt.n1lastKnown || *r.Receipt == (manifest.Digest{}) || r.SignedBy == "" {
					t.Errorf("%+v", r)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			// In pages of one, and later: byte for byte.
			clock.set(clock.now().Add(time.Hour))
			q := tt.q
			q.AsOf, q.KnownAt, q.Limit = page.AsOf, page.KnownAt, 1
			var rows []api.ComplianceRow
			for {
				one, err := b.admin.Compliance(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				rows = append(rows, one.Rows...)
				if q.After = one.Next; q.After == "" {
					break
				}
			}
			was, _ := json.Marshal(page.Rows)
			is, _ := json.Marshal(append([]api.ComplianceRow{}, rows...))
			if string(was) != string(is) {
				t.Errorf("%s\n%s", was, is)
			}
		})
	}

	// Since says when it came into force, and a stranger can verify what the seeder hands out.
	rs, err := b.admin.Receipts(t.Context(), api.ReceiptQuery{Site: "s1", Node: "n1"})
	if err != nil || len(rs.Receipts) != 3 {
		t.Fatalf("%+v, %v", rs, err)
	}
	var links []status.Link
	for _, r := range rs.Receipts {
		l, err := status.NewLink(r.Signed)
		if err != nil || l.Hash != r.Hash {
			t.Fatal(r.Hash, err)
		}
		links = append(links, l)
	}
	public, err := api.ParsePeerID(rs.Receipts[0].PeerID)
	if err != nil {
		t.Fatal(err)
	}
	if faults := status.VerifyChain(public, links, true); len(faults) > 0 {
		t.Error(faults)
	}
	if faults := status.VerifyChain(public, links[1:], true); len(faults) != 1 {
		t.Errorf("one is missing: %v", faults)
	}
	for _, q := range []api.ComplianceQuery{{AsOf: day(400)}, {KnownAt: day(400)}, {Selector: "x"}, {After: "!"}, {Limit: 1001}} {
		_, err := b.admin.Compliance(t.Context(), q)
		wantCode(t, "a bad question", err, problem.Usage)
	}
}

// What scripts without keys say is shown as that.
func TestLegacyReports(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	b.join("s1", "n1", api.TokenSpec{})
	for _, r := range []api.LegacyReport{{Host: "old-1", Status: "install_failure", Bundle: "build-42"}, {Host: "old-1", Status: "success", Bundle: "build-42"}} {
		if err := b.admin.PutLegacy(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []api.LegacyReport{{}, {Host: "h", Status: "done", Bundle: "b"}, {Host: "=cmd()", Status: "success", Bundle: "b"}, {Host: "h", Status: "success", Bundle: "b\n"}} {
		wantCode(t, "a bad report", b.admin.PutLegacy(t.Context(), r), problem.Usage)
	}
	page, err := b.admin.Compliance(t.Context(), api.ComplianceQuery{})
	if err != nil || len(page.Rows) != 2 {
		t.Fatalf("%+v, %v", page, err)
	}
	if r := page.Rows[0]; r.Node != "old-1" || r.Outcome != "success" || r.Source != "unsigned" || r.Receipt != nil || r.Version != "" {
		t.Errorf("%+v", r)
	}
	if r := page.Rows[1]; r.Node != "n1" || r.Source != "none" {
		t.Errorf("%+v", r)
	}
	if rs, err := b.admin.Receipts(t.Context(), api.ReceiptQuery{}); err != nil || len(rs.Receipts) != 0 {
		t.Errorf("%+v, %v", rs, err)
	}
	a := b.Access()
	a.Token, a.URLs = "wrong", a.URLs[1:]
	c := b.client(a)
	defer c.CloseIdle()
	if err := c.PutLegacy(t.Context(), api.LegacyReport{Host: "h", Status: "success", Bundle: "b"}); problem.CodeOf(err) != problem.Denied {
		t.Errorf("without a token: %v", err)
	}
}
