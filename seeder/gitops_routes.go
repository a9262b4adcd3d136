package seeder

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// maxHook bounds the body of a webhook, which is hashed and not kept: GitHub sends at most 25 MB.
const maxHook = 25 << 20

func (s *Seeder) syncRoutes(handle func(string, string, route)) {
	handle("GET", api.PathSync, func(http.ResponseWriter, *http.Request) (any, error) { return s.follower.record().SyncState, nil })
	handle("POST", api.PathSync, func(_ http.ResponseWriter, r *http.Request) (any, error) {
		if err := s.follower.look(r.Context()); err != nil {
			return nil, err
		}
		return s.follower.record().SyncState, nil
	})
	handle("POST", api.PathSyncPrune, s.acceptPrune)
	handle("POST", api.PathGitHook, s.gitHook)
}

// acceptPrune lets exactly the commit in that is held.
func (s *Seeder) acceptPrune(w http.ResponseWriter, r *http.Request) (any, error) {
	var q api.PruneAccept
	if err := api.ReadJSON(w, r, api.MaxBody, &q); err != nil {
		return nil, err
	}
	q.Reason = strings.TrimSpace(q.Reason)
	f := s.follower
	rec := f.record()
	switch {
	case q.Reason == "":
		return nil, problem.New(problem.Usage, "no reason is given").WithNext("say why so much may go: --reason TEXT")
	case rec.Held == nil:
		return nil, problem.New(problem.NotFound, "no commit is held").WithNext("meshctl sync")
	case len(q.Commit) < 7 || !strings.HasPrefix(rec.Held.Commit, q.Commit):
		return nil, problem.New(problem.NotFound, "commit %.64q is not the one that is held, %.12s", q.Commit, rec.Held.Commit).WithNext("meshctl sync")
	}
	about(r, rec.Held.Commit[:12]+": "+q.Reason)
	if err := f.accept(r.Context(), rec.Held.Commit); err != nil {
		return nil, err
	}
	s.log.Info("held commit accepted", "commit", rec.Held.Commit, "who", callerOf(r.Context()).Name, "reason", q.Reason)
	if err := f.look(r.Context()); err != nil {
		return nil, err
	}
	return f.record().SyncState, nil
}

// gitHook takes the word of the repository's host that something has changed. All that follows is a look.
func (s *Seeder) gitHook(w http.ResponseWriter, r *http.Request) (any, error) {
	f := s.follower
	if f.cfg.Repository == "" || len(f.cfg.WebhookSecret) == 0 {
		return nil, problem.New(problem.NotFound, "this seeder takes no webhook of a Git repository").WithNext("start it with --git-webhook-secret-file")
	}
	got, err := hex.DecodeString(strings.TrimPrefix(r.Header.Get("X-Hub-Signature-256"), "sha256="))
	mac := hmac.New(sha256.New, f.cfg.WebhookSecret)
	n, readErr := io.Copy(mac, api.Body(w, r, maxHook))
	if err = errors.Join(err, readErr); err != nil || n == 0 || !hmac.Equal(got, mac.Sum(nil)) {
		return nil, problem.New(problem.Denied, "the webhook's signature is not right").WithDone("nothing was done").
			WithNext("give the repository's host the secret of --git-webhook-secret-file, and JSON as the content type")
	}
	select {
	case f.poked <- struct{}{}:
	default: // one that waits is enough
	}
	return nil, nil
}
