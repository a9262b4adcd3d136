package fleet

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// receipted is the report of a receipt that ended and was recorded so many minutes after t0.
func receipted(t *testing.T, peer string, seq, number uint64, previous *manifest.Digest, ended, recorded int) Report {
	t.Helper()
	b := status.ReportBody{Site: "s1", Node: "n1", Seq: seq, Occurred: t0, Phase: status.Installed, Outcome: "success", Reason: "Installed",
		Policy: "p", Revision: 3, Bundle: "app", Version: "1.2", Checksum: manifest.Digest{1}, Snapshot: "vg0/x"}
	if number > 0 {
		b.Receipt = &status.Receipt{Number: number, Previous: previous, Commit: "abc", Now: &status.ReceiptBundle{Version: "1.2", Checksum: manifest.Digest{1}}}
		if ended >= 0 {
			b.Receipt.Ended = t0.Add(time.Duration(ended) * time.Minute)
		}
	}
	body, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return Report{Peer: peer, Recorded: t0.Add(time.Duration(recorded) * time.Minute), Report: status.Report{Site: "s1", Node: "n1", Seq: seq, Body: body, Sig: []byte("sig")}}
}

func testReceipts(t *testing.T, db engine) {
	s := withSites(t, db.fresh(t))
	one := receipted(t, "pa", 4, 1, nil, 1, 2)
	h1 := manifest.DigestOf(one.Body)
	two := receipted(t, "pa", 9, 2, &h1, 5, 60)   // late
	ahead := receipted(t, "pb", 1, 1, nil, 99, 7) // its clock is ahead
	none := receipted(t, "pa", 5, 0, nil, 0, 2)
	bare := receipted(t, "pb", 2, 2, &h1, -1, 8)
	for range 2 { // again changes nothing
		conflicts, err := s.AddReports(t.Context(), []Report{one, none, ahead, bare, two})
		if err != nil || len(conflicts) > 0 {
			t.Fatal(conflicts, err)
		}
	}
	at := func(minutes int) time.Time { return t0.Add(time.Duration(minutes) * time.Minute) }
	chain := func(peer string, known int) []Receipt {
		chains, err := s.Chains(t.Context(), []string{"nobody", peer, "nobody else"}, at(known))
		rs := chains[peer]
		if err != nil {
			t.Fatal(err)
		}
		return rs
	}
	d := manifest.Digest{1}
	want := Receipt{Hash: h1, Number: 1, Bundle: "app", Version: "1.2", Checksum: &d, Policy: "p", Revision: 3, Commit: "abc", Snapshot: "vg0/x",
		Outcome: "success", Reason: "Installed", Occurred: at(1), Recorded: at(2)}
	if diff := cmp.Diff([]Receipt{want}, chain("pa", 59)); diff != "" {
		t.Error(diff)
	}
	if rs := chain("pa", 60); len(rs) != 2 || rs[1].Previous == nil || *rs[1].Previous != h1 || !rs[1].Occurred.Equal(at(5)) || !rs[1].Recorded.Equal(at(60)) {
		t.Errorf("%+v", rs)
	}
	if rs := chain("pb", 60); len(rs) != 2 || !rs[0].Occurred.Equal(at(7)) || !rs[1].Occurred.Equal(t0) {
		t.Errorf("%+v", rs)
	}
	if rs := chain("pa", 1); len(rs) != 0 {
		t.Errorf("%+v", rs)
	}
	page, err := s.Receipts(t.Context(), Query{Site: "s1", Node: "n1", Limit: 3})
	if err != nil || len(page) != 3 || page[0].Hash != h1 || string(page[0].Body) != string(one.Body) || page[0].Peer != "pa" {
		t.Fatalf("%+v, %v", page, err)
	}
	rest, err := s.Receipts(t.Context(), Query{After: page[2].ID, Limit: 3})
	if err != nil || len(rest) != 1 || rest[0].Seq != 9 {
		t.Errorf("%+v, %v", rest, err)
	}
	if _, err := s.Receipts(t.Context(), Query{}); err == nil {
		t.Error("no limit")
	}
}

