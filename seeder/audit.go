package seeder

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// Refusals beyond this rate are not recorded: nobody without a right to change anything may fill the disk.
const (
	refusalRate  = 5
	refusalBurst = 200
)

// Limits of an entry's words, in bytes.
const (
	maxAuditWord   = 256
	maxAuditDetail = 1024
)

// audit writes down who changes what. An entry is on disk before the change begins; what came of it is added before the
// answer. A change whose entry cannot be written is not made.
type audit struct {
	db       *fleet.Store
	log      *slog.Logger
	now      func() time.Time
	refusals *rate.Limiter
}

func newAudit(db *fleet.Store, log *slog.Logger, now func() time.Time) *audit {
	return &audit{db: db, log: log, now: now, refusals: rate.NewLimiter(refusalRate, refusalBurst)}
}

// matter is what a request is about. Its handler may say it: see about.
type matter struct{ subject string }

type matterKey struct{}

func withMatter(ctx context.Context, m *matter) context.Context {
	return context.WithValue(ctx, matterKey{}, m)
}

// about says what a request is about, for the audit log: SITE, SITE/NODE, the name of a policy. Where the path says it,
// nobody has to.
func about(r *http.Request, subject string) {
	if m, ok := r.Context().Value(matterKey{}).(*matter); ok {
		m.subject = subject
	}
}

// changes reports whether requests of a method change anything.
func changes(method string) bool { return method != http.MethodGet && method != http.MethodHead }

// pathSubject is what the path names.
func pathSubject(r *http.Request) string {
	var parts []string
	for _, name := range []string{"site", "node", "policy", "name", "digest", "id"} {
		if v := r.PathValue(name); v != "" {
			parts = append(parts, v)
		}
	}
	return strings.Join(parts, "/")
}

func (a *audit) entry(r *http.Request, subject string) fleet.Audit {
	c := callerOf(r.Context())
	who := c.Name
	if who == "" {
		who = "stranger"
	}
	return fleet.Audit{At: a.now(), Who: who, Role: string(c.Role), Origin: c.From, Action: auditWord(r.Method + " " + r.URL.Path), Subject: auditWord(subject)}
}

// begin records that a change is about to be made.
func (a *audit) begin(r *http.Request) (int64, error) {
	return a.db.AddAudit(r.Context(), a.entry(r, pathSubject(r)))
}

// end records what came of it. The change has been made or not: an error here changes nothing about that.
func (a *audit) end(ctx context.Context, id int64, code int, subject string, err error) {
	detail := ""
	if err != nil {
		detail = status.Clip(err.Error(), maxAuditDetail)
	}
	if err := a.db.EndAudit(context.WithoutCancel(ctx), id, code, auditWord(subject), detail); err != nil {
		a.log.Error("audit entry has no end", "entry", id, "status", code, "err", err)
	}
}

// done records what a stranger was allowed to do.
func (a *audit) done(r *http.Request, code int, subject string) {
	e := a.entry(r, subject)
	e.Status = code
	if _, err := a.db.AddAudit(context.WithoutCancel(r.Context()), e); err != nil {
		a.log.Error("audit entry not written", "action", e.Action, "from", e.Origin, "err", err)
	}
}

// refused records a change that was not allowed.
func (a *audit) refused(r *http.Request, code int, why string) {
	if !changes(r.Method) || !a.refusals.Allow() {
		return
	}
	e := a.entry(r, pathSubject(r))
	e.Status, e.Detail = code, status.Clip(why, maxAuditDetail)
	if _, err := a.db.AddAudit(context.WithoutCancel(r.Context()), e); err != nil {
		a.log.Error("refusal not recorded", "action", e.Action, "from", e.Origin, "err", err)
	}
}

// own records what the seeder did by itself, and by whose word. It is done already: an error is for the log.
func (a *audit) own(ctx context.Context, who, origin, action, subject, detail string) {
	e := fleet.Audit{At: a.now(), Who: who, Origin: auditWord(origin), Action: action, Subject: auditWord(subject), Status: http.StatusOK, Detail: detail}
	if _, err := a.db.AddAudit(context.WithoutCancel(ctx), e); err != nil {
		a.log.Error("audit entry not written", "who", who, "action", action, "subject", subject, "err", err)
	}
}

func auditWord(s string) string { return status.Clip(strings.ReplaceAll(s, "\n", " "), maxAuditWord) }

func (s *Seeder) getAudit(_ http.ResponseWriter, r *http.Request) (any, error) {
	after, limit, err := pageIn(r, 100, 1000)
	if err != nil {
		return nil, err
	}
	list, err := s.db.AuditLog(r.Context(), after, limit, r.URL.Query().Get("newest") == "1")
	if err != nil {
		return nil, err
	}
	page := api.AuditPage{Entries: []api.AuditEntry{}, Next: after}
	for _, e := range list {
		page.Entries = append(page.Entries, api.AuditEntry{ID: e.ID, At: e.At, Who: e.Who, Role: api.Role(e.Role), From: e.Origin, Action: e.Action, Subject: e.Subject, Status: e.Status, Detail: e.Detail})
		page.Next = e.ID
	}
	return page, nil
}
