package seeder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/seeder/fleet"
	"github.com/patchmesh/patchmesh/seeder/gitops"
)

// How often the repository is looked at.
const (
	DefaultGitPoll = 3 * time.Minute
	MinGitPoll     = 10 * time.Second
	gitRest        = 2 * time.Second // between two looks, whoever asks for them
)

// GitConfig is the repository that the seeder follows. The zero value: none.
type GitConfig struct {
	Repository    string // https://, ssh://, file:// or a path
	Branch        string // default main
	Poll          time.Duration
	WebhookSecret []byte // of the host's HMAC; empty: no webhook
}

func (c *GitConfig) fill() error {
	if c.Repository == "" {
		return nil
	}
	if c.Branch == "" {
		c.Branch = "main"
	}
	if c.Poll == 0 {
		c.Poll = DefaultGitPoll
	}
	if c.Poll < MinGitPoll {
		return problem.New(problem.Usage, "the repository would be looked at every %s: want at least %s", c.Poll, MinGitPoll)
	}
	return (&gitops.Mirror{Repository: c.Repository, Branch: c.Branch}).Check()
}

// syncRecord is what is remembered of the repository.
type syncRecord struct {
	api.SyncState
	Time   time.Time `json:"time"`   // of the commit in force
	Keys   []string  `json:"keys"`   // fingerprints in its keys/
	Accept string    `json:"accept"` // the held commit that a person lets in
	Synced time.Time `json:"synced"` // when what the repository has was last found to be in force; zero: never
}

// follower follows the Git repository. One goroutine looks at it, whoever asks.
type follower struct {
	s      *Seeder
	cfg    GitConfig
	log    *slog.Logger
	mirror gitops.Mirror
	asked  chan chan struct{} // look now, and tell when it is done
	poked  chan struct{}      // look soon

	opened, unpublished bool // of the goroutine

	mu  sync.Mutex
	rec syncRecord
}

func loadFollower(ctx context.Context, s *Seeder) (*follower, error) {
	f := &follower{s: s, cfg: s.cfg.Git, log: s.log, asked: make(chan chan struct{}), poked: make(chan struct{}, 1),
		mirror: gitops.Mirror{Dir: filepath.Join(s.cfg.State, "git"), Repository: s.cfg.Git.Repository, Branch: s.cfg.Git.Branch}}
	b, err := s.db.Sync(ctx)
	if err != nil {
		return nil, err
	}
	if b != nil {
		if err := json.Unmarshal(b, &f.rec); err != nil {
			return nil, problem.New(problem.StoreDamaged, "the record of the Git repository in the seeder's database").Because(err)
		}
	}
	f.rec.Repository, f.rec.Branch, f.rec.Next = "", f.cfg.Branch, nil
	if f.cfg.Repository != "" {
		f.rec.Repository = f.mirror.Public()
	}
	return f, nil
}

func (f *follower) record() syncRecord {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rec
}

// change changes the record and persists it, with the policies that belong to it, before anybody sees it.
func (f *follower) change(ctx context.Context, change func(*syncRecord), ps ...fleet.Policy) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	rec := f.rec
	change(&rec)
	b, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("record of the git repository: %w", err)
	}
	if err := f.s.db.PutSync(ctx, b, ps...); err != nil {
		return err
	}
	f.rec = rec
	return nil
}

// accept remembers that a person lets a held commit in.
func (f *follower) accept(ctx context.Context, id string) error {
	return f.change(ctx, func(rec *syncRecord) { rec.Accept = id })
}

// run looks at the repository until ctx ends.
func (f *follower) run(ctx context.Context) error {
	if f.cfg.Repository == "" {
		return nil
	}
	var done chan struct{}
	for {
		f.turn(ctx)
		if done != nil {
			close(done)
			done = nil
		}
		wait := f.cfg.Poll + time.Duration(rand.Int64N(int64(f.cfg.Poll)/5)) - f.cfg.Poll/10
		next := f.s.now().Add(wait).UTC()
		f.mu.Lock()
		f.rec.Next = &next
		f.mu.Unlock()
		due := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			due.Stop()
			return nil
		case <-due.C:
		case <-f.poked:
			rest(ctx, gitRest)
		case done = <-f.asked:
		}
		due.Stop()
	}
}

