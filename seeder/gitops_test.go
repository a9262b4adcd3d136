package seeder

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/bed/gitrepo"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

const hookSecret = "a secret of the webhook"

// gitBed is a seeder that follows a repository.
type gitBed struct {
	*bed
	r             *gitrepo.Repo
	key, stranger string
}

func startGit(t *testing.T) *gitBed {
	t.Helper()
	r := gitrepo.New(t)
	g := &gitBed{r: r, key: r.Key(), stranger: r.Key()}
	keys, err := trust.ReadKeys(r.Home.Export(g.key))
	if err != nil {
		t.Fatal(err)
	}
	rk, err := trust.NewRoleKeys(1, keys...)
	if err != nil {
		t.Fatal(err)
	}
	g.bed = start(t, func(c *Config) {
		c.Policy = rk
		c.Git = GitConfig{Repository: r.Dir, Poll: time.Hour, WebhookSecret: []byte(hookSecret)}
	})
	return g
}

// text is a policy of one name for nodes with role=NAME.
func text(name string, x *chunker.Bundle, more string) string {
	return fmt.Sprintf(`apiVersion: patchmgmt.io/v1
kind: PatchPolicy
metadata: {name: %s}
spec:
  bundleRef: {name: app, version: "%s", checksum: "%s"}
  targets: {selector: {matchLabels: {role: %s}}}
%s`, name, x.Manifest.Version, x.Digest, name, more)
}

