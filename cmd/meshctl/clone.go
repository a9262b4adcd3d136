package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
)

// clone is the operator's copy of the policies' repository. His configuration of git counts in it.
type clone struct {
	dir string
	env []string
}

// revertPlan is a revert that can be made.
type revertPlan struct {
	base, revert, subject, branch string
	merge                         bool
	files                         []string
}

// git runs one command in the clone and returns what it says, without white space around it.
func (x clone) git(ctx context.Context, stdin []byte, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", x.dir}, args...)...)
	cmd.Env = append(os.Environ(), append([]string{"LC_ALL=C"}, x.env...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// plan finds the commit that brought what is in force, and where its revert belongs.
func (x clone) plan(ctx context.Context, inForce, branch, file string) (p revertPlan, err error) {
	bad := func(err error) (revertPlan, error) {
		return revertPlan{}, problem.New(problem.InvalidFile, "clone %s", x.dir).Because(err).WithDone("nothing was changed").WithNext("git -C %s fetch", x.dir)
	}
	if _, err := x.git(ctx, nil, "var", "GIT_COMMITTER_IDENT"); err != nil {
		return revertPlan{}, problem.New(problem.InvalidFile, "clone %s: git does not know who commits", x.dir).WithDone("nothing was changed").
			WithNext("git -C %s config user.name NAME, and config user.email ADDRESS", x.dir)
	}
	for _, name := range []string{"refs/remotes/origin/" + branch, "refs/heads/" + branch} {
		if p.base, err = x.git(ctx, nil, "rev-parse", "--verify", "--quiet", name+"^{commit}"); err == nil {
			break
		}
	}
	if err != nil {
		return bad(fmt.Errorf("it has no branch %s", branch))
	}
	if p.revert, err = x.git(ctx, nil, "log", "-1", "--format=%H", inForce, "--", file); err != nil || p.revert == "" {
		return bad(fmt.Errorf("it does not have commit %.12s with %s: %w", inForce, file, err))
	}
	if _, err := x.git(ctx, nil, "merge-base", "--is-ancestor", p.revert, p.base); err != nil {
		return bad(fmt.Errorf("commit %.12s is not in branch %s", p.revert, branch))
	}
	words, err := x.git(ctx, nil, "log", "-1", "--format=%P%n%s", p.revert)
	if err != nil {
		return bad(err)
	}
	parents, subject, _ := strings.Cut(words, "\n")
	p.subject, p.merge = subject, strings.Contains(parents, " ")
	if parents == "" {
		return bad(fmt.Errorf("commit %.12s is the first: there is nothing before it", p.revert))
	}
	files, err := x.git(ctx, nil, "diff", "--name-only", p.revert+"^1", p.revert)
	if err != nil {
		return bad(err)
	}
	p.files, p.branch = strings.Fields(files), "meshctl/revert-"+p.revert[:12]
	return p, nil
}

// commit makes the revert in a work tree of its own and signs it by the operator's key, as git would: the signature is the
// last header of the commit. It returns the commit.
func (x clone) commit(ctx context.Context, p revertPlan, sign signer.Signer, now time.Time) (id string, err error) {
	tmp, err := os.MkdirTemp("", "meshctl-revert-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	tree := clone{dir: filepath.Join(tmp, "tree")}
	if _, err := x.git(ctx, nil, "worktree", "add", "--quiet", "--detach", tree.dir, p.base); err != nil {
		return "", err
	}
	defer func() {
		if _, rm := x.git(context.WithoutCancel(ctx), nil, "worktree", "remove", "--force", tree.dir); rm != nil && err == nil {
			err = rm
		}
	}()
	revert := []string{"revert", "--no-commit", p.revert}
	if p.merge {
		revert = []string{"revert", "--no-commit", "-m", "1", p.revert}
	}
	if _, err := tree.git(ctx, nil, revert...); err != nil {
		return "", problem.New(problem.PolicyConflict, "commit %.12s cannot be reverted by itself: what came after it changes the same lines", p.revert).Because(err).
			WithDone("nothing was changed").WithNext("revert it by hand: git revert -S %.12s", p.revert)
	}
	hash, err := tree.git(ctx, nil, "write-tree")
	if err != nil {
		return "", err
	}
	// Later than the commit it follows, whatever this machine's clock says: nodes go by that time.
	last, err := x.git(ctx, nil, "log", "-1", "--format=%ct", p.base)
	if err != nil {
		return "", err
	}
	at := now.Unix()
	var before int64
	if _, err := fmt.Sscan(last, &before); err == nil && at <= before {
		at = before + 1
	}
	tree.env = []string{fmt.Sprintf("GIT_COMMITTER_DATE=%d +0000", at), fmt.Sprintf("GIT_AUTHOR_DATE=%d +0000", at)}
	message := fmt.Sprintf("Revert %q\n\nThis reverts commit %s.\n", p.subject, p.revert)
	unsigned, err := tree.git(ctx, []byte(message), "commit-tree", "--no-gpg-sign", hash, "-p", p.base, "-F", "-")
	if err != nil {
		return "", err
	}
	raw, err := tree.git(ctx, nil, "cat-file", "commit", unsigned)
	if err != nil {
		return "", err
	}
	raw += "\n"
	sig, err := sign.Sign(ctx, []byte(raw))
	if err != nil {
		return "", err
	}
	head, body, _ := strings.Cut(raw, "\n\n")
	name := "gpgsig "
	if len(hash) == 64 {
		name = "gpgsig-sha256 "
	}
	signed := head + "\n" + name + strings.ReplaceAll(strings.TrimSpace(string(sig)), "\n", "\n ") + "\n\n" + body
	if _, err := policy.ParseCommit([]byte(signed)); err != nil {
		return "", err
	}
	if id, err = tree.git(ctx, []byte(signed), "hash-object", "-t", "commit", "-w", "--stdin"); err != nil {
		return "", err
	}
	if _, err := x.git(ctx, nil, "branch", "--force", p.branch, id); err != nil {
		return "", err
	}
	return id, nil
}
