package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
)

var t0 = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

// unsigned stands in for the OpenPGP key, which is none of this package's business.
func unsigned(r *roster.Roster) (trust.Signed, error) {
	doc, err := r.Encode()
	return trust.Signed{Doc: doc, Sig: []byte("sig")}, err
}

func open(t *testing.T, source string) *Store {
	t.Helper()
	s, err := Open(t.Context(), source, unsigned)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// withSites is a store with two sites.
func withSites(t *testing.T, source string) *Store {
	t.Helper()
	s := open(t, source)
	for _, name := range []string{"s1", "s2"} {
		if err := s.CreateSite(t.Context(), Site{Name: name, Timezone: "UTC", GossipKey: make([]byte, 32), Created: t0}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func token(t *testing.T, s *Store, secret, site string) {
	t.Helper()
	if err := s.CreateToken(t.Context(), secret, Token{Site: site, Labels: map[string]string{"role": "pos"}, WAN: roster.WANAllow, Expires: t0.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code problem.Code) {
	t.Helper()
	if err == nil && code == "" {
		return
	}
	if err == nil || problem.CodeOf(err) != code {
		t.Fatalf("got %v, want code %q", err, code)
	}
}

// testRedeem is one history: each step is a request and what must come of it.
func testRedeem(t *testing.T, db engine) {
	s := withSites(t, db.fresh(t))
	for _, k := range []string{"one", "two", "three", "four", "five"} {
		token(t, s, k, "s1")
	}
	token(t, s, "other", "s2")
	steps := []struct {
		what               string
		secret, name, peer string
		at                 time.Duration
		code               problem.Code
		again              bool
		roster             uint64
		remove, site       string
	}{
		{what: "garbage", secret: "zero", name: "a", peer: "pa", code: problem.TokenInvalid},
		{what: "good", secret: "one", name: "a", peer: "pa", roster: 2, site: "s1"},
		{what: "answer lost, asked again", secret: "one", name: "a", peer: "pa", again: true, roster: 2, site: "s1"},
		{what: "asked again after the token's end", secret: "one", name: "a", peer: "pa", at: 2 * time.Hour, again: true, roster: 2, site: "s1"},
		{what: "same token, another machine", secret: "one", name: "b", peer: "pb", code: problem.TokenInvalid},
		{what: "same token, same machine, another name", secret: "one", name: "b", peer: "pa", code: problem.TokenInvalid},
		{what: "name taken", secret: "two", name: "a", peer: "pb", code: problem.NameTaken},
		{what: "the token is still good", secret: "two", name: "b", peer: "pb", roster: 3, site: "s1"},
		{what: "machine is in another site", secret: "other", name: "x", peer: "pb", code: problem.NameTaken},
		{what: "machine has another name", secret: "three", name: "c", peer: "pb", code: problem.NameTaken},
		{what: "expired to the second", secret: "three", name: "c", peer: "pc", at: time.Hour, code: problem.TokenInvalid},
		{what: "just in time", secret: "three", name: "c", peer: "pc", at: time.Hour - time.Microsecond, roster: 4, site: "s1"},
		{what: "removed, then the old token again", remove: "a", secret: "one", name: "a", peer: "pa", code: problem.TokenInvalid},
		{what: "replaced by a new machine of the same name", secret: "four", name: "a", peer: "pd", roster: 6, site: "s1"},
		{what: "the old machine comes back with a new token", secret: "five", name: "a", peer: "pa", code: problem.NameTaken},
		{what: "the secret decides the site", secret: "other", name: "a", peer: "pe", roster: 2, site: "s2"},
	}
	for _, x := range steps {
		if x.remove != "" {
			if _, _, err := s.RemoveNode(t.Context(), "s1", x.remove, t0); err != nil {
				t.Fatal(err)
			}
		}
		got, err := s.Redeem(t.Context(), enrol.Request{Secret: x.secret, Name: x.name, PeerID: x.peer}, t0.Add(x.at))
		if x.code != "" {
			if problem.CodeOf(err) != x.code || err == nil {
				t.Errorf("%s: got %v, want %s", x.what, err, x.code)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", x.what, err)
		} else if got.Again != x.again || got.Site.Name != x.site || got.Site.Roster != x.roster {
			t.Errorf("%s: again %v, site %s, roster %d", x.what, got.Again, got.Site.Name, got.Site.Roster)
		}
	}
	nodes, err := s.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, n := range nodes {
		list = append(list, n.Site+"/"+n.Name+"="+n.PeerID)
	}
	if d := cmp.Diff([]string{"s1/a=pd", "s1/b=pb", "s1/c=pc", "s2/a=pe"}, list); d != "" {
		t.Error(d)
	}
	if peers, err := s.PeersOf(t.Context(), "s1", "a"); err != nil || !cmp.Equal(peers, []string{"pd", "pa"}) {
		t.Errorf("peers of s1/a: %v, %v", peers, err)
	}
}

// Fifty machines hold one token: exactly one gets in, and the roster has one node.
func testRedeemRace(t *testing.T, db engine) {
	s := withSites(t, db.fresh(t))
	token(t, s, "k", "s1")
	var wg sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = s.Redeem(t.Context(), enrol.Request{Secret: "k", Name: fmt.Sprint("n", i), PeerID: fmt.Sprint("p", i)}, t0)
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if problem.CodeOf(err) != problem.TokenInvalid {
			t.Error(err)
		}
	}
	nodes, err := s.Nodes(t.Context())
	if won != 1 || len(nodes) != 1 || err != nil {
		t.Fatalf("%d won, %d nodes, %v", won, len(nodes), err)
	}
	r, err := s.Roster(t.Context(), "s1")
	if err != nil {
		t.Fatal(err)
	}
	if site, _ := s.Site(t.Context(), "s1"); site.Roster != 2 || len(r.Doc) == 0 {
		t.Errorf("roster version %d", site.Roster)
	}
}

func testSites(t *testing.T, db engine) {
	s := withSites(t, db.fresh(t))
	wantCode(t, s.CreateSite(t.Context(), Site{Name: "s1", GossipKey: []byte{1}, Created: t0}), problem.NameTaken)
	_, err := s.Site(t.Context(), "s3")
	wantCode(t, err, problem.NotFound)
	wantCode(t, s.CreateToken(t.Context(), "k", Token{Site: "s3", WAN: roster.WANAllow}), problem.NotFound)
	_, _, err = s.RemoveNode(t.Context(), "s1", "nobody", t0)
	wantCode(t, err, problem.NotFound)
	sites, err := s.Sites(t.Context())
	if err != nil || len(sites) != 2 || sites[0].Name != "s1" || !sites[0].Created.Equal(t0) || sites[0].Roster != 1 {
		t.Errorf("%+v, %v", sites, err)
	}
}

// A roster that cannot be signed enrols nobody and spends no token.
func testSignFails(t *testing.T, db engine) {
	s := withSites(t, db.fresh(t))
	token(t, s, "k", "s1")
	s.sign = func(*roster.Roster) (trust.Signed, error) { return trust.Signed{}, errors.New("no key") }
	if _, err := s.Redeem(t.Context(), enrol.Request{Secret: "k", Name: "a", PeerID: "p"}, t0); err == nil {
		t.Fatal("enrolled without a roster")
	}
	s.sign = unsigned
	if _, err := s.Redeem(t.Context(), enrol.Request{Secret: "k", Name: "a", PeerID: "p"}, t0); err != nil {
		t.Fatal(err)
	}
}

func testBundles(t *testing.T, db engine) {
	s := withSites(t, db.fresh(t))
	mk := func(version, doc string) Bundle {
		return Bundle{Digest: manifest.DigestOf([]byte(doc)), Name: "b", Version: version, Sequence: 1, Begun: t0,
			Manifest: trust.Signed{Doc: []byte(doc), Sig: []byte("s")}, Sums: trust.Signed{Doc: []byte("x"), Sig: []byte("y")}}
	}
	ids := []chunk.ID{chunk.Sum([]byte("1")), chunk.Sum([]byte("2"))}
	begin := func(b Bundle, committed bool, code problem.Code) {
		t.Helper()
		got, err := s.BeginBundle(t.Context(), b, ids)
		wantCode(t, err, code)
		if got != committed {
			t.Fatalf("committed is %v", got)
		}
	}
	begin(mk("1", "one"), false, "")
	begin(mk("1", "one"), false, "") // resumed
	begin(mk("1", "another one"), false, "")
	if bs, err := s.Bundles(t.Context()); err != nil || len(bs) != 1 || string(bs[0].Manifest.Doc) != "another one" {
		t.Fatalf("an upload that was given up did not give way: %v, %v", bs, err)
	}
	d := mk("1", "another one").Digest
	for range 2 {
		if err := s.CommitBundle(t.Context(), d, t0); err != nil {
			t.Fatal(err)
		}
	}
	begin(mk("1", "another one"), true, "")
	begin(mk("1", "one"), false, problem.AlreadyExists)
	begin(mk("2", "two"), false, "")
	if b, err := s.Bundle(t.Context(), d); err != nil || !b.Committed.Equal(t0) || string(b.Sums.Sig) != "y" {
		t.Errorf("%+v, %v", b, err)
	}
	_, err := s.Bundle(t.Context(), manifest.Digest{})
	wantCode(t, err, problem.NotFound)
	nums, err := s.ChunkNumbers(t.Context())
	if err != nil || len(nums) != 2 || nums[ids[0]] == nums[ids[1]] {
		t.Errorf("%v, %v", nums, err)
	}
}

func testPolicies(t *testing.T, db engine) {
	s := withSites(t, db.fresh(t))
	put := func(rev uint64, doc string, added bool, code problem.Code) {
		t.Helper()
		got, err := s.PutPolicy(t.Context(), Policy{Name: "p", Revision: rev, Document: trust.Signed{Doc: []byte(doc), Sig: []byte("s")}, Recorded: t0})
		wantCode(t, err, code)
		if got != added {
			t.Fatalf("added is %v", got)
		}
	}
	put(2, "two", true, "")
	put(2, "two", false, "")
	put(2, "other", false, problem.AlreadyExists)
	put(1, "one", false, problem.AlreadyExists)
	put(5, "five", true, "")
	put(1<<63, "x", false, problem.InvalidPolicy)
	ps, err := s.Policies(t.Context())
	if err != nil || len(ps) != 1 || ps[0].Revision != 5 {
		t.Errorf("%+v, %v", ps, err)
	}
}

func testReportsOnce(t *testing.T, db engine) {
	s := withSites(t, db.fresh(t))
	mk := func(peer string, seq uint64, body string) Report {
		return Report{Peer: peer, Recorded: t0, Report: status.Report{Site: "s1", Node: "n", Seq: seq, Body: []byte(body), Sig: []byte("s")}}
	}
	if c, err := s.AddReports(t.Context(), []Report{mk("p", 1, "a"), mk("p", 2, "b"), mk("p", 1, "a")}); err != nil || len(c) != 0 {
		t.Fatal(c, err)
	}
	// A machine that replaced another under the same name counts from one again.
	c, err := s.AddReports(t.Context(), []Report{mk("p", 2, "not b"), mk("q", 1, "a")})
	if err != nil || len(c) != 1 || c[0].Seq != 2 {
		t.Fatal(c, err)
	}
	rs, err := s.Reports(t.Context(), Query{Site: "s1", Limit: 10})
	if err != nil || len(rs) != 3 || string(rs[1].Body) != "b" {
		t.Fatalf("%+v, %v", rs, err)
	}
	if rs, _ = s.Reports(t.Context(), Query{Node: "n", After: rs[1].ID, Limit: 10}); len(rs) != 1 || rs[0].Peer != "q" {
		t.Errorf("%+v", rs)
	}
	if rs, _ = s.Reports(t.Context(), Query{Site: "s2", Limit: 10}); len(rs) != 0 {
		t.Errorf("%+v", rs)
	}
	if rs, _ = s.Reports(t.Context(), Query{Node: "n", Limit: 2, Newest: true}); len(rs) != 2 || rs[0].Seq != 2 || rs[1].Peer != "q" {
		t.Errorf("the newest two: %+v", rs)
	}
}

// The sequence of orders only grows; the same one again is no error.
func testOrders(t *testing.T, db engine) {
	s := withSites(t, db.fresh(t))
	mk := func(seq uint64, doc string) Order {
		return Order{Sequence: seq, Document: trust.Signed{Doc: []byte(doc), Sig: []byte("s")}, Recorded: t0}
	}
	for _, c := range []struct {
		o     Order
		added bool
		code  problem.Code
	}{
		{mk(7, "a"), true, ""}, {mk(7, "a"), false, ""}, {mk(7, "b"), false, problem.AlreadyExists}, {mk(6, "b"), false, problem.AlreadyExists},
		{mk(9, "c"), true, ""}, {mk(7, "a"), false, problem.AlreadyExists},
	} {
		added, err := s.PutOrder(t.Context(), c.o)
		wantCode(t, err, c.code)
		if err == nil && added != c.added {
			t.Errorf("order %d %q: added %v", c.o.Sequence, c.o.Document.Doc, added)
		}
	}
	got, err := s.Orders(t.Context(), 10)
	if d := cmp.Diff([]Order{mk(9, "c"), mk(7, "a")}, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	if got, _ := s.Orders(t.Context(), 1); len(got) != 1 || got[0].Sequence != 9 {
		t.Errorf("the newest: %+v", got)
	}
}

// A profile is kept, rules in their order, and replaced as a whole.
func testWAN(t *testing.T, db engine) {
	s := withSites(t, db.fresh(t))
	want, err := wanprofile.Document{Cap: "6Mbit", PerDay: "5GB", Rules: []string{"Sat,Sun blackout", "Mon-Fri 08:00-20:00 2Mbit"}}.Profile()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []wanprofile.Profile{want, {}, want} {
		if err := s.SetWAN(t.Context(), "s1", p); err != nil {
			t.Fatal(err)
		}
		if x, err := s.Site(t.Context(), "s1"); err != nil || x.WAN.Text() != p.Text() {
			t.Errorf("%v\n%s", err, x.WAN.Text())
		}
	}
	if x, err := s.Site(t.Context(), "s2"); err != nil || x.WAN.Text() != (&wanprofile.Profile{}).Text() {
		t.Errorf("the other site: %s, %v", x.WAN.Text(), err)
	}
	wantCode(t, s.SetWAN(t.Context(), "s3", want), problem.NotFound)
}

// A database of the first version goes on: sites keep their cap, accounts what they count, reports are there, and what is
// new has its place.
func testMigrateFromFirst(t *testing.T, db engine) {
	name := db.fresh(t)
	all := migrations
	migrations = all[:1]
	s := open(t, name)
	migrations = all
	ctx := context.WithoutCancel(t.Context())
	for _, q := range []string{
		`INSERT INTO sites VALUES ('s1', 'UTC', 750000, ?1, 1, 0)`,
		`INSERT INTO wan VALUES ('s1', 1, 2, 3, 4, 5)`,
		`INSERT INTO reports VALUES (1, 'p', 's1', 'n', 4, 0, ?1, ?1)`,
	} {
		var args []any
		if strings.Contains(q, "?") {
			args = append(args, []byte("{}"))
		}
		if _, err := s.w.ExecContext(ctx, q, args...); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, name)
	x, err := s.Site(ctx, "s1")
	if err != nil || x.WAN.Text() != (&wanprofile.Profile{Cap: 750_000}).Text() {
		t.Errorf("%+v, %v", x, err)
	}
	if rs, err := s.Reports(ctx, Query{Limit: 1}); err != nil || len(rs) != 1 || rs[0].Seq != 4 {
		t.Errorf("reports: %+v, %v", rs, err)
	}
	if added, err := s.PutOrder(ctx, Order{Sequence: 1, Document: trust.Signed{Doc: []byte("o"), Sig: []byte("s")}}); err != nil || !added {
		t.Errorf("an order: %v", err)
	}
	accs, err := s.Accounts(ctx)
	want := map[string]*Account{"s1": {Site: "s1", Payload: 1, Plain: 2, Needed: 3, Duplicate: 4, Splits: 5, Pages: map[uint32][]byte{}}}
	if d := cmp.Diff(want, accs); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
}

// What was written is there after the file is opened again, and the migrations are not applied twice.
func testReopen(t *testing.T, db engine) {
	name := db.fresh(t)
	s := open(t, name)
	ctx := context.WithoutCancel(t.Context())
	if err := s.CreateSite(ctx, Site{Name: "s1", GossipKey: []byte("k"), WAN: wanprofile.Profile{Cap: 7}, Created: t0}); err != nil {
		t.Fatal(err)
	}
	token(t, s, "k", "s1")
	if _, err := s.Redeem(ctx, enrol.Request{Secret: "k", Name: "a", PeerID: "p", Addrs: []string{"h:1"}}, t0); err != nil {
		t.Fatal(err)
	}
	page := make([]byte, PageBits/8)
	page[3] = 9
	acc := Account{Site: "s1", Payload: 1, Plain: 2, Needed: 3, Duplicate: 4, Splits: 5, Day: "2026-11-21", Today: 6, Promised: 7, Unsure: 8, Pages: map[uint32][]byte{6: page}}
	if err := s.PutAccounts(ctx, []Account{acc}); err != nil {
		t.Fatal(err)
	}
	acc.Payload, acc.Pages = 10, nil
	if err := s.PutAccounts(ctx, []Account{acc}); err != nil {
		t.Fatal(err)
	}
	st := Statement{Peer: "p", Seen: t0, Node: status.Node{Node: "a", Seq: 3, Phase: status.Staged}}
	if err := s.PutStatements(ctx, []Statement{st}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, name)
	accs, err := s.Accounts(ctx)
	acc.Pages = map[uint32][]byte{6: page}
	if d := cmp.Diff(map[string]*Account{"s1": &acc}, accs); d != "" || err != nil {
		t.Error(d, err)
	}
	sts, err := s.Statements(ctx)
	if d := cmp.Diff([]Statement{st}, sts); d != "" || err != nil {
		t.Error(d, err)
	}
	ns, err := s.Nodes(ctx)
	if err != nil || len(ns) != 1 || ns[0].Labels["role"] != "pos" || ns[0].Addrs[0] != "h:1" || ns[0].WAN != roster.WANAllow {
		t.Errorf("%+v, %v", ns, err)
	}
	if err := s.Check(ctx); err != nil {
		t.Error(err)
	}
	if _, err := s.r.Exec(`DELETE FROM nodes`); err == nil {
		t.Error("the reading connections can write")
	}
}