func (g *gitBed) now() api.SyncState {
	g.t.Helper()
	s, err := g.admin.SyncNow(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

// taken wants the commit to be in force.
func (g *gitBed) taken(what, commit string) api.SyncState {
	g.t.Helper()
	s := g.now()
	if s.Commit != commit || s.Problem != "" || s.Refused != "" || s.Held != nil || s.Failures != 0 {
		g.t.Fatalf("%s: %+v, want %s in force", what, s, commit)
	}
	return s
}

// refused wants the newest commit not to be in force, for the reason, and everything as it was.
func (g *gitBed) refused(what, last string, code problem.Code, word string) api.SyncState {
	g.t.Helper()
	was := g.inForce()
	s := g.now()
	if s.Commit != last || s.Code != string(code) || !strings.Contains(s.Problem, word) || s.Failures == 0 {
		g.t.Errorf("%s: %+v, want %s with %q", what, s, code, word)
	}
	if is := g.inForce(); is != was {
		g.t.Errorf("%s: in force %s, was %s", what, is, was)
	}
	return s
}

func (g *gitBed) inForce() string {
	g.t.Helper()
	ps, err := g.admin.Policies(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	var out []string
	for _, p := range ps {
		if _, _, err := policy.Open(&g.set, p.Document, time.Now()); err != nil {
			g.t.Errorf("a node would not take policy %s: %v", p.Name, err)
		}
		version := p.Version
		if p.Deleted {
			version = "deleted"
		}
		out = append(out, p.Name+"="+version)
	}
	return strings.Join(out, " ")
}

func TestGitOps(t *testing.T) {
	g := startGit(t)
	r := g.r
	one, two := g.bundle("1.0", 1, g.release), g.bundle("2.0", 2, g.release)
	g.push(one, -1)

	if s := g.now(); s.Code != string(problem.GitUnreachable) || s.Commit != "" {
		t.Errorf("a repository without a branch: %+v", s)
	}
	r.Commit("", "begin", map[string]string{"policies/README": "x", "policies/pos.yaml": text("pos", one, "")})
	g.refused("unsigned", "", problem.CommitRefused, "not signed")
	r.Commit(g.stranger, "theirs", nil)
	g.refused("another's key", "", problem.CommitRefused, "not signed by an allowed key")
	first := r.Commit(g.key, "ours", map[string]string{"sites/store-1.yaml": "name: store-1\ntimezone: Europe/Berlin\nwan: {cap: 6Mbit, perDay: \"0\", rules: []}\n"})
	if s := g.taken("signed", first); s.Signer != g.key || s.Subject != "ours" {
		t.Errorf("%+v", s)
	}
	if got := g.inForce(); got != "pos=1.0" {
		t.Errorf("in force: %s", got)
	}
	if s, err := g.admin.SiteWAN(t.Context(), "store-1"); err != nil || s.Cap != "6Mbit" {
		t.Errorf("site of the repository: %+v, %v", s, err)
	}

	r.Commit(g.key, "not pushed", map[string]string{"policies/pos.yaml": text("pos", two, "")})
	g.refused("bundle is not there", first, problem.NotFound, "no published bundle")
	g.push(two, -1)
	second := r.Git("rev-parse", "HEAD")
	g.taken("bundle is there now", second)
	if got := g.inForce(); got != "pos=2.0" {
		t.Errorf("in force: %s", got)
	}

	r.Commit(g.key, "broken", map[string]string{"policies/pos.yaml": "kind: nothing\n", "policies/fine.yaml": text("fine", one, "")})
	g.refused("parse error", second, problem.InvalidPolicy, "policies/pos.yaml")
	r.Commit(g.key, "typo", map[string]string{"policies/pos.yaml": text("pos", two, ""), "policies/fine.yaml": "", "policies/kiosk.yml": "x"})
	g.refused("misspelt", second, problem.CommitRefused, "kiosk.yml")
	r.Commit(g.key, "name", map[string]string{"policies/kiosk.yml": "", "policies/other.yaml": text("fine", one, "")})
	g.refused("another name", second, problem.InvalidPolicy, "call it fine.yaml")
	r.Commit(g.key, "no directory", map[string]string{"policies/other.yaml": "", "policies/pos.yaml": "", "policies/README": ""})
	g.refused("policies/ is missing", second, problem.CommitRefused, "no directory policies")
	r.Commit(g.key, "site", map[string]string{"policies/pos.yaml": text("pos", two, ""), "sites/store-1.yaml": "name: store-2\n"})
	g.refused("bad site", second, problem.InvalidFile, "sites/store-1.yaml")
	r.Commit(g.key, "older by hand", map[string]string{"policies/pos.yaml": text("pos", one, ""), "sites/store-1.yaml": "name: store-1\n"})
	g.refused("older", second, problem.SequenceTooOld, "sequence 1")

	// The same older bundle by a revert is meant.
	good := r.Commit(g.key, "good again", map[string]string{"policies/pos.yaml": text("pos", two, "")})
	g.taken("put right", good)
	r.Git("checkout", "-q", "-b", "undo", second)
	r.Now = time.Now().Add(-30 * time.Minute).Truncate(time.Second)
	reverted := r.Revert(g.key, second)
	g.stop()
	g.run() // what is in force survives
	if s, err := g.admin.Sync(t.Context()); err != nil || s.Commit != good {
		t.Errorf("after a restart: %+v, %v", s, err)
	}
	r.Git("checkout", "-q", "main")
	r.Now = time.Now().Add(-20 * time.Minute).Truncate(time.Second)
	r.Git("merge", "-q", "--no-ff", "--no-commit", "undo", "-X", "theirs")
	merged := r.Commit(g.key, "Merge the revert", nil)
	g.taken("merge of a revert", merged)
	if got := g.inForce(); got != "pos=1.0" {
		t.Errorf("in force: %s", got)
	}
	h, err := g.admin.PolicyHistory(t.Context(), "pos")
	if err != nil || len(h) != 3 || h[0].Commit != reverted || h[0].Reverts != h[1].Revision || h[0].SignedBy != g.key || h[1].Commit != second || h[2].Commit != first {
		t.Errorf("history: %+v, %v", h, err)
	}

	// A branch that was rewritten.
	r.Git("reset", "-q", "--hard", first)
	r.Now = time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	r.Commit(g.key, "rewritten", map[string]string{"policies/pos.yaml": text("pos", two, "")})
	g.refused("not a descendant", merged, problem.CommitRefused, "does not come after")
	if err := os.Rename(r.Dir+"/.git", r.Dir+"/gone"); err != nil {
		t.Fatal(err)
	}
	g.refused("repository is gone", merged, problem.GitUnreachable, "")
}

// What was given by hand becomes the repository's with the first commit that has a file of its name, be it the same text:
// the policy is withdrawn when the file goes.
func TestGitTakesOver(t *testing.T) {
	g := startGit(t)
	x := g.bundle("1.0", 1, g.release)
	g.push(x, -1)
	for _, name := range []string{"pos", "mine"} {
		if _, err := g.db.PutPolicy(t.Context(), fleet.Policy{Name: name, Revision: 1, Document: g.signed(text(name, x, ""), 1, g.operator), Recorded: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.desired.reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.taken("the same text", g.r.Commit(g.key, "begin", map[string]string{"policies/README": "x", "policies/pos.yaml": text("pos", x, "")}))
	g.taken("without it", g.r.Commit(g.key, "end", map[string]string{"policies/pos.yaml": ""}))
	var deleted []string
	for _, w := range g.desired.all() {
		if w.document.Deleted {
			deleted = append(deleted, w.Name)
		}
	}
	if len(deleted) != 1 || deleted[0] != "pos" {
		t.Errorf("deleted: %v", deleted)
	}
	log, err := g.db.AuditLog(t.Context(), 0, 10, false)
	var did []string
	for _, e := range log {
		if e.Who == "git" {
			did = append(did, e.Action+" "+e.Subject)
		}
	}
	if got := strings.Join(did, ", "); err != nil || got != "put policy pos, withdraw policy pos" {
		t.Errorf("audit: %s, %v", got, err)
	}
}

func TestGitHoldsMassRemoval(t *testing.T) {
	g := startGit(t)
	x := g.bundle("1.0", 1, g.release)
	g.push(x, -1)
	files := map[string]string{"policies/.keep": "x\n"}
	g.site("shop")
	for i := range 5 {
		name := fmt.Sprintf("p%d", i)
		files["policies/"+name+".yaml"] = text(name, x, "")
		for range 1 + i/4*4 { // the last has five nodes of nine
			g.join("shop", fmt.Sprintf("%s-%d", name, len(g.members.all())), api.TokenSpec{Labels: map[string]string{"role": name}})
		}
	}
	first := g.r.Commit(g.key, "begin", files)
	g.taken("begin", first)
	second := g.r.Commit(g.key, "one of nine", map[string]string{"policies/p0.yaml": ""})
	g.taken("a small removal", second)
	if got := g.inForce(); got != "p0=deleted p1=1.0 p2=1.0 p3=1.0 p4=1.0" {
		t.Errorf("in force: %s", got)
	}
	third := g.r.Commit(g.key, "five of eight", map[string]string{"policies/p4.yaml": ""})
	s := g.refused("a large one", second, problem.PruneHeld, "5 of 8")
	if s.Held == nil || s.Held.Commit != third || s.Held.Removes != 5 || s.Held.Of != 8 {
		t.Errorf("held: %+v", s.Held)
	}
	since := s.Held.Since
	g.stop()
	g.run()
	if s := g.refused("still held", second, problem.PruneHeld, "5 of 8"); s.Held == nil || !s.Held.Since.Equal(since) {
		t.Errorf("held: %+v, since %s", s.Held, since)
	}
	_, err := g.admin.AcceptPrune(t.Context(), api.PruneAccept{Commit: second, Reason: "wrong one"})
	wantCode(t, "another commit", err, problem.NotFound)
	_, err = g.admin.AcceptPrune(t.Context(), api.PruneAccept{Commit: third})
	wantCode(t, "no reason", err, problem.Usage)
	s, err = g.admin.AcceptPrune(t.Context(), api.PruneAccept{Commit: third[:12], Reason: "stores closed"})
	if err != nil || s.Commit != third || s.Held != nil || s.Problem != "" {
		t.Errorf("accepted: %+v, %v", s, err)
	}
	if got := g.inForce(); got != "p0=deleted p1=1.0 p2=1.0 p3=1.0 p4=deleted" {
		t.Errorf("in force: %s", got)
	}
	log, err := g.db.AuditLog(t.Context(), 0, 1000, false)
	if err != nil {
		t.Fatal(err)
	}
	var accepted, byGit int
	for _, e := range log {
		if strings.Contains(e.Subject, "stores closed") {
			accepted++
		}
		if e.Who == "git" {
			byGit++
		}
	}
	if accepted != 1 || byGit != 7 {
		t.Errorf("audit: %d entries of the acceptance, %d of git", accepted, byGit)
	}
}

func TestGitKeysNarrow(t *testing.T) {
	g := startGit(t)
	x := g.bundle("1.0", 1, g.release)
	g.push(x, -1)
	ours, theirs := string(g.r.Home.Run(time.Time{}, nil, "--armor", "--export", g.key)), string(g.r.Home.Run(time.Time{}, nil, "--armor", "--export", g.stranger))
	g.r.Commit(g.key, "keys of others only", map[string]string{"policies/pos.yaml": text("pos", x, ""), "keys/x.asc": theirs})
	g.refused("locks itself out", "", problem.CommitRefused, "keys/")
	g.r.Commit(g.key, "no key", map[string]string{"keys/x.asc": "hello"})
	g.refused("no key", "", problem.CommitRefused, "keys/x.asc")
	both := g.r.Commit(g.key, "both", map[string]string{"keys/x.asc": theirs, "keys/y.asc": ours})
	g.taken("both", both)
	// A key that stands in keys/ and is no policy key of the seeder may not sign.
	g.r.Commit(g.stranger, "widened", map[string]string{"policies/pos.yaml": text("pos", x, "  suspend: true\n")})
	g.refused("keys/ cannot widen", both, problem.CommitRefused, "not signed by an allowed key")
}

func TestGitHook(t *testing.T) {
	g := startGit(t)
	body := []byte(`{"ref":"refs/heads/main"}`)
	send := func(secret string) int {
		t.Helper()
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(body)
		q, err := http.NewRequestWithContext(t.Context(), "POST", api.PathGitHook, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
		w := httptest.NewRecorder()
		trusted(g.routes()).ServeHTTP(w, q)
		return w.Code
	}
	drain := func() (n int) {
		for {
			select {
			case <-g.follower.poked:
				n++
			default:
				return n
			}
		}
	}
	g.stop() // so that nobody takes what is poked
	if code := send("another secret of it"); code != http.StatusForbidden || drain() != 0 {
		t.Errorf("wrong secret: %d", code)
	}
	if code := send(hookSecret); code != http.StatusNoContent {
		t.Errorf("right secret: %d", code)
	}
	if code := send(hookSecret); code != http.StatusNoContent || drain() != 1 {
		t.Errorf("the second in a row: %d", code)
	}
	if !g.routes().open()[api.PathGitHook] {
		t.Error("the guard does not let webhooks pass")
	}
}