func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// look has the repository looked at now, and waits for it.
func (f *follower) look(ctx context.Context) error {
	if f.cfg.Repository == "" {
		return problem.New(problem.NotFound, "this seeder follows no Git repository").WithNext("start it with --git-repository URL")
	}
	done := make(chan struct{})
	select {
	case f.asked <- done:
	case <-ctx.Done():
		return ctx.Err()
	case <-f.s.ctx.Done():
		return f.s.ctx.Err()
	}
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	case <-f.s.ctx.Done():
		return f.s.ctx.Err()
	}
	return nil
}

// turn looks once, and remembers what came of it. Whatever goes wrong, what is in force stays.
func (f *follower) turn(ctx context.Context) {
	was := f.record()
	err := f.sync(ctx)
	if ctx.Err() != nil {
		return
	}
	if f.unpublished {
		if err := f.publish(ctx); err != nil {
			f.log.Error("boards are not renewed; trying again", "err", err)
		}
	}
	words, code := "", ""
	if err != nil {
		f.s.metrics.syncs.Inc()
		words, code = err.Error(), string(problem.CodeOf(err))
		var p *problem.Error
		if !errors.As(err, &p) { // not about the repository
			words, code = "the seeder could not do it: see its log", string(problem.Internal)
			f.log.Error("git repository not followed", "err", err)
		}
	}
	if err := f.change(ctx, func(rec *syncRecord) {
		rec.Problem, rec.Code = words, code
		rec.Failures++
		if words == "" {
			rec.Synced = f.s.now().UTC()
			rec.Failures, rec.Refused, rec.Held = 0, "", nil
		}
	}); err != nil {
		f.log.Error("state of the git repository not written", "err", err)
	}
	rec := f.record()
	switch {
	case words != "" && words != was.Problem:
		f.log.Warn("what the git repository has is not in force", "commit", rec.Refused, "code", code, "problem", words)
		f.s.events.publish(api.Event{Kind: "sync", Name: "refused", Severity: "warning", Subject: rec.Refused, Text: words, Code: code})
	case words == "" && was.Problem != "" && was.Commit == rec.Commit:
		f.s.events.publish(api.Event{Kind: "sync", Name: "resolved", Subject: rec.Commit, Text: "what the repository has is in force"})
	}
}

// sync brings the newest commit in force, or says why not.
func (f *follower) sync(ctx context.Context) error {
	if !f.opened {
		if err := f.mirror.Open(ctx); err != nil {
			return problem.New(problem.GitUnreachable, "the mirror of the repository cannot be opened").Because(err)
		}
		f.opened = true
	}
	id, err := f.mirror.Fetch(ctx)
	if err != nil {
		f.opened = false // a mirror that is damaged is made anew
		return err
	}
	now := f.s.now().UTC()
	f.mu.Lock()
	f.rec.Checked = &now
	rec := f.rec
	f.mu.Unlock()
	if id == rec.Commit {
		return nil
	}
	err = f.take(ctx, id, rec)
	if err != nil {
		f.mu.Lock()
		f.rec.Refused = id
		if problem.CodeOf(err) != problem.PruneHeld {
			f.rec.Held = nil
		}
		f.mu.Unlock()
	}
	return err
}

