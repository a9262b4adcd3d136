package seeder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// Limits of idempotency keys.
const (
	keepAnswers = 24 * time.Hour
	maxKey      = 128 // bytes
)

// once makes a change that is asked for with a key one time, and answers who asks again as the first time. An answer that
// says to try again, or that something broke, is not kept. A kill between the change and its answer leaves no answer: asked
// again, the change itself says that it was made.
type once struct {
	db  *fleet.Store
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	busy map[[2]string]bool // caller and key of what is being served
}

func newOnce(db *fleet.Store, log *slog.Logger, now func() time.Time) *once {
	return &once{db: db, log: log, now: now, busy: map[[2]string]bool{}}
}

// do calls a route, unless its answer is known.
func (o *once) do(w http.ResponseWriter, r *http.Request, op operation, fn route) (reply, error) {
	key := r.Header.Get(api.HeaderIdempotency)
	if key == "" || op.quiet {
		v, err := fn(w, r)
		return replyOf(v, err), err
	}
	a, err := o.keyed(w, r, key, op, fn)
	if err != nil {
		return replyOf(nil, err), err
	}
	return a.reply, a.err
}

// outcome is a reply and the error that it says.
type outcome struct {
	reply
	err error
}

func (o *once) keyed(w http.ResponseWriter, r *http.Request, key string, op operation, fn route) (outcome, error) {
	if len(key) > maxKey || strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return outcome{}, problem.New(problem.Usage, "%s: want at most %d visible ASCII characters", api.HeaderIdempotency, maxKey)
	}
	body, err := io.ReadAll(api.Body(w, r, api.MaxBody))
	if err != nil {
		return outcome{}, problem.New(problem.InvalidFile, "with %s a request has at most %d bytes", api.HeaderIdempotency, api.MaxBody).Because(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	who := callerOf(r.Context()).Name
	id := [2]string{who, key}
	if !o.claim(id) {
		return outcome{}, problem.New(problem.KeyReused, "a request with the key %q is still being served", key).WithNext("wait for its answer")
	}
	defer o.free(id)
	request := sha256.Sum256(append(fmt.Appendf(nil, "%s %s\n", r.Method, r.URL.RequestURI()), body...))
	now := o.now()
	before, ok, err := o.db.Answer(r.Context(), who, key, now.Add(-keepAnswers))
	switch {
	case err != nil:
		return outcome{}, err
	case ok && before.Request != request:
		return outcome{}, problem.New(problem.KeyReused, "the key %q was used for something else", key).WithDone("nothing was done").WithNext("take another key")
	case ok && op.secret && before.Status == http.StatusOK:
		return outcome{}, problem.New(problem.KeyReused, "what the key %q asks for was done; the secret was in that answer and is not kept", key).
			WithDone("nothing was done again").WithNext("if that answer was lost, revoke what it made and ask again with another key")
	case ok:
		w.Header().Set("Idempotency-Replayed", "true")
		return outcome{reply: reply{before.Status, before.Kind, before.Body}}, nil
	}
	v, err := fn(w, r)
	a := outcome{replyOf(v, err), err}
	if a.status < 500 && a.status != http.StatusTooManyRequests {
		kept := fleet.Answer{Who: who, Key: key, Request: request, At: now, Status: a.status, Kind: a.kind, Body: a.body}
		if op.secret {
			kept.Body = nil
		}
		if err := o.db.PutAnswer(context.WithoutCancel(r.Context()), kept, now.Add(-keepAnswers)); err != nil {
			o.log.Error("answer not kept", "action", r.Method+" "+r.URL.Path, "err", err)
		}
	}
	return a, nil
}

func (o *once) claim(id [2]string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.busy[id] {
		return false
	}
	o.busy[id] = true
	return true
}

func (o *once) free(id [2]string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.busy, id)
}
