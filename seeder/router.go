package seeder

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// written is what a route returns that has answered itself: a stream, a chunk, metrics.
type written struct{}

// router puts before every route what all have in common: who may, what is written down, what is asked twice.
type router struct {
	s          *Seeder
	mux        *http.ServeMux
	table      map[string]operation
	registered []string // "METHOD path", in the order in which they came
}

func newRouter(s *Seeder) *router {
	x := &router{s: s, mux: http.NewServeMux(), table: operations()}
	x.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, problem.New(problem.NotFound, "%s %.120q is not part of the API", r.Method, r.URL.Path))
	})
	return x
}

// handle adds a route. What is not in the table of operations is for administrators.
func (x *router) handle(method, path string, fn route) {
	name := method + " " + path
	op, ok := x.table[name]
	if !ok {
		op = operation{least: api.RoleAdmin}
	}
	x.registered = append(x.registered, name)
	x.mux.HandleFunc(name, func(w http.ResponseWriter, r *http.Request) { x.serve(w, r, op, fn) })
}

// open is the paths that need no token.
func (x *router) open() map[string]bool {
	out := map[string]bool{}
	for _, name := range x.registered {
		if op, ok := x.table[name]; ok && op.least == anyone {
			_, path, _ := strings.Cut(name, " ")
			out[path] = true
		}
	}
	return out
}

func (x *router) ServeHTTP(w http.ResponseWriter, r *http.Request) { x.mux.ServeHTTP(w, r) }

func (x *router) serve(w http.ResponseWriter, r *http.Request, op operation, fn route) {
	c := callerOf(r.Context())
	if !may(op.least, c.Role) {
		err := denied(r, op.least, c)
		x.s.audit.refused(r, http.StatusForbidden, err.Error())
		x.s.fail(w, r, err)
		return
	}
	if !changes(r.Method) {
		v, err := fn(w, r)
		x.s.answer(w, r, replyOf(v, err), err)
		return
	}
	m := &matter{subject: pathSubject(r)}
	r = r.WithContext(withMatter(r.Context(), m))
	if c.Role == anyone {
		x.stranger(w, r, op, fn, m)
		return
	}
	var id int64
	if !op.quiet {
		var err error
		if id, err = x.s.audit.begin(r); err != nil {
			x.s.fail(w, r, err)
			return
		}
	}
	a, err := x.s.once.do(w, r, op, fn)
	if !op.quiet {
		x.s.audit.end(r.Context(), id, a.status, m.subject, err)
	}
	x.s.answer(w, r, a, err)
}

// stranger serves who proves itself by what it asks with. What was done is in the audit log; what was not is there as
// refusals are, up to a rate: nobody without a token fills the disk.
func (x *router) stranger(w http.ResponseWriter, r *http.Request, op operation, fn route, m *matter) {
	v, err := fn(w, r)
	a := replyOf(v, err)
	switch {
	case op.quiet:
	case err != nil:
		x.s.audit.refused(r, a.status, err.Error())
	default:
		x.s.audit.done(r, a.status, m.subject)
	}
	x.s.answer(w, r, a, err)
}

func denied(r *http.Request, least api.Role, c caller) error {
	if c.Role == anyone {
		return problem.New(problem.Denied, "%s %.120q needs a token", r.Method, r.URL.Path).
			WithNext("use the seeder's admin.json as --config, its unix socket, or a token: meshctl access create")
	}
	return problem.New(problem.Denied, "%s %.120q is not for %s, who is %s: it needs %s", r.Method, r.URL.Path, c.Name, c.Role, least).
		WithNext("ask an administrator for another token: meshctl access create")
}

// reply is an answer that is not sent yet. Status 0: it was, by the route itself.
type reply struct {
	status int
	kind   string // media type
	body   []byte
}

// replyOf makes the answer of what a route returned.
func replyOf(v any, err error) reply {
	if err == nil {
		switch v := v.(type) {
		case nil:
			return reply{status: http.StatusNoContent}
		case written:
			return reply{}
		default:
			var body []byte
			if body, err = json.Marshal(v); err == nil {
				return reply{http.StatusOK, "application/json", append(body, '\n')}
			}
		}
	}
	status, body := api.ErrorBody(err)
	return reply{status, api.ProblemType, body}
}

// answer sends a reply. err is what it came of: what people do not read of it goes to the log.
func (s *Seeder) answer(w http.ResponseWriter, r *http.Request, a reply, err error) {
	var p *problem.Error
	if err != nil && !errors.As(err, &p) && r.Context().Err() == nil {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if a.status == 0 {
		return
	}
	h := w.Header()
	if a.status == http.StatusOK && r.Method != http.MethodPost {
		tag := etag(a.body)
		h.Set("Etag", tag)
		if !changes(r.Method) {
			h.Set("Cache-Control", "private, no-cache")
			if listed(r.Header.Get("If-None-Match"), tag) {
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
	}
	if a.kind != "" {
		h.Set("Content-Type", a.kind)
		h.Set("X-Content-Type-Options", "nosniff")
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the reader is gone; there is nobody to tell
}

// etag names a representation by its bytes.
func etag(body []byte) string {
	h := sha256.Sum256(body)
	return `"` + hex.EncodeToString(h[:16]) + `"`
}

// listed reports whether a list of entity tags has one, or is for any. RFC 9110 section 13.1.
func listed(list, tag string) bool {
	for t := range strings.SplitSeq(list, ",") {
		if t = strings.TrimSpace(t); t == "*" || strings.TrimPrefix(t, "W/") == tag {
			return true
		}
	}
	return false
}

// unchanged refuses a change that was made to something else than what is there now, if the request says to what it was
// made. now is what a GET would answer. The caller holds what keeps it from changing.
func unchanged(r *http.Request, subject string, now any) error {
	list := r.Header.Get("If-Match")
	if list == "" {
		return nil
	}
	if a := replyOf(now, nil); a.status != http.StatusOK || strings.Contains(list, "W/") || !listed(list, etag(a.body)) {
		return problem.New(problem.ChangedMeanwhile, "%s is not as it was when it was read", subject).WithDone("nothing was changed").
			WithNext("read it again, and make the change to that")
	}
	return nil
}

// pageIn reads the cursor and the size of a page.
func pageIn(r *http.Request, usual, most int) (after int64, limit int, err error) {
	v := r.URL.Query()
	limit = usual
	if t := v.Get("after"); t != "" {
		after, err = strconv.ParseInt(t, 10, 64)
	}
	if t := v.Get("limit"); t != "" && err == nil {
		limit, err = strconv.Atoi(t)
	}
	if err == nil && (limit < 1 || limit > most || after < 0) {
		err = errors.New("want after at least 0, limit 1 to " + strconv.Itoa(most))
	}
	if err != nil {
		return 0, 0, problem.New(problem.Usage, "query %.120q", r.URL.RawQuery).Because(err)
	}
	return after, limit, nil
}

// nextPage says where the list goes on, where it was cut: RFC 8288.
func nextPage(w http.ResponseWriter, r *http.Request, after string) {
	q := r.URL.Query()
	q.Set("after", after)
	u := url.URL{Path: r.URL.Path, RawQuery: q.Encode()}
	w.Header().Set("Link", "<"+u.String()+`>; rel="next"`)
}