// take judges a commit as a whole, and only then puts all of it in force at once.
func (f *follower) take(ctx context.Context, id string, rec syncRecord) error {
	snap, err := f.mirror.Snapshot(ctx, id)
	if err != nil {
		return err
	}
	v, err := f.verify(snap)
	if err != nil {
		return err
	}
	facts := gitops.Facts{Commit: snap.Commit, Signers: v.Signers, Now: f.s.now(), Last: rec.Commit, LastTime: rec.Time, LastKeys: rec.Keys, Policy: f.s.set.Policy.Fingerprints}
	for _, k := range snap.Keys {
		facts.Keys = append(facts.Keys, k.Fingerprint)
	}
	if rec.Commit != "" {
		if facts.Descends, err = f.mirror.Descends(ctx, rec.Commit, id); err != nil {
			return err
		}
	}
	if err := gitops.Judge(facts); err != nil {
		return err
	}
	sites, err := f.sites(snap)
	if err != nil {
		return err
	}
	f.s.desired.putting.Lock()
	defer f.s.desired.putting.Unlock()
	plan, err := f.plan(ctx, snap, rec.Commit)
	if err != nil {
		return err
	}
	if plan.removal.Held() && rec.Accept != id {
		f.hold(id, rec, plan.removal)
		return problem.New(problem.PruneHeld, "commit %.12s: %s", id, plan.removal).
			WithDone("nothing was changed; the last good commit stays in force").WithNext("meshctl sync --accept-prune %.12s --reason TEXT", id)
	}
	if err := f.putSites(ctx, sites); err != nil {
		return err
	}
	now := f.s.now().UTC()
	if err := f.change(ctx, func(next *syncRecord) {
		next.Time, next.Keys, next.Accept = snap.Commit.Time, facts.Keys, ""
		next.Commit, next.Author, next.Subject, next.Signer, next.Applied = id, snap.Commit.Author, snap.Commit.Subject, v.Signers[0], &now
		next.Held, next.Refused, next.Problem, next.Code = nil, "", "", ""
	}, plan.policies...); err != nil {
		return err
	}
	f.unpublished = true
	f.log.Info("git commit in force", "commit", id, "subject", snap.Commit.Subject, "signer", v.Signers[0], "policies", len(plan.policies), "removes", plan.removal.Removes)
	for _, p := range plan.policies {
		action := "put policy"
		if _, ok := snap.Policies[p.Name]; !ok {
			action = "withdraw policy"
		}
		f.audit(ctx, action, p.Name, fmt.Sprintf("commit %s by %s, revision %d", id, v.Signers[0], p.Revision))
		f.s.events.publish(api.Event{Kind: "policy", Name: "applied", Subject: p.Name, Policy: p.Name, Text: fmt.Sprintf("commit %.12s: %s", id, snap.Commit.Subject)})
	}
	f.s.events.publish(api.Event{Kind: "sync", Name: "applied", Subject: id, Text: snap.Commit.Subject})
	return f.s.desired.reload(ctx)
}

// verify says who signed the commit, by the keys that may sign policies.
func (f *follower) verify(snap *gitops.Snapshot) (trust.Verdict, error) {
	c := snap.Commit
	refuse := func(err error) error {
		p := problem.New(problem.CommitRefused, "commit %.12s, %.80q by %s, is not signed by an allowed key", c.ID, c.Subject, c.Author).
			WithDone("nothing was changed; the last good commit stays in force").
			WithNext("sign the newest commit of the branch with OpenPGP: git commit --amend --no-edit -S, or another commit with -S")
		if err != nil {
			p = p.Because(err)
		}
		return p
	}
	if len(c.Signature) == 0 {
		return trust.Verdict{}, refuse(nil)
	}
	v, err := f.s.set.Verify(trust.RolePolicy, trust.Signed{Doc: c.Payload, Sig: c.Signature}, f.s.trustedNow())
	if err == nil {
		err = v.CheckCreated(c.Time)
	}
	if err != nil {
		return v, refuse(err)
	}
	return v, nil
}

// hold remembers since when a commit waits.
func (f *follower) hold(id string, rec syncRecord, r policy.Removal) {
	held := &api.SyncHeld{Commit: id, Removes: r.Removes, Of: r.Of, Since: f.s.now().UTC()}
	if rec.Held != nil && rec.Held.Commit == id {
		held.Since = rec.Held.Since
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rec.Held = held
}

// publish renews the boards of all sites.
func (f *follower) publish(ctx context.Context) error {
	sites, err := f.s.db.Sites(ctx)
	if err != nil {
		return err
	}
	for _, x := range sites {
		if err := f.s.publish(ctx, x.Name); err != nil {
			return err
		}
	}
	f.unpublished = false
	return nil
}

// audit writes down what a commit changed.
func (f *follower) audit(ctx context.Context, action, subject, detail string) {
	f.s.audit.own(ctx, "git", f.mirror.Public(), action, subject, detail)
}
