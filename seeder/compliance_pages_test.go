package seeder

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// counted counts the queries of an inquiry.
type counted struct {
	*fleet.Store
	n int
}

func (c *counted) RostersAt(ctx context.Context, from string, limit int, at time.Time) ([]roster.Roster, error) {
	c.n++
	return c.Store.RostersAt(ctx, from, limit, at)
}

func (c *counted) Chains(ctx context.Context, peers []string, known time.Time) (map[string][]fleet.Receipt, error) {
	c.n++
	return c.Store.Chains(ctx, peers, known)
}

func (c *counted) Heard(ctx context.Context, peers []string, at time.Time, within time.Duration) (map[string]bool, error) {
	c.n++
	return c.Store.Heard(ctx, peers, at, within)
}

func (c *counted) PolicyAt(ctx context.Context, name string, at time.Time) (*fleet.Policy, error) {
	c.n++
	return c.Store.PolicyAt(ctx, name, at)
}

func (c *counted) PolicyRevision(ctx context.Context, name string, revision uint64) (*fleet.Policy, error) {
	c.n++
	return c.Store.PolicyRevision(ctx, name, revision)
}

func (c *counted) UnsignedAt(ctx context.Context, at time.Time, host, bundle string, limit int) ([]fleet.Unsigned, error) {
	c.n++
	return c.Store.UnsignedAt(ctx, at, host, bundle, limit)
}

// enlist enrols a node with labels, in a site that is made if need be.
func enlist(t *testing.T, db *fleet.Store, now time.Time, site, name, peer string, labels ...string) {
	t.Helper()
	if _, err := db.Site(t.Context(), site); err != nil {
		if err := db.CreateSite(t.Context(), fleet.Site{Name: site, Timezone: "UTC", GossipKey: make([]byte, enrol.GossipKeyBytes), Created: now}); err != nil {
			t.Fatal(err)
		}
	}
	has := map[string]string{}
	for pair := range slices.Chunk(labels, 2) {
		has[pair[0]] = pair[1]
	}
	if err := db.CreateToken(t.Context(), peer, fleet.Token{Site: site, Labels: has, WAN: roster.WANAllow, Expires: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Redeem(t.Context(), enrol.Request{Secret: peer, Name: name, PeerID: peer}, now); err != nil {
		t.Fatal(err)
	}
}

// However a question is cut into pages, the rows are the same, and the queries are a few for each page, not for each node.
func TestCompliancePages(t *testing.T) {
	priv, _, _, err := signer.Generate("rosters", "")
	if err != nil {
		t.Fatal(err)
	}
	key, err := signer.FromKey(priv, nil)
	if err != nil {
		t.Fatal(err)
	}
	db, err := fleet.Open(t.Context(), filepath.Join(t.TempDir(), "fleet.db"), signRoster(key))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	t0 := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for i := range 3 { // sites without nodes
		if err := db.CreateSite(t.Context(), fleet.Site{Name: fmt.Sprintf("site-%02d", 10*i+9), Timezone: "UTC", GossipKey: make([]byte, enrol.GossipKeyBytes), Created: t0}); err != nil {
			t.Fatal(err)
		}
	}
	const sites, nodes = 70, 300 // more of both than are read at one time
	var reports []fleet.Report
	for i := range nodes {
		site := fmt.Sprintf("site-%02d", i%sites)
		if i%sites >= sites-7 || i%10 == 9 { // one site has many nodes
			site = "site-31"
		}
		name, peer := fmt.Sprintf("n-%d", i), fmt.Sprintf("peer-%d", i)
		enlist(t, db, t0, site, name, peer, "odd", fmt.Sprint(i%2))
		for n := range i % 4 { // none of some; of others several bundles
			body := fmt.Sprintf(`{"site":%q,"node":%q,"seq":%d,"occurred":"2026-03-02T00:00:00Z","phase":"Installed","outcome":"success","reason":"Installed","policy":"p%d","revision":1,
				"bundle":"b%d","version":"1","checksum":%q,"receipt":{"number":%d,"started":"2026-03-02T00:00:00Z","ended":"2026-03-02T00:00:00Z","clockMillis":0,"software":"x","zoneinfo":"y","now":{"version":"1","checksum":%q}}}`,
				site, name, n+1, n, n, manifest.Digest{1}, n+1, manifest.Digest{1})
			reports = append(reports, fleet.Report{Peer: peer, Recorded: t0.AddDate(0, 0, 1), Report: status.Report{Site: site, Node: name, Seq: uint64(n + 1), Body: []byte(body), Sig: []byte("s")}})
		}
	}
	if _, err := db.AddReports(t.Context(), reports); err != nil {
		t.Fatal(err)
	}
	ask := func(q inquiry) (rows []api.ComplianceRow, pages, queries int) {
		t.Helper()
		q.asOf, q.knownAt, q.silentAfter = t0.AddDate(0, 0, 9), t0.AddDate(0, 0, 9), time.Minute
		c := &counted{Store: db}
		for {
			page, err := q.page(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			if rows = append(rows, page.Rows...); page.Next == "" {
				return rows, pages, c.n
			}
			if len(page.Rows) != q.limit {
				t.Fatalf("a page of %d rows, of %d", len(page.Rows), q.limit)
			}
			if q.after, err = parsePlace(page.Next); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, q := range map[string]inquiry{
		"all":     {},
		"label":   {labels: map[string]string{"odd": "1"}},
		"none":    {labels: map[string]string{"odd": "2"}},
		"site":    {site: "site-31"},
		"no site": {site: "site-311"},
		"policy":  {policy: "p2"},
		"bundle":  {bundle: "b1"},
	} {
		t.Run(name, func(t *testing.T) {
			q.limit = 10_000
			want, _, queries := ask(q)
			if most := 2 + (sites+rosterBatch)/rosterBatch + 2*(2+nodes/nodeBatch) + 3; queries > most {
				t.Errorf("%d queries for %d nodes, want at most %d", queries, nodes, most)
			}
			for _, limit := range []int{7, 100} {
				q.limit = limit
				got, pages, queries := ask(q)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("in pages of %d: %s", limit, diff)
				}
				if most := pages * 16; queries > most {
					t.Errorf("in pages of %d: %d queries for %d pages, want at most %d", limit, queries, pages, most)
				}
			}
			if n := len(want); name == "all" && n != nodes+nodes/4*3 || name == "site" && n < 40 || (name == "none" || name == "no site") && n != 0 {
				t.Errorf("%d rows", n)
			}
		})
	}
}
