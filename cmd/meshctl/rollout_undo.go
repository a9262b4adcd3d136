package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
)

// undo is what "meshctl rollout undo" is asked for.
type undo struct {
	policy, repo string
	yes, push    bool
}

func newRolloutUndo(env cli.Env) *cobra.Command {
	s := &server{env: env}
	key := &keyFlags{env: env}
	var u undo
	c := &cobra.Command{
		Use:   "undo POLICY (--key FILE | --gpg ID)",
		Short: "take the newest revision of a policy back",
		Long: `Undo pauses the rollout and goes back to the revision before. With --repo it makes a
signed commit that reverts the one in force, on a branch meshctl/revert-COMMIT of the
clone DIR, whose work tree it does not touch; --push sends the branch to the remote
"origin". When it is merged the seeder takes it. Without --repo the text of the
revision before is signed again, as a new revision, and applied at once.

Nodes go back by their snapshot where they have one, in their windows.`,
		Example: `  meshctl rollout undo retail-pos-prod --repo ~/patches --gpg 0xB5A2F3C1 --push
  meshctl rollout undo retail-pos-prod --key operator.key`,
		Args: cli.Args(1, 1, "POLICY"),
		RunE: func(c *cobra.Command, args []string) error {
			u.policy = args[0]
			if u.push && u.repo == "" {
				return cli.Usage(c, "--push needs --repo")
			}
			sign, err := key.signer(c)
			if err != nil {
				return err
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			ctx, cancel := s.within(c.Context())
			defer cancel()
			return u.run(ctx, env, client, sign)
		},
	}
	s.addFlags(c, 5*time.Minute)
	key.addFlags(c)
	c.Flags().StringVar(&u.repo, "repo", "", "clone of the Git repository, a `directory`")
	c.Flags().BoolVar(&u.push, "push", false, "push the branch to origin")
	c.Flags().BoolVar(&u.yes, "yes", false, "do not ask")
	return c
}

func (u *undo) run(ctx context.Context, env cli.Env, client *api.Client, sign signer.Signer) error {
	revisions, err := client.PolicyHistory(ctx, u.policy)
	if err != nil {
		return err
	}
	now := revisions[0]
	switch {
	case u.repo != "" && now.Commit == "":
		return problem.New(problem.Usage, "revision %d of policy %s was not given by a commit", now.Revision, u.policy).WithNext("leave --repo away")
	case u.repo == "" && now.Commit != "":
		return problem.New(problem.Usage, "policy %s comes from commit %.12s: what is undone beside Git comes back with the next commit", u.policy, now.Commit).
			WithNext("give --repo DIR, a clone of the repository")
	}
	if err := u.refuseRevoked(ctx, client, revisions); err != nil {
		return err
	}
	if u.repo != "" {
		return u.byCommit(ctx, env, client, sign, now)
	}
	return u.byHand(ctx, env, client, sign, revisions)
}

// refuseRevoked says before anything is paused or committed that the bundle to go back to is revoked.
func (u *undo) refuseRevoked(ctx context.Context, client *api.Client, revisions []api.PolicyRevision) error {
	l, err := client.Revocations(ctx)
	if err != nil {
		return err
	}
	for _, was := range revisions[1:] {
		if was.Deleted || was.Text == revisions[0].Text {
			continue
		}
		p, err := policy.Parse([]byte(was.Text))
		if err != nil {
			return nil // what takes it says why not
		}
		return refuseRevoked(listOf(l), p)
	}
	return nil
}

// byHand signs the text of the revision before again.
func (u *undo) byHand(ctx context.Context, env cli.Env, client *api.Client, sign signer.Signer, revisions []api.PolicyRevision) error {
	now := revisions[0]
	for _, was := range revisions[1:] {
		if was.Deleted || was.Text == now.Text {
			continue
		}
		fmt.Fprintf(env.Stdout, "This puts revision %d of %s (%s %s) in force again in the place of %d (%s %s) and pauses the rollout now.\n",
			was.Revision, u.policy, was.Bundle, was.Version, now.Revision, now.Bundle, now.Version)
		if err := u.confirm(env); err != nil {
			return err
		}
		d, err := policy.NewDocument([]byte(was.Text), now.Revision+1, env.Now())
		if err != nil {
			return err
		}
		d.Reverts = now.Revision
		u.pause(ctx, env, client, fmt.Sprintf("undo: back to revision %d", was.Revision))
		info, err := put(ctx, client, sign, d)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.Stdout, "policy %s applied (revision %d): %s %s, which takes %d back\n", info.Name, info.Revision, info.Bundle, info.Version, now.Revision)
		return err
	}
	return problem.New(problem.NotFound, "policy %s has no revision before %d with another text", u.policy, now.Revision).WithNext("apply another text: meshctl apply -f FILE")
}

// byCommit makes the commit that reverts the one in force.
func (u *undo) byCommit(ctx context.Context, env cli.Env, client *api.Client, sign signer.Signer, now api.PolicyRevision) error {
	st, err := client.Sync(ctx)
	if err != nil {
		return err
	}
	clone := clone{dir: u.repo}
	plan, err := clone.plan(ctx, now.Commit, st.Branch, policy.GitDirectory+"/"+u.policy+".yaml")
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "This makes a revert of %.12s (%s) on branch %s and pauses the rollout now.\nIt changes: %s\n",
		plan.revert, plan.subject, plan.branch, strings.Join(plan.files, " "))
	if err := u.confirm(env); err != nil {
		return err
	}
	u.pause(ctx, env, client, "undo: revert of "+plan.revert[:12])
	id, err := clone.commit(ctx, plan, sign, env.Now())
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "commit %s on branch %s, signed by %s\n", id, plan.branch, sign.Fingerprint())
	if !u.push {
		_, err = fmt.Fprintf(env.Stdout, "next: git -C %s push origin %s, and merge it\n", u.repo, plan.branch)
		return err
	}
	if _, err := clone.git(ctx, nil, "push", "origin", "refs/heads/"+plan.branch); err != nil {
		return problem.New(problem.GitUnreachable, "branch %s is not pushed", plan.branch).Because(err).WithDone("the commit is in the clone").
			WithNext("git -C %s push origin %s", u.repo, plan.branch)
	}
	_, err = fmt.Fprintf(env.Stdout, "pushed; merge it into %s\n", st.Branch)
	return err
}

// pause stops the rollout. That it cannot, or that there is none, is told and keeps nothing from being undone.
func (u *undo) pause(ctx context.Context, env cli.Env, client *api.Client, reason string) {
	if _, err := client.PauseRollout(ctx, u.policy, api.RolloutChange{Reason: reason}); err != nil && problem.CodeOf(err) != problem.NotFound {
		fmt.Fprintf(env.Stderr, "the rollout is not paused: %v\n", err)
	}
}

// confirm asks for the policy's name.
func (u *undo) confirm(env cli.Env) error {
	if u.yes {
		return nil
	}
	fmt.Fprint(env.Stdout, "Type the policy name to continue: ")
	line, _ := bufio.NewReader(env.Stdin).ReadString('\n') // what is cut off is not the name
	if strings.TrimSpace(line) != u.policy {
		return problem.New(problem.Usage, "that is not %s", u.policy).WithDone("nothing was changed")
	}
	return nil
}
