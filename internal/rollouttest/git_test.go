package rollouttest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/csv"
	"encoding/hex"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/bed/gitrepo"
	"github.com/patchmesh/patchmesh/internal/bed/postgres"
)

const secret = "the repository's host knows it too"

// followed is a site whose seeder follows a Git repository.
type followed struct {
	*site
	repo *gitrepo.Repo
	key  string
}

func follow(t *testing.T, database string) *followed {
	s := newSite(t)
	f := &followed{site: s, repo: gitrepo.New(t)}
	f.key = f.repo.Key()
	f.write("ops.gpg", f.repo.Home.Export(f.key))
	f.write("hook", []byte(secret))
	shop := f.repo.Commit(f.key, "the shop", map[string]string{
		"sites/" + store + ".yaml": "name: " + store + "\ntimezone: America/New_York\nwan: {cap: 16Mbit}\n", "policies/README": "one file a policy\n"})
	flags := []string{"--policy-key", s.Path("ops.gpg"), "--git-repository", "file://" + f.repo.Dir, "--git-poll", "1h", "--git-webhook-secret-file", s.Path("hook")}
	if database != "" {
		flags = append(flags, "--database", database)
	}
	s.restart(flags...)
	f.inForce(shop)
	return f
}

func (f *followed) write(file string, b []byte) {
	f.Helper()
	f.must(os.WriteFile(f.Path(file), b, 0o600))
}

// commit commits a policy.
func (f *followed) commit(message, text string) string {
	f.Helper()
	return f.repo.Commit(f.key, message, map[string]string{"policies/" + name + ".yaml": text})
}

// hook tells the seeder as the repository's host does that something has changed. It would look an hour later.
func (f *followed) hook() {
	f.Helper()
	a, err := api.ReadAccess(f.seeder.Admin())
	f.must(err)
	body := []byte(`{"ref":"refs/heads/main"}`)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	for _, u := range a.URLs {
		if !strings.HasPrefix(u, "https:") {
			continue
		}
		q, err := http.NewRequestWithContext(f.ctx, "POST", u+api.PathGitHook, bytes.NewReader(body))
		f.must(err)
		q.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
		// The host of the repository does not know our certificate: the body is signed, and says nothing but "look".
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		defer client.CloseIdleConnections()
		answer, err := client.Do(q)
		f.must(err)
		defer answer.Body.Close()
		if answer.StatusCode/100 != 2 {
			f.Fatalf("webhook: %s", answer.Status)
		}
		return
	}
	f.Fatal("the seeder has no https address")
}

// inForce waits until a commit is.
func (f *followed) inForce(id string) {
	f.Helper()
	c := f.client()
	f.await("commit "+id[:12]+" is in force", func() (bool, string) {
		st, err := c.Sync(f.ctx)
		return err == nil && st.Commit == id && st.Problem == "", st.Commit + " " + st.Problem
	})
}

// refused waits until the seeder says why a commit is not in force, and that the last good one is.
func (f *followed) refused(id, good, code, why string) {
	f.Helper()
	c := f.client()
	f.await("commit "+id[:12]+" is refused", func() (bool, string) {
		st, err := c.Sync(f.ctx)
		return err == nil && st.Refused == id && st.Commit == good && st.Code == code, st.Code + " " + st.Problem
	})
	if said := f.meshctl("sync"); !strings.Contains(said, code) || !strings.Contains(said, why) || !strings.Contains(said, good[:12]) {
		f.Errorf("meshctl sync does not say %s, %q and %s:\n%s", code, why, good[:12], said)
	}
	if p := f.meshctl("policy", "list"); !strings.Contains(p, name) {
		f.Errorf("the policy is gone:\n%s", p)
	}
}

// A policy's whole life by commits: staged, batch after batch, one node that is ill and goes back by itself, commits that
// are refused and change nothing, the revert while everything runs, and what is known of all of it in the end.
func TestPolicyInGit(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { gitStory(follow(t, "")) })
	t.Run("PostgreSQL", func(t *testing.T) { gitStory(follow(t, postgres.Start(t).Fresh())) })
}

// Strategies: all nodes of the site together, and one after the other, each a batch of its own.
const (
	together = `batchSize: 100, batchDelayMinutes: 0, maxUnavailablePerSite: "100%"`
	inTurn   = "batchSize: 2, batchDelayMinutes: 0, maxUnavailablePerSite: 1, failureBudget: {max: 3}"
)

