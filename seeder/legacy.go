package seeder

import (
	"net/http"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// What all scripts together may say, so that a token which stands in a script of every machine fills no disk: a few a day
// of each of 10,000 machines, all at once after a window.
const (
	scriptRate  = 2 // a second
	scriptBurst = 20_000
)

// Outcomes that old scripts know.
func legacyOutcome(s string) bool {
	return slices.Contains([]string{"success", "deferred", "verification_failure", "install_failure"}, s)
}

func (s *Seeder) postLegacy(w http.ResponseWriter, r *http.Request) (any, error) {
	var q api.LegacyReport
	if err := api.ReadJSON(w, r, api.MaxBody, &q); err != nil {
		return nil, err
	}
	switch {
	case !plainWord(q.Host):
		return nil, problem.New(problem.Usage, "host %.80q: want letters, digits and . _ : / + ~ -, beginning with a letter or digit, at most %d", q.Host, maxPlain)
	case !plainWord(q.Bundle):
		return nil, problem.New(problem.Usage, "bundle %.80q: want letters, digits and . _ : / + ~ -, beginning with a letter or digit, at most %d", q.Bundle, maxPlain)
	case !legacyOutcome(q.Status):
		return nil, problem.New(problem.Usage, "status %.80q: want success, deferred, verification_failure or install_failure", q.Status)
	}
	if !s.scripts.Allow() {
		w.Header().Set("Retry-After", "600")
		return nil, problem.New(problem.Busy, "the scripts have sent more than %d reports of late", scriptBurst).
			WithDone("this one was not recorded").WithNext("wait, and send it again; meshctl compliance shows who sends")
	}
	return nil, s.db.AddUnsigned(r.Context(), fleet.Unsigned{Host: q.Host, Bundle: q.Bundle, Outcome: q.Status, Recorded: s.now()})
}

const maxPlain = 253

// plainWord accepts what a host or a bundle is called, and nothing that a spreadsheet takes for a formula.
func plainWord(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && strings.IndexByte("._:/+~-", c) >= 0:
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxPlain
}
