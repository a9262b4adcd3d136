// Package gitrepo gives tests a Git repository made by the real git, with commits signed by the real gpg. It is for tests
// only and not safe for concurrent use.
package gitrepo

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/bed/gpghome"
)

// Repo is a repository with a work tree and the branch main. Commits are an hour apart and end about now.
type Repo struct {
	t    testing.TB
	Dir  string
	Home *gpghome.Home
	Now  time.Time // of the next commit
}

// New makes an empty repository, or skips the test where git or gpg is not installed; extra are more options of git init.
func New(t testing.TB, extra ...string) *Repo {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git: apt-get install git")
	}
	r := &Repo{t: t, Dir: t.TempDir(), Home: gpghome.New(t), Now: time.Now().Add(-20 * time.Hour).Truncate(time.Second)}
	r.Git(append([]string{"init", "--quiet", "--template=", "--initial-branch=main"}, extra...)...)
	return r
}

// Key makes a key that signs commits and returns its fingerprint. It is older than every commit.
func (r *Repo) Key() string {
	r.t.Helper()
	return r.Home.Key(r.Now.Add(-24*time.Hour), "ed25519", "sign", "never", "--allow-freeform-uid")
}

// Git runs git in the repository and returns what it says, without the end of the line.
func (r *Repo) Git(args ...string) string {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "git", append([]string{"-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0"}, args...)...)
	cmd.Dir = r.Dir
	date := fmt.Sprintf("%d +0000", r.Now.Unix())
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "GIT_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GNUPGHOME="+r.Home.Dir, "LC_ALL=C",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.org", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.org",
		"GIT_AUTHOR_DATE="+date, "GIT_COMMITTER_DATE="+date)
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimRight(string(out), "\n")
}

// Write writes files below the work tree; an empty text removes one.
func (r *Repo) Write(files map[string]string) {
	r.t.Helper()
	for name, text := range files {
		name = filepath.Join(r.Dir, name)
		if text == "" {
			if err := os.Remove(name); err != nil {
				r.t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
}

// Commit commits the files, signed with the key, or not at all where it is empty, and returns the commit.
func (r *Repo) Commit(key, message string, files map[string]string) string {
	r.t.Helper()
	r.Write(files)
	r.Git("add", "-A")
	return r.commit(key, "commit", "--quiet", "--allow-empty", "-m", message)
}

// Revert reverts a commit, signed.
func (r *Repo) Revert(key, id string) string {
	r.t.Helper()
	return r.commit(key, "revert", "--no-edit", id)
}

// Merge merges a branch into the one that is checked out, signed.
func (r *Repo) Merge(key, branch string) string {
	r.t.Helper()
	return r.commit(key, "merge", "--quiet", "--no-ff", "-m", "Merge "+branch, branch)
}

func (r *Repo) commit(key string, args ...string) string {
	r.t.Helper()
	if key != "" {
		args = append([]string{args[0], "--gpg-sign=" + key}, args[1:]...)
	}
	r.Git(args...)
	r.Now = r.Now.Add(time.Hour)
	return r.Git("rev-parse", "HEAD")
}

// Object returns the bytes of an object, as in "HEAD" or "HEAD^{tree}".
func (r *Repo) Object(kind, name string) []byte {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "git", "cat-file", kind, name)
	cmd.Dir = r.Dir
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("git cat-file %s %s: %v", kind, name, err)
	}
	return out
}
