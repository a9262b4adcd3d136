package seeder

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// as is what a request with a token, as it comes over TLS, is answered.
func (b *bed) as(token, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	x := b.routes()
	h := guard(x, b.tokens.who, x.open(), b.audit.refused)
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = "192.0.2.7:4711"
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	ctx, cancel := context.WithTimeout(r.Context(), 50*time.Millisecond) // what streams ends
	defer cancel()
	if method != http.MethodGet || path != api.PathWatch {
		ctx = b.t.Context()
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r.WithContext(ctx))
	return w
}

// access makes a token of a role.
func (b *bed) access(name string, role api.Role) string {
	b.t.Helper()
	w := b.as(b.token, "POST", api.PathAccess, `{"name": "`+name+`", "role": "`+string(role)+`"}`)
	var a api.AccessReply
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != http.StatusOK {
		b.t.Fatalf("%d %s", w.Code, w.Body)
	}
	return a.Token
}

// Every registered route has its line in the table; one without would be for administrators.
func TestEveryRouteHasALeastRole(t *testing.T) {
	b := start(t, nil)
	x := b.routes()
	for _, name := range x.registered {
		if op, ok := x.table[name]; !ok || op.summary == "" {
			t.Errorf("route %q is not in the table of operations (seeder/operations.go): it is for administrators only, and undocumented", name)
		}
	}
	x.handle("GET", "/forgotten", func(http.ResponseWriter, *http.Request) (any, error) { return nil, nil })
	for role, want := range map[api.Role]int{anyone: 403, api.RoleNode: 403, api.RoleViewer: 403, api.RoleOperator: 403, api.RoleAdmin: 204} {
		r := httptest.NewRequest("GET", "/forgotten", nil)
		w := httptest.NewRecorder()
		x.ServeHTTP(w, r.WithContext(withCaller(r.Context(), caller{Role: role})))
		if w.Code != want {
			t.Errorf("a route that is not in the table, as %q: %d, want %d", role, w.Code, want)
		}
	}
}

// Every role against every route: what the table says is what happens.
func TestEveryRoleOnEveryRoute(t *testing.T) {
	b := start(t, nil)
	tokens := map[api.Role]string{anyone: "patchmesh_wrong"}
	for _, r := range []api.Role{api.RoleNode, api.RoleViewer, api.RoleOperator, api.RoleAdmin} {
		tokens[r] = b.access("t-"+string(r), r)
	}
	rank := map[api.Role]int{anyone: 0, api.RoleNode: 0, api.RoleViewer: 1, api.RoleOperator: 2, api.RoleAdmin: 3}
	refused, allowed := 0, 0
	for _, name := range b.routes().registered {
		method, pattern, _ := strings.Cut(name, " ")
		path := pattern
		for strings.Contains(path, "{") {
			i, j := strings.IndexByte(path, '{'), strings.IndexByte(path, '}')
			path = path[:i] + "zz" + path[j+1:]
		}
		op := operations()[name]
		for role, token := range tokens {
			want := op.least == anyone || op.least != api.RoleNode && rank[role] >= rank[op.least] ||
				op.least == api.RoleNode && (role == api.RoleNode || rank[role] >= 2)
			w := b.as(token, method, path, "")
			var p api.Problem
			_ = json.Unmarshal(w.Body.Bytes(), &p)
			if got := p.Code != problem.Denied; got != want {
				t.Errorf("%s as %q: %d %s, allowed should be %v", name, role, w.Code, w.Body, want)
			}
			if want {
				allowed++
			} else if refused++; w.Code != http.StatusForbidden || w.Header().Get("Content-Type") != api.ProblemType {
				t.Errorf("%s as %q: %d %s", name, role, w.Code, w.Header())
			}
		}
	}
	// A node's token is good for the one thing that needs it, and for what is open to all.
	for name, op := range operations() {
		if may(op.least, api.RoleNode) != (op.least == anyone || name == "POST "+api.PathLegacy) {
			t.Errorf("%s as a node: %v", name, !may(op.least, api.RoleNode))
		}
	}
	t.Logf("%d pairs allowed, %d refused", allowed, refused)
}

