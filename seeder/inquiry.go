package seeder

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// inquiry is a question about what ran where. Its answer follows from what is only ever added to, so it is the same
// whenever it is asked.
type inquiry struct {
	asOf, knownAt        time.Time
	site, policy, bundle string
	labels               map[string]string
	after                place
	limit                int
	silentAfter          time.Duration
	revocations          recalled

	signers func(trust.Signed) string
	origins map[string]origin // by policy and revision
}

// place is where a row stands in the order of all.
type place struct{ Site, Node, Bundle string }

func (p place) compare(q place) int {
	return cmp.Or(strings.Compare(p.Site, q.Site), strings.Compare(p.Node, q.Node), strings.Compare(p.Bundle, q.Bundle))
}

func (p place) String() string {
	b, _ := json.Marshal([3]string{p.Site, p.Node, p.Bundle}) //nolint:errchkjson // strings can be encoded
	return base64.RawURLEncoding.EncodeToString(b)
}

// maxPlace bounds the text of a place: three names, in base64.
const maxPlace = 1024

// parsePlace reads what String wrote, and nothing else.
func parsePlace(s string) (place, error) {
	if s == "" {
		return place{}, nil
	}
	if len(s) > maxPlace {
		return place{}, fmt.Errorf("a place of %d bytes: at most %d", len(s), maxPlace)
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return place{}, err
	}
	var x [3]string
	err = json.Unmarshal(b, &x)
	p := place{x[0], x[1], x[2]}
	if err == nil && p.String() != s {
		err = errors.New("not a place in the list")
	}
	return p, err
}

func parseLabels(s string) (map[string]string, error) {
	out := map[string]string{}
	for part := range strings.SplitSeq(s, ",") {
		if part == "" {
			continue
		}
		k, v, ok := strings.Cut(part, "=")
		if !ok || k == "" {
			return nil, problem.New(problem.Usage, "selector %.80q: want KEY=VALUE", part)
		}
		out[k] = v
	}
	return out, nil
}

// past is what the database knows of it. Each method is one query, whatever the number of nodes.
type past interface {
	RostersAt(ctx context.Context, from string, limit int, at time.Time) ([]roster.Roster, error)
	Chains(ctx context.Context, peers []string, known time.Time) (map[string][]fleet.Receipt, error)
	Heard(ctx context.Context, peers []string, at time.Time, within time.Duration) (map[string]bool, error)
	PolicyAt(ctx context.Context, name string, at time.Time) (*fleet.Policy, error)
	PolicyRevision(ctx context.Context, name string, revision uint64) (*fleet.Policy, error)
	UnsignedAt(ctx context.Context, at time.Time, host, bundle string, limit int) ([]fleet.Unsigned, error)
}

// member is a node that was on the roster of its site.
type member struct {
	roster.Node
	site string
}

// page answers with the rows after a place. Scripts that name no site come first.
func (q *inquiry) page(ctx context.Context, db past) (api.CompliancePage, error) {
	q.origins = map[string]origin{}
	out := api.CompliancePage{AsOf: q.asOf, KnownAt: q.knownAt, Rows: []api.ComplianceRow{}}
	then := q.asOf // of what was known of that time, no more than of the time at which it was known
	if q.knownAt.Before(then) {
		then = q.knownAt
	}
	asked, err := q.asked(ctx, db, then)
	if err != nil {
		return out, err
	}
	if q.after.Site == "" {
		if out.Rows, err = q.unsigned(ctx, db, then); err != nil {
			return out, err
		}
	}
	from, whole := place{Site: max(q.site, q.after.Site), Node: q.after.Node}, false
	for !whole && len(out.Rows) <= q.limit {
		var nodes []member
		if nodes, from, whole, err = q.members(ctx, db, then, from); err != nil {
			return out, err
		}
		for some := range slices.Chunk(nodes, min(nodeBatch, q.limit+1)) {
			rows, err := q.rows(ctx, db, some, asked)
			if err != nil {
				return out, err
			}
			if out.Rows = append(out.Rows, rows...); len(out.Rows) > q.limit {
				break
			}
		}
	}
	if len(out.Rows) > q.limit {
		out.Rows = out.Rows[:q.limit]
		last := out.Rows[q.limit-1]
		out.Next = place{last.Site, last.Node, last.Bundle}.String()
	}
	return out, nil
}

