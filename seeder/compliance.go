package seeder

import (
	"net/http"
	"strconv"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Where a row of compliance comes from.
const (
	sourceReceipt  = "receipt"
	sourceUnsigned = "unsigned"
	sourceNone     = "none"
)

// maxPage bounds a page of rows or receipts; pageSize is one that nobody chose. What a page reads at one time: so many
// rosters, and the receipts of so many nodes.
const (
	maxPage     = 1000
	pageSize    = 500
	rosterBatch = 64
	nodeBatch   = 256
)

// complianceRoutes registers what is asked of receipts.
func (s *Seeder) complianceRoutes(handle func(method, path string, fn route)) {
	handle("GET", api.PathCompliance, s.getCompliance)
	handle("GET", api.PathReceipts, s.getReceipts)
	handle("POST", api.PathLegacy, s.postLegacy)
}

func (s *Seeder) getCompliance(_ http.ResponseWriter, r *http.Request) (any, error) {
	v := r.URL.Query()
	now := s.now().UTC().Truncate(time.Microsecond)
	q := inquiry{asOf: now, knownAt: now, site: v.Get("site"), policy: v.Get("policy"), bundle: v.Get("bundle"), limit: pageSize, revocations: s.revocations.inForce(), silentAfter: s.cfg.SilentAfter, signers: s.signers}
	refuse := func(err error) (any, error) {
		return nil, problem.New(problem.Usage, "query %.200q", r.URL.RawQuery).Because(err)
	}
	var err error
	for name, into := range map[string]*time.Time{"asOf": &q.asOf, "knownAt": &q.knownAt} {
		t := v.Get(name)
		if t == "" {
			continue
		}
		if *into, err = time.Parse(time.RFC3339Nano, t); err != nil {
			return refuse(err)
		}
		if *into = into.UTC().Truncate(time.Microsecond); into.After(now) {
			return nil, problem.New(problem.Usage, "%s %s has not come yet: it is %s", name, t, now.Format(time.RFC3339))
		}
	}
	if q.labels, err = parseLabels(v.Get("selector")); err != nil {
		return refuse(err)
	}
	if q.after, err = parsePlace(v.Get("after")); err != nil {
		return refuse(err)
	}
	if t := v.Get("limit"); t != "" {
		if q.limit, err = strconv.Atoi(t); err != nil || q.limit < 1 || q.limit > maxPage {
			return nil, problem.New(problem.Usage, "limit %.20q: want 1 to %d", t, maxPage)
		}
	}
	return q.page(r.Context(), s.db)
}