func gitStory(f *followed) {
	f.nodes(3)
	f.release("1")
	f.release("2")
	f.clinic.sick("2", "node-2")

	first := f.commit("default 1", f.text("1", always, together))
	f.hook()
	f.inForce(first)
	f.settled("version 1 is everywhere", "1", "1", "1")
	between := time.Now()

	second := f.commit("default 2", f.text("2", always, inTurn))
	f.hook()
	f.inForce(second)
	f.settled("version 2 is where it is well", "2", "1!", "2")
	f.receipts(2, 2, 2)
	c := f.client()
	f.await("the rollout is done", func() (bool, string) {
		r, err := c.Rollout(f.ctx, name)
		return err == nil && r.State == string(api.RolloutDone) && r.Failed == 1 && r.Settled == 3, r.State
	})
	if nodes, most := f.clinic.log("2"); len(nodes) != 3 || most != 1 {
		f.Errorf("%v were asked, %d at a time, want all, 1 at a time", nodes, most)
	}

	unsigned := f.repo.Commit("", "default 1, and nobody signed it", map[string]string{"policies/" + name + ".yaml": f.text("1", always, together)})
	f.hook()
	f.refused(unsigned, second, "E2112", "not signed by an allowed key")
	f.repo.Git("reset", "--quiet", "--hard", second)
	empty := f.repo.Commit(f.key, "clean up", map[string]string{"policies/" + name + ".yaml": "", "policies/README": "", "sites/" + store + ".yaml": ""})
	f.hook()
	f.refused(empty, second, "E2112", "policies")
	f.repo.Git("reset", "--quiet", "--hard", second)
	withdrawn := f.repo.Commit(f.key, "nothing is managed", map[string]string{"policies/" + name + ".yaml": ""})
	f.hook()
	f.refused(withdrawn, second, "E1206", "--accept-prune "+withdrawn[:12])
	f.repo.Git("reset", "--quiet", "--hard", second)

	f.undo(second)
	f.settled("version 1 is everywhere again", "1", "1", "1")
	got := f.receipts(3, 3, 3)
	for node, want := range map[string]string{
		"node-1": "->1 success, 1->2 success, 2->1 success",
		"node-2": "->1 success, 1->1 rolled_back, 1->1 success",
		"node-3": "->1 success, 1->2 success, 2->1 success",
	} {
		if s := strings.Join(got[node], ", "); s != want {
			f.Errorf("receipts of %s: %s, want %s", node, s, want)
		}
	}
	f.complies(between, first)
}

// undo takes a commit back by the command that operators have, and merges what it pushed.
func (f *followed) undo(id string) {
	f.Helper()
	f.must(exec.CommandContext(f.ctx, "git", "clone", "--quiet", f.repo.Dir, f.Path("clone")).Run())
	f.seeder.Env = []string{"GNUPGHOME=" + f.repo.Home.Dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"}
	undo := []string{"rollout", "undo", name, "--repo", f.Path("clone"), "--gpg", f.key, "--push", "--yes"}
	if _, err := f.seeder.Meshctl(f.ctx, undo...); err == nil || !strings.Contains(err.Error(), "user.email") {
		f.Errorf("nobody has told git who commits: %v", err)
	}
	f.seeder.Env = append(f.seeder.Env, "GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.org", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.org")
	f.Log("\n" + f.meshctl(undo...))
	f.repo.Git("merge", "--quiet", "--ff-only", "meshctl/revert-"+id[:12])
	f.hook()
	f.inForce(f.repo.Git("rev-parse", "HEAD"))
}

// complies asks what ran before the second commit, and who signed for it.
func (f *followed) complies(asOf time.Time, commit string) {
	f.Helper()
	out := f.meshctl("compliance", "--as-of", asOf.UTC().Format(time.RFC3339Nano), "-o", "csv")
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	f.must(err)
	f.Log("\n" + out)
	if len(rows) != 1+len(f.shop.Nodes) {
		f.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows[1:] {
		got := map[string]string{}
		for i, column := range rows[0] {
			got[column] = row[i]
		}
		if got["version"] != "1" || got["commit"] != commit || got["outcome"] != "success" || !strings.EqualFold(got["signed_by"], f.key) {
			f.Errorf("%v, want version 1, commit %s, signed by %s", got, commit, f.key)
		}
	}
}