// A token is made, used, ends, is revoked, and survives a restart. Its secret is nowhere on the disk.
func TestTokensOfTheAPI(t *testing.T) {
	clk := newClock(time.Now())
	b := start(t, func(c *Config) { c.Now = clk.now })
	for body, code := range map[string]problem.Code{
		`{"name": "X y", "role": "viewer"}`:                           problem.Usage,
		`{"name": "admin", "role": "viewer"}`:                         problem.Usage,
		`{"name": "x", "role": "root"}`:                               problem.Usage,
		`{"name": "x", "role": "viewer", "ttlSeconds": -1}`:           problem.Usage,
		`{"name": "x", "role": "viewer", "ttlSeconds": 1e30}`:         problem.InvalidFile,
		`{"name": "x", "role": "viewer", "more": 1}`:                  problem.InvalidFile,
		`{"name": "x", "role": "viewer"} {}`:                          problem.InvalidFile,
		`{"name": "x", "role": "viewer", "ttlSeconds": 999999999999}`: problem.Usage,
	} {
		var p api.Problem
		w := b.as(b.token, "POST", api.PathAccess, body)
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Code != code {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	viewer := b.access("grafana", api.RoleViewer)
	w := b.as(b.token, "POST", api.PathAccess, `{"name": "brief", "role": "operator", "ttlSeconds": 60}`)
	var brief api.AccessReply
	if err := json.Unmarshal(w.Body.Bytes(), &brief); err != nil || brief.Expires == nil || brief.By != "admin" {
		t.Fatalf("%s", w.Body)
	}
	status := func(token string) int { return b.as(token, "GET", api.PathSites, "").Code }
	if a, z := status(viewer), status(brief.Token); a != 200 || z != 200 {
		t.Fatalf("%d, %d", a, z)
	}
	if w := b.as(b.token, "POST", api.PathAccess, `{"name": "grafana", "role": "admin"}`); w.Code != http.StatusConflict {
		t.Errorf("a name twice: %d", w.Code)
	}
	clk.set(clk.now().Add(61 * time.Second))
	if c := status(brief.Token); c != http.StatusForbidden {
		t.Errorf("expired: %d", c)
	}
	b.stop()
	b.run()
	if c := status(viewer); c != 200 {
		t.Errorf("after a restart: %d", c)
	}
	list := func() (out []api.AccessInfo) {
		if err := json.Unmarshal(b.as(b.token, "GET", api.PathAccess, "").Body.Bytes(), &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if l := list(); len(l) != 2 || l[1].Name != "grafana" || l[1].LastUsed == nil || l[1].Revoked != nil {
		t.Errorf("%+v", l)
	}
	for range 2 {
		if w := b.as(b.token, "DELETE", api.PathAccess+"/grafana", ""); w.Code != http.StatusNoContent {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if c := status(viewer); c != http.StatusForbidden {
		t.Errorf("revoked: %d", c)
	}
	if w := b.as(b.token, "DELETE", api.PathAccess+"/nobody", ""); w.Code != http.StatusNotFound {
		t.Errorf("%d", w.Code)
	}
	if w := b.as(b.token, "POST", api.PathAccess, `{"name": "grafana", "role": "admin"}`); w.Code != http.StatusConflict {
		t.Errorf("a revoked name again: %d", w.Code)
	}
	b.stop()
	for _, name := range []string{"seeder.db", "seeder.db-wal"} {
		raw, err := os.ReadFile(filepath.Join(b.cfg.State, name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte(strings.TrimPrefix(viewer, tokenPrefix))) {
			t.Errorf("%s holds the secret", name)
		}
	}
	b.run()
}

// Who did what: changes, failures and refusals stand in the log in their order; reading does not.
func TestAudit(t *testing.T) {
	b := start(t, nil)
	viewer, operator := b.access("grafana", api.RoleViewer), b.access("alice", api.RoleOperator)
	b.as(b.token, "POST", api.PathSites, `{"name": "s1"}`)
	b.as(b.token, "POST", api.PathSites, `{"name": "s1"}`)
	b.as(viewer, "PUT", "/api/v1/sites/s1/timezone", `{"timezone": "America/Chicago"}`)
	b.as(operator, "PUT", "/api/v1/sites/s1/timezone", `{"timezone": "America/Chicago"}`)
	b.as("patchmesh_wrong", "DELETE", "/api/v1/sites/s1/nodes/n1", "")
	b.as(b.token, "DELETE", "/api/v1/sites/s1/nodes/n1", "")
	b.as(viewer, "GET", api.PathSites, "")
	if _, err := b.admin.CreateSite(t.Context(), api.SiteSpec{Name: "s2"}); err != nil { // over the socket
		t.Fatal(err)
	}
	b.stop()
	b.run()
	read := func(query string) (p api.AuditPage) {
		w := b.as(b.token, "GET", api.PathAudit+query, "")
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return p
	}
	type line struct {
		Who, Role, From, Action, Subject string
		Status                           int
	}
	var got []line
	for after, pages := int64(0), 0; pages < 10; pages++ {
		p := read("?limit=4&after=" + itoa(after))
		if len(p.Entries) == 0 {
			break
		}
		for _, e := range p.Entries {
			from, _, _ := strings.Cut(e.From, ":")
			got = append(got, line{e.Who, string(e.Role), from, e.Action, e.Subject, e.Status})
		}
		after = p.Next
	}
	const far = "192.0.2.7"
	want := []line{
		{"admin", "admin", far, "POST /api/v1/access", "grafana", 200},
		{"admin", "admin", far, "POST /api/v1/access", "alice", 200},
		{"admin", "admin", far, "POST /api/v1/sites", "s1", 200},
		{"admin", "admin", far, "POST /api/v1/sites", "s1", 409},
		{"grafana", "viewer", far, "PUT /api/v1/sites/s1/timezone", "s1", 403},
		{"alice", "operator", far, "PUT /api/v1/sites/s1/timezone", "s1", 200},
		{"stranger", "", far, "DELETE /api/v1/sites/s1/nodes/n1", "", 403},
		{"admin", "admin", far, "DELETE /api/v1/sites/s1/nodes/n1", "s1/n1", 404},
		{"socket", "admin", "uid " + itoa(int64(os.Getuid())), "POST /api/v1/sites", "s2", 200},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if p := read("?newest=1&limit=1"); len(p.Entries) != 1 || p.Entries[0].Subject != "s2" {
		t.Errorf("%+v", p)
	}
	for _, q := range []string{"?limit=0", "?limit=1001", "?after=-1", "?after=x"} {
		if w := b.as(b.token, "GET", api.PathAudit+q, ""); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", q, w.Code)
		}
	}
}

// Refusals are recorded up to a rate; the log cannot be filled by who may change nothing.
func TestRefusalsAreBounded(t *testing.T) {
	b := start(t, nil)
	viewer := b.access("v", api.RoleViewer)
	for range refusalBurst + 200 {
		b.as(viewer, "DELETE", "/api/v1/sites/s1/nodes/n1", "")
	}
	l, err := b.db.AuditLog(t.Context(), 0, 1000, false)
	if err != nil || len(l) < refusalBurst || len(l) > refusalBurst+190 {
		t.Errorf("%d entries, %v", len(l), err)
	}
}

// Who joins is in the log; tries without a token are there up to a rate, and no more than once each.
func TestStrangersInTheAudit(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	b.join("s1", "n1", api.TokenSpec{})
	if w := b.as("", "POST", api.PathEnrol, `{}`); w.Code != http.StatusForbidden {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	l, err := b.db.AuditLog(t.Context(), 0, 100, false)
	if err != nil || len(l) != 4 || l[2].Who != "stranger" || l[2].Subject != "s1/n1" || l[2].Status != 200 || l[3].Status != 403 {
		t.Errorf("%+v, %v", l, err)
	}
}

// No change is made whose entry cannot be written.
func TestNoChangeWithoutAudit(t *testing.T) {
	b := start(t, nil)
	closed := start(t, nil)
	closed.stop()
	b.audit.db = closed.db
	if w := b.as(b.token, "POST", api.PathSites, `{"name": "s1"}`); w.Code != http.StatusInternalServerError {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if l, err := b.db.Sites(t.Context()); err != nil || len(l) != 0 {
		t.Errorf("%v, %v", l, err)
	}
}
