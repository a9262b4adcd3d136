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
	policy, repo, reason string
	yes, push, urgent    bool
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

Nodes go back by their snapshot where they have one, in their windows.

--emergency does not wait for windows, batches, soaks or a merge: first it signs a rollback
order with the operator's key, which every node that follows the policy carries out at
once and which holds the release back; then it makes the revert. Until that is in force
the nodes are shown as RolledBack: they are not what the policy says. The order, its
reason and who gave it stand in "meshctl audit" and in the receipts. Of a policy from
Git it needs no --repo: make the revert when there is time.`,
		Example: `  meshctl rollout undo retail-pos-prod --repo ~/patches --gpg 0xB5A2F3C1 --push
  meshctl rollout undo retail-pos-prod --key operator.key
  meshctl rollout undo retail-pos-prod --emergency --reason "tills freeze" --key operator.key`,
		Args: cli.Args(1, 1, "POLICY"),
		RunE: func(c *cobra.Command, args []string) error {
			u.policy = args[0]
			if u.push && u.repo == "" {
				return cli.Usage(c, "--push needs --repo")
			}
			if err := u.checkEmergency(); err != nil {
				return err
			}
			return s.signed(c, key, func(ctx context.Context, client *api.Client, sign signer.Signer) error {
				return u.run(ctx, env, client, sign)
			})
		},
	}
	s.addFlags(c, 5*time.Minute)
	key.addFlags(c)
	c.Flags().StringVar(&u.repo, "repo", "", "clone of the Git repository, a `directory`")
	c.Flags().BoolVar(&u.push, "push", false, "push the branch to origin")
	c.Flags().BoolVar(&u.urgent, "emergency", false, "order every node back at once, before the revert")
	c.Flags().StringVar(&u.reason, "reason", "", "`why`: the order of an emergency carries it to the nodes")
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
	case u.repo == "" && now.Commit != "" && !u.urgent:
		return problem.New(problem.Usage, "policy %s comes from commit %.12s: what is undone beside Git comes back with the next commit", u.policy, now.Commit).
			WithNext("give --repo DIR, a clone of the repository")
	}
	if err := u.refuseRevoked(ctx, client, revisions); err != nil {
		return err
	}
	r, err := reachOf(ctx, client, u.policy, now)
	switch {
	case err != nil:
		return err
	case u.repo != "":
		return u.byCommit(ctx, env, client, sign, now, r)
	case now.Commit != "":
		return u.later(ctx, env, client, sign, now, r)
	}
	return u.byHand(ctx, env, client, sign, revisions, r)
}

// later is an emergency without the clone in which the revert is made.
func (u *undo) later(ctx context.Context, env cli.Env, client *api.Client, sign signer.Signer, now api.PolicyRevision, r reach) error {
	if err := u.begin(ctx, env, client, sign, now, r, "This leaves the policy as it is", "emergency"); err != nil {
		return err
	}
	_, err := fmt.Fprintf(env.Stdout, "next: meshctl rollout undo %s --repo DIR; until then the nodes are not what the policy says\n", u.policy)
	return err
}

// begin says what is going to happen, asks, pauses the rollout, and in an emergency orders the nodes back.
func (u *undo) begin(ctx context.Context, env cli.Env, client *api.Client, sign signer.Signer, now api.PolicyRevision, r reach, what, reason string) error {
	how := "pauses the rollout now; nodes go back in their windows"
	if u.urgent {
		how = "pauses the rollout, and orders every node back NOW, without window, batch or soak"
	}
	fmt.Fprintf(env.Stdout, "%s and %s.\n%s.\n", what, how, r)
	if err := u.confirm(env); err != nil {
		return err
	}
	u.pause(ctx, env, client, reason)
	if !u.urgent {
		return nil
	}
	return u.emergency(ctx, env, client, sign, now, r)
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
		return refuseRevoked(listOf(l), p.Bundle.Checksum)
	}
	return nil
}

// byHand signs the text of the revision before again.
func (u *undo) byHand(ctx context.Context, env cli.Env, client *api.Client, sign signer.Signer, revisions []api.PolicyRevision, r reach) error {
	now := revisions[0]
	for _, was := range revisions[1:] {
		if was.Deleted || was.Text == now.Text {
			continue
		}
		d, err := policy.NewDocument([]byte(was.Text), now.Revision+1, env.Now())
		if err != nil {
			return err
		}
		d.Reverts = now.Revision
		what := fmt.Sprintf("This puts revision %d of %s (%s %s) in force again in the place of %d (%s %s)",
			was.Revision, u.policy, was.Bundle, was.Version, now.Revision, now.Bundle, now.Version)
		if err := u.begin(ctx, env, client, sign, now, r, what, fmt.Sprintf("undo: back to revision %d", was.Revision)); err != nil {
			return err
		}
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
func (u *undo) byCommit(ctx context.Context, env cli.Env, client *api.Client, sign signer.Signer, now api.PolicyRevision, r reach) error {
	st, err := client.Sync(ctx)
	if err != nil {
		return err
	}
	clone := clone{dir: u.repo}
	plan, err := clone.plan(ctx, now.Commit, st.Branch, policy.GitDirectory+"/"+u.policy+".yaml")
	if err != nil {
		return err
	}
	what := fmt.Sprintf("This makes a revert of %.12s (%s), which changes %s, on branch %s", plan.revert, plan.subject, strings.Join(plan.files, " "), plan.branch)
	if err := u.begin(ctx, env, client, sign, now, r, what, "undo: revert of "+plan.revert[:12]); err != nil {
		return err
	}
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
