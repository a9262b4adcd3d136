package main

import (
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/bed/gitrepo"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

func TestUndoByHand(t *testing.T) {
	o := newOffice(t, 0)
	for _, v := range []string{"1", "2"} {
		o.write("src"+v+"/a.txt", "version "+v+"\n")
		o.good("bundle build --name app --version " + v + ".0 --sequence " + v + " --format files --target-os any --from src" + v + " --out b" + v + " --key release.key")
		o.good("bundle push b" + v)
		o.policy("p"+v+".yaml", v+".0", "b"+v)
		o.good("apply -f p" + v + ".yaml --key operator.key")
	}
	if exit, _, errs := o.run("apply -f p1.yaml --key operator.key"); exit != problem.ExitVerification || !strings.Contains(errs, string(problem.SequenceTooOld)) {
		t.Errorf("an older bundle by hand: %d %s", exit, errs)
	}
	if exit, _, errs := o.run("rollout undo app --repo . --key operator.key --yes"); exit != problem.ExitUsage {
		t.Errorf("a clone for what no commit gave: %d %s", exit, errs)
	}
	out := o.good("rollout undo app --key operator.key --yes")
	if !strings.Contains(out, "policy app applied (revision 3): app 1.0, which takes 2 back") {
		t.Error(out)
	}
	if out := o.good("sync"); !strings.Contains(out, "follows no Git repository") {
		t.Error(out)
	}
}

// TestUndoCommit: what meshctl signs is what git itself would have signed, and what nodes take.
func TestUndoCommit(t *testing.T) {
	r := gitrepo.New(t)
	first := r.Commit("", "begin", map[string]string{"policies/app.yaml": "1\n", "other": "1\n"})
	second := r.Commit("", "to 2", map[string]string{"policies/app.yaml": "2\n"})
	later := r.Commit("", "something else", map[string]string{"other": "2\n"})
	priv, pub, _, err := signer.Generate("ada", "")
	if err != nil {
		t.Fatal(err)
	}
	k, err := signer.FromKey(priv, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_AUTHOR_NAME", "Ada")
	t.Setenv("GIT_AUTHOR_EMAIL", "ada@example.org")
	t.Setenv("GIT_COMMITTER_NAME", "Ada")
	t.Setenv("GIT_COMMITTER_EMAIL", "ada@example.org")
	x := clone{dir: r.Dir}
	if _, err := x.plan(t.Context(), later, "main", "policies/none.yaml"); err == nil {
		t.Error("a policy that was never there can be reverted")
	}
	if _, err := x.plan(t.Context(), first, "main", "policies/app.yaml"); err == nil {
		t.Error("the first commit can be reverted")
	}
	p, err := x.plan(t.Context(), later, "main", "policies/app.yaml")
	if err != nil || p.revert != second || p.base != later || len(p.files) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	id, err := x.commit(t.Context(), p, k, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if now := r.Git("status", "--porcelain", "--branch"); now != "## main" {
		t.Errorf("the work tree was touched: %s", now)
	}
	if got := r.Git("show", p.branch+":policies/app.yaml"); got != "1" {
		t.Errorf("the revert holds %q", got)
	}
	r.Home.Run(time.Time{}, pub, "--import")
	r.Git("verify-commit", id) // fails the test unless git finds the signature good
	role, err := trust.NewRoleKeys(1, k.Public())
	if err != nil {
		t.Fatal(err)
	}
	s, err := policy.NewGit(policy.GitObjects{Name: "app", Commit: r.Object("commit", id), Root: r.Object("tree", id+"^{tree}"), Policies: r.Object("tree", id+":policies"),
		Policy: []byte("1\n"), Reverted: r.Object("commit", second)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Verify(&trust.Set{Policy: role}, s, time.Now()); err != nil {
		t.Error(err)
	}
	d, err := policy.Read(s)
	if err != nil || d.Reverts == 0 || d.Commit.ID != id || d.Commit.Reverts != second {
		t.Errorf("%+v, %v", d, err)
	}
}