func carries(labels, want map[string]string) bool {
	for k, v := range want {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// asked is the policy that the question is about, as it was in force; nil where it is about all, or there was none.
func (q *inquiry) asked(ctx context.Context, db past, then time.Time) (*policy.Policy, error) {
	if q.policy == "" {
		return nil, nil
	}
	rev, err := db.PolicyAt(ctx, q.policy, then)
	if err != nil || rev == nil {
		return nil, err
	}
	d, err := policy.Read(rev.Document)
	if err != nil || d.Deleted {
		return nil, nil // of another version of this program: what receipts say of it is shown
	}
	p, err := policy.Parse([]byte(d.Policy))
	if err != nil {
		return nil, nil
	}
	return p, nil
}

// members are those of some sites that the question is about, from a place on. It returns where the next ones begin, and
// whether there are none.
func (q *inquiry) members(ctx context.Context, db past, then time.Time, from place) (out []member, next place, whole bool, err error) {
	limit := min(rosterBatch, q.limit+1) // two at least: the first may be one that is done with
	if q.site != "" {
		limit = 1
	}
	rosters, err := db.RostersAt(ctx, from.Site, limit, then)
	if err != nil {
		return nil, from, false, err
	}
	next, whole = from, len(rosters) < limit || q.site != ""
	for _, r := range rosters {
		if q.site != "" && r.Site != q.site {
			break
		}
		for _, n := range r.Nodes { // in the order of their names
			if r.Site == from.Site && n.Name < from.Node {
				continue
			}
			next = place{Site: r.Site, Node: n.Name + " "} // behind this one, before any other
			if carries(n.Labels, q.labels) {
				out = append(out, member{n, r.Site})
			}
		}
		if len(r.Nodes) == 0 {
			next = place{Site: r.Site}
		}
	}
	return out, next, whole, nil
}

// rows answers for some nodes.
func (q *inquiry) rows(ctx context.Context, db past, nodes []member, asked *policy.Policy) (out []api.ComplianceRow, err error) {
	peers := make([]string, len(nodes))
	for i, n := range nodes {
		peers[i] = n.PeerID
	}
	chains, err := db.Chains(ctx, peers, q.knownAt)
	if err != nil {
		return nil, err
	}
	heard, err := db.Heard(ctx, peers, q.asOf, q.silentAfter)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		rows := q.node(n, chains[n.PeerID], heard[n.PeerID], asked)
		for i := range rows {
			r := &rows[i]
			if q.after != (place{}) && (place{r.Site, r.Node, r.Bundle}).compare(q.after) <= 0 {
				continue
			}
			if r.Source == sourceReceipt && r.Policy != "" {
				o, err := q.origin(ctx, db, r.Policy, r.Revision)
				if err != nil {
					return nil, err
				}
				r.SignedBy, r.Commit = o.signers, cmp.Or(r.Commit, o.commit)
			}
			out = append(out, *r)
		}
	}
	return out, nil
}

// node answers for one node: a row for each bundle name, and one that says that nothing is known where nothing is.
func (q *inquiry) node(n member, chain []fleet.Receipt, heard bool, asked *policy.Policy) []api.ComplianceRow {
	rows := recall(chain, q.asOf, !heard)
	rows = slices.DeleteFunc(rows, func(r api.ComplianceRow) bool {
		return q.policy != "" && r.Policy != q.policy || q.bundle != "" && r.Bundle != q.bundle
	})
	if len(rows) == 0 && (q.policy == "" || asked != nil && asked.Matches(n.Labels)) {
		none := api.ComplianceRow{Bundle: q.bundle, Source: sourceNone, LastKnown: !heard, Gap: broken(chain)}
		if asked != nil {
			none.Bundle, none.Policy = cmp.Or(q.bundle, asked.Bundle.Name), asked.Name
		}
		rows = append(rows, none)
	}
	for i := range rows {
		rows[i].Site, rows[i].Node, rows[i].PeerID = n.site, n.Name, n.PeerID
		rows[i].Revoked = q.revocations.revoked(rows[i].Checksum, q.asOf, q.knownAt)
	}
	return rows
}

// origin is where a revision of a policy comes from: who signed it, and its commit.
type origin struct{ signers, commit string }

func (q *inquiry) origin(ctx context.Context, db past, name string, revision uint64) (origin, error) {
	key := name + "@" + strconv.FormatUint(revision, 10)
	if o, ok := q.origins[key]; ok {
		return o, nil
	}
	p, err := db.PolicyRevision(ctx, name, revision)
	if err != nil {
		return origin{}, err
	}
	var o origin
	if p != nil && !p.Recorded.After(q.knownAt) {
		o.signers = q.signers(p.Document)
		if d, err := policy.Read(p.Document); err == nil && d.Commit != nil {
			o.commit = d.Commit.ID
		}
	}
	q.origins[key] = o
	return o, nil
}

// unsigned is what scripts have said, which names no policy and no labels.
func (q *inquiry) unsigned(ctx context.Context, db past, then time.Time) ([]api.ComplianceRow, error) {
	out := []api.ComplianceRow{}
	if q.site != "" || q.policy != "" || len(q.labels) > 0 {
		return out, nil
	}
	host, bundle := q.after.Node, q.after.Bundle
	for len(out) <= q.limit {
		us, err := db.UnsignedAt(ctx, then, host, bundle, q.limit+1)
		if err != nil {
			return nil, err
		}
		for _, u := range us {
			host, bundle = u.Host, u.Bundle
			if q.bundle == "" || u.Bundle == q.bundle {
				out = append(out, api.ComplianceRow{Node: u.Host, Bundle: u.Bundle, Outcome: u.Outcome, Occurred: &u.Recorded, Recorded: &u.Recorded, Source: sourceUnsigned})
			}
		}
		if len(us) <= q.limit {
			return out, nil
		}
	}
	return out, nil
}
