package policy_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/bed/gitrepo"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

func gitText(t testing.TB, version string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/supported.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), p.Bundle.Version, version)
}

const gitName = "retail-pos-prod"
const gitFile = "policies/" + gitName + ".yaml"

func trusted(t testing.TB, r *gitrepo.Repo, keys ...string) *trust.Set {
	t.Helper()
	ks, err := trust.ReadKeys(r.Home.Export(keys...))
	if err != nil {
		t.Fatal(err)
	}
	role, err := trust.NewRoleKeys(1, ks...)
	if err != nil {
		t.Fatal(err)
	}
	return &trust.Set{Policy: role}
}

// objects are those that prove what a commit holds for the policy.
func objects(r *gitrepo.Repo, id string, text string) policy.GitObjects {
	return policy.GitObjects{Name: gitName, Commit: r.Object("commit", id), Root: r.Object("tree", id+"^{tree}"),
		Policies: r.Object("tree", id+":policies"), Policy: []byte(text)}
}

func TestGitProof(t *testing.T) {
	for _, format := range []string{"sha1", "sha256"} {
		t.Run(format, func(t *testing.T) {
			r := gitrepo.New(t, "--object-format="+format)
			k := r.Key()
			set := trusted(t, r, k)
			r.Commit(k, "begin", map[string]string{"policies/README": "x", gitFile: gitText(t, "1.0"), "sites/a.yaml": "name: a\n"})
			second := r.Commit(k, "to 2.0", map[string]string{gitFile: gitText(t, "2.0")})
			third := r.Revert(k, second)
			gone := r.Commit(k, "withdraw", map[string]string{gitFile: ""})

			open := func(o policy.GitObjects) (*policy.Document, *policy.Policy) {
				t.Helper()
				s, err := policy.NewGit(o)
				if err != nil {
					t.Fatal(err)
				}
				d, p, err := policy.Open(set, s, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := d.Encode(); err == nil {
					t.Error("a proof is written as if it were signed by hand")
				}
				return d, p
			}
			d2, p := open(objects(r, second, gitText(t, "2.0")))
			if d2.Name != gitName || p.Bundle.Version != "2.0" || d2.Commit.ID != second || d2.Reverts != 0 || d2.Commit.Subject != "to 2.0" {
				t.Errorf("%+v, %+v", d2, d2.Commit)
			}
			o := objects(r, third, gitText(t, "1.0"))
			if d, _ := open(o); d.Reverts != 0 || d.Commit.Reverts != second {
				t.Errorf("without the reverted commit: %+v, %+v", d, d.Commit)
			}
			o.Reverted = r.Object("commit", second)
			if d3, p := open(o); d3.Reverts != d2.Revision || d3.Revision != d2.Revision+3600 || p.Bundle.Version != "1.0" {
				t.Errorf("%+v after %+v", d3, d2)
			}
			if d, p := open(objects(r, gone, "")); !d.Deleted || p != nil {
				t.Errorf("%+v", d)
			}
		})
	}
}

// TestGitForgeries are what a seeder could try. Each comes with the honest document beside it, which is accepted.
func TestGitForgeries(t *testing.T) {
	r := gitrepo.New(t)
	k, stranger := r.Key(), r.Key()
	set := trusted(t, r, k)
	one, two := gitText(t, "1.0"), gitText(t, "2.0")
	unsigned := r.Commit("", "begin", map[string]string{gitFile: one})
	first := r.Commit(k, "ours", map[string]string{"README": "1"})
	second := r.Commit(k, "to 2.0", map[string]string{gitFile: two})
	foreign := r.Commit(stranger, "theirs", map[string]string{"README": "2"})
	renamed := r.Commit(k, "under another name", map[string]string{"policies/other.yaml": one})
	link := func() string {
		if err := os.Symlink("other.yaml", r.Dir+"/policies/link.yaml"); err != nil {
			t.Fatal(err)
		}
		return r.Commit(k, "a link", nil)
	}()
	bare := r.Commit(k, "no policies", map[string]string{gitFile: "", "policies/other.yaml": "", "policies/link.yaml": ""})

	swap := func(o policy.GitObjects, change func(*policy.GitObjects)) policy.GitObjects { change(&o); return o }
	for what, x := range map[string]struct {
		o    policy.GitObjects
		code problem.Code
		good bool
	}{
		"honest":               {o: objects(r, first, one), good: true},
		"honest, later":        {o: objects(r, second, two), good: true},
		"unsigned":             {o: objects(r, unsigned, one), code: problem.InvalidPolicy},
		"another's key":        {o: objects(r, foreign, two), code: problem.SignatureInvalid},
		"another text":         {o: objects(r, first, two), code: problem.InvalidPolicy},
		"claims it is deleted": {o: objects(r, first, ""), code: problem.InvalidPolicy},
		"another tree of policies": {o: swap(objects(r, first, two), func(o *policy.GitObjects) {
			o.Policies = r.Object("tree", second+":policies")
		}), code: problem.InvalidPolicy},
		"another root": {o: swap(objects(r, first, two), func(o *policy.GitObjects) {
			o.Root, o.Policies = r.Object("tree", second+"^{tree}"), r.Object("tree", second+":policies")
		}), code: problem.InvalidPolicy},
		"a later time in the commit": {o: swap(objects(r, first, one), func(o *policy.GitObjects) {
			c, err := policy.ParseCommit(o.Commit)
			if err != nil {
				t.Fatal(err)
			}
			o.Commit = bytes.ReplaceAll(o.Commit, fmt.Appendf(nil, "> %d ", c.Time.Unix()), fmt.Appendf(nil, "> %d ", c.Time.Unix()+60))
		}), code: problem.SignatureInvalid},
		"claims that it reverts": {o: swap(objects(r, first, one), func(o *policy.GitObjects) { o.Reverted = r.Object("commit", unsigned) }), code: problem.InvalidPolicy},
		"a file of another name": {o: swap(objects(r, renamed, one), func(o *policy.GitObjects) { o.Name = "other" }), code: problem.InvalidPolicy},
		"a link":                 {o: swap(objects(r, link, "other.yaml"), func(o *policy.GitObjects) { o.Name = "link" }), code: problem.InvalidPolicy},
		"no policies at all": {o: policy.GitObjects{Name: gitName, Commit: r.Object("commit", bare), Root: r.Object("tree", bare+"^{tree}")},
			code: problem.InvalidPolicy},
	} {
		s, err := policy.NewGit(x.o)
		if err == nil {
			_, _, err = policy.Open(set, s, time.Now())
		}
		if x.good && err != nil || !x.good && problem.CodeOf(err) != x.code {
			t.Errorf("%s: %v, want %s", what, err, x.code)
		}
	}

	// The defence against the stranger is the key and nothing else: with that key allowed the same document is accepted.
	s, err := policy.NewGit(objects(r, foreign, two))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := policy.Open(trusted(t, r, k, stranger), s, time.Now()); err != nil {
		t.Errorf("with the stranger's key allowed: %v", err)
	}
	// A signature that is good, but of another commit.
	s.Sig = mustGit(t, objects(r, first, one)).Sig
	if _, _, err := policy.Open(set, s, time.Now()); problem.CodeOf(err) != problem.InvalidPolicy {
		t.Errorf("the signature of another commit: %v", err)
	}
	// The replay of an older commit is genuine; what it is refused by is its revision.
	a, _, err := policy.Open(set, mustGit(t, objects(r, first, one)), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := policy.Open(set, mustGit(t, objects(r, second, two)), time.Now())
	if err != nil || a.Revision >= b.Revision {
		t.Errorf("revisions %d and %d, %v", a.Revision, b.Revision, err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustGit(t *testing.T, o policy.GitObjects) trust.Signed {
	t.Helper()
	s, err := policy.NewGit(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParseCommitRefuses(t *testing.T) {
	tree := "tree " + strings.Repeat("a", 40) + "\n"
	who := "author A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n"
	if _, err := policy.ParseCommit([]byte(tree + who + "\nx\n")); err != nil {
		t.Fatal(err)
	}
	for what, raw := range map[string]string{
		"nothing":             "",
		"no message":          tree + who,
		"no tree":             who + "\nx\n",
		"two trees":           tree + tree + who + "\nx\n",
		"tree is no hash":     "tree xyz\n" + who + "\nx\n",
		"parent of another":   tree + "parent " + strings.Repeat("b", 64) + "\n" + who + "\nx\n",
		"two authors":         tree + who + "author A <a@b> 1 +0000\n\nx\n",
		"two committers":      tree + who + "committer A <a@b> 9 +0000\n\nx\n",
		"no committer":        tree + "author A <a@b> 1 +0000\n\nx\n",
		"two signatures":      tree + who + "gpgsig a\n b\ngpgsig c\n\nx\n",
		"other signature":     tree + who + "gpgsig-sha256 a\n\nx\n",
		"control characters":  tree + who + "\n\x01\n",
		"not UTF-8":           tree + who + "\n\xff\n",
		"NUL":                 tree + who + "\n\x00\n",
		"time without end":    tree + "author A <a@b> 1 +0000\ncommitter A <a@b> 99999999999999999999 +0000\n\nx\n",
		"continuation first":  " x\n" + tree + who + "\nx\n",
		"too large":           tree + who + "\n" + strings.Repeat("x", policy.MaxCommitBytes),
		"committer in a line": tree + "author A <a@b> 1 +0000\nx committer A <a@b> 9 +0000\n\nx\n",
	} {
		if c, err := policy.ParseCommit([]byte(raw)); err == nil {
			t.Errorf("%s: %+v", what, c)
		}
	}
}

func FuzzGitDocument(f *testing.F) {
	tree := "100644 x.yaml\x00" + strings.Repeat("\x01", 20)
	commit := "tree " + strings.Repeat("a", 40) + "\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\ngpgsig a\n b\n\nThis reverts commit " + strings.Repeat("b", 40) + ".\n"
	b, err := manifest.EncodeCanonical(map[string]any{"schema": policy.GitSchema, "name": "x", "commit": commit, "root": []byte(tree), "policies": []byte(tree), "policy": "y"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, []byte("a\nb\n"), []byte(tree), []byte(commit))
	f.Fuzz(func(t *testing.T, doc, sig, tree, commit []byte) {
		if d, err := policy.Read(trust.Signed{Doc: doc, Sig: sig}); err == nil && d.Commit != nil && d.Revision != uint64(d.Commit.Time.Unix()) {
			t.Errorf("%+v", d)
		}
		if es, err := policy.ParseTree(tree, 20); err == nil {
			var again []byte
			for _, e := range es {
				again = append(append(append(again, e.Mode+" "+e.Name...), 0), unhex(t, e.ID)...)
			}
			if !bytes.Equal(again, tree) {
				t.Errorf("%q is written back as %q", tree, again)
			}
		}
		if c, err := policy.ParseCommit(commit); err == nil && (len(c.ID) != len(c.Tree) || bytes.Contains(c.Payload, []byte("\ngpgsig ")) && !bytes.Contains(c.Payload, []byte("\n\n"))) {
			t.Errorf("%+v", c)
		}
	})
}