// testHistory asks of times that have passed: rosters, policies, silences, scripts.
func testHistory(t *testing.T, db engine) {
	s := withSites(t, db.fresh(t))
	at := func(minutes int) time.Time { return t0.Add(time.Duration(minutes) * time.Minute) }
	if r, err := s.RostersAt(t.Context(), "", 10, at(-1)); err != nil || len(r) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := s.SetTimezone(t.Context(), "s1", "Europe/Berlin", at(10)); err != nil {
		t.Fatal(err)
	}
	for minute, zone := range map[int]string{0: "UTC", 9: "UTC", 10: "Europe/Berlin", 100: "Europe/Berlin"} {
		if r, err := s.RostersAt(t.Context(), "", 10, at(minute)); err != nil || len(r) != 2 || r[0].Site != "s1" || r[0].Timezone != zone || r[1].Site != "s2" {
			t.Errorf("minute %d: %+v, %v", minute, r, err)
		}
	}
	for from, want := range map[string]string{"": "s1", "s1": "s1", "s11": "s2", "s2": "s2"} {
		if r, err := s.RostersAt(t.Context(), from, 1, at(100)); err != nil || len(r) != 1 || r[0].Site != want {
			t.Errorf("from %q: %+v, %v", from, r, err)
		}
	}
	if r, err := s.RostersAt(t.Context(), "s3", 1, at(100)); err != nil || len(r) != 0 {
		t.Errorf("%+v, %v", r, err)
	}

	for i := range uint64(2) {
		if _, err := s.PutPolicy(t.Context(), Policy{Name: "p", Revision: i + 1, Document: trust.Signed{Doc: []byte{byte(i)}, Sig: []byte("s")}, Recorded: at(10 * int(i))}); err != nil {
			t.Fatal(err)
		}
	}
	for minute, revision := range map[int]uint64{-1: 0, 0: 1, 9: 1, 10: 2} {
		if p, err := s.PolicyAt(t.Context(), "p", at(minute)); err != nil || (p == nil) != (revision == 0) || p != nil && p.Revision != revision {
			t.Errorf("minute %d: %+v, %v", minute, p, err)
		}
	}
	if p, err := s.PolicyRevision(t.Context(), "p", 1); err != nil || p == nil || p.Document.Doc[0] != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := s.PolicyRevision(t.Context(), "p", 1<<63); err != nil || p != nil {
		t.Errorf("%+v, %v", p, err)
	}

	token(t, s, "k", "s1")
	const peer = "pa"
	if _, err := s.Redeem(t.Context(), enrol.Request{Secret: "k", Name: "n1", PeerID: peer}, t0); err != nil {
		t.Fatal(err)
	}
	for _, minute := range []int{0, 0, 1, 2, 3, 20, 21} {
		if err := s.PutStatements(t.Context(), []Statement{{Peer: peer, Seen: at(minute)}}); err != nil {
			t.Fatal(err)
		}
	}
	for minute, heard := range map[int]bool{-1: false, 0: true, 3: true, 6: true, 7: false, 19: false, 20: true, 24: true, 25: false} {
		if got, err := s.Heard(t.Context(), []string{peer, "pb", "pc"}, at(minute), 2*time.Minute); err != nil || got[peer] != heard || got["pb"] || got["pc"] {
			t.Errorf("minute %d: heard %v, %v", minute, got, err)
		}
	}
	var spells int
	if err := s.r.QueryRowContext(t.Context(), `SELECT count(*) FROM spells`).Scan(&spells); err != nil || spells != 2 {
		t.Errorf("%d spells, %v", spells, err)
	}

	for i, u := range []Unsigned{{"h1", "b1", "success", at(1)}, {"h1", "b1", "install_failure", at(2)}, {"h2", "b1", "success", at(3)}, {"h1", "b2", "deferred", at(4)}} {
		if err := s.AddUnsigned(t.Context(), u); err != nil {
			t.Fatal(i, err)
		}
	}
	us, err := s.UnsignedAt(t.Context(), at(3), "", "", 10)
	if diff := cmp.Diff([]Unsigned{{"h1", "b1", "install_failure", at(2)}, {"h2", "b1", "success", at(3)}}, us); err != nil || diff != "" {
		t.Error(diff, err)
	}
	us, err = s.UnsignedAt(t.Context(), at(9), "h1", "b1", 1)
	if diff := cmp.Diff([]Unsigned{{"h1", "b2", "deferred", at(4)}}, us); err != nil || diff != "" {
		t.Error(diff, err)
	}
}
