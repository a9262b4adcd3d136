package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
)

func newRollout(env cli.Env) *cobra.Command {
	c := &cobra.Command{
		Use:   "rollout",
		Short: "see how a policy's rollout goes, stop it, and let it go on",
		Long: `A policy with a rolloutStrategy reaches its nodes in an order: a canary, then batches.
The seeder keeps the order and the failure budget and lets nodes start by a signed
grant for each site.`,
	}
	c.AddCommand(newRolloutStatus(env), newRolloutHistory(env))
	change := func(name, short, long string, call func(*api.Client, context.Context, string, api.RolloutChange) (api.Rollout, error)) {
		f := &rolloutChange{server: server{env: env}, call: call}
		x := &cobra.Command{Use: name + " POLICY --reason TEXT", Short: short, Long: long,
			Example: "  meshctl rollout " + name + " retail-pos-prod --reason CHG0012345", Args: cli.Args(1, 1, "POLICY"), RunE: f.run}
		f.addFlags(x, 30*time.Second)
		x.Flags().StringVar(&f.reason, "reason", "", "`why`: it is kept with your name")
		x.Flags().StringVar(&f.by, "by", "", "your `name`, where the token is not yours alone")
		f.out.addFlags(x, "text", "json")
		c.AddCommand(x)
	}
	change("pause", "let no more nodes start", `Pause stops new starts; what runs finishes. A site that is cut off does not hear of it:
there the window ends what its grant lets start.`, (*api.Client).PauseRollout)
	change("resume", "let a paused rollout go on", `Resume lets nodes start again. The failure budget goes on: it does not begin anew, and
the next failure above it pauses the rollout again.`, (*api.Client).ResumeRollout)
	change("promote", "let the batches begin after the canary", `Promote is for a canary with promote: Manual, and for one that no node can be. The soak
of the canary is still waited for.`, (*api.Client).PromoteRollout)
	c.AddCommand(newRolloutRetry(env), newRolloutUndo(env))
	return c
}

// rolloutChange are the flags of what a person says about a rollout.
type rolloutChange struct {
	server
	out        output
	reason, by string
	call       func(*api.Client, context.Context, string, api.RolloutChange) (api.Rollout, error)
}

func (f *rolloutChange) run(c *cobra.Command, args []string) error {
	if err := f.out.check(c); err != nil {
		return err
	}
	if f.reason == "" {
		return cli.Usage(c, "no reason: give --reason TEXT")
	}
	client, err := f.client()
	if err != nil {
		return err
	}
	ctx, cancel := f.within(c.Context())
	defer cancel()
	r, err := f.call(client, ctx, args[0], api.RolloutChange{Reason: f.reason, By: f.by})
	if err != nil {
		return err
	}
	if f.out.json {
		return cli.JSON(f.env.Stdout, r)
	}
	_, err = io.WriteString(f.env.Stdout, rolloutLine(r)+"\n")
	return err
}

// newRolloutRetry gives nodes that failed their place back, and signs the order by which they forget that they failed.
func newRolloutRetry(env cli.Env) *cobra.Command {
	f := &rolloutChange{server: server{env: env}}
	key := keyFlags{env: env}
	c := &cobra.Command{
		Use:   "retry POLICY --reason TEXT (--key FILE | --gpg ID)",
		Short: "let the nodes that failed try again",
		Long: `Retry gives the nodes that failed their place in the rollout again, and signs an order
with the operator's key by which each of them forgets that it failed. What they did
still counts against the failure budget.`,
		Example: `  meshctl rollout retry retail-pos-prod --reason "disks replaced" --key operator.key`,
		Args:    cli.Args(1, 1, "POLICY"),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		sign, err := key.signer(c)
		if err != nil {
			return err
		}
		f.call = func(client *api.Client, ctx context.Context, name string, q api.RolloutChange) (api.Rollout, error) {
			r, err := client.RetryRollout(ctx, name, q)
			if err != nil {
				return r, err
			}
			return r, f.again(ctx, client, sign, r)
		}
		return f.run(c, args)
	}
	f.addFlags(c, 2*time.Minute)
	key.addFlags(c)
	c.Flags().StringVar(&f.reason, "reason", "", "`why`: it is kept with your name")
	c.Flags().StringVar(&f.by, "by", "", "your `name`, where the token is not yours alone")
	f.out.addFlags(c, "text", "json")
	return c
}

// again orders the sites with failures to try the rollout's release again. A node that has not failed is not touched by
// such an order.
func (f *rolloutChange) again(ctx context.Context, client *api.Client, sign signer.Signer, r api.Rollout) error {
	var sites []string
	for _, s := range r.Sites {
		if s.Failed > 0 {
			sites = append(sites, s.Site)
		}
	}
	slices.Sort(sites)
	if len(sites) == 0 {
		return nil
	}
	_, err := giveOrder(ctx, client, sign, f.env.Now(), order.Order{Kind: order.Retry, Bundle: r.Bundle, Version: r.Version, Checksum: r.Checksum,
		Targets: order.Targets{Sites: sites, Nodes: []string{}, Labels: map[string]string{}}, Reason: f.reason})
	return err
}

func newRolloutHistory(env cli.Env) *cobra.Command {
	s, out := server{env: env}, output{}
	c := &cobra.Command{Use: "history POLICY", Short: "the rollouts of a policy, the newest first, and who stopped them",
		Example: "  meshctl rollout history retail-pos-prod", Args: cli.Args(1, 1, "POLICY")}
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := out.check(c); err != nil {
			return err
		}
		client, err := s.client()
		if err != nil {
			return err
		}
		ctx, cancel := s.within(c.Context())
		defer cancel()
		list, err := client.RolloutHistory(ctx, args[0])
		if err != nil {
			return err
		}
		if out.json {
			return cli.JSON(env.Stdout, list)
		}
		var b strings.Builder
		for _, r := range list {
			b.WriteString(rolloutLine(r) + "\n")
			rolloutPauses(&b, r)
		}
		_, err = io.WriteString(env.Stdout, b.String())
		return err
	}
	s.addFlags(c, 30*time.Second)
	out.addFlags(c, "text", "json")
	return c
}

const rolloutEvery = 2 * time.Second

func newRolloutStatus(env cli.Env) *cobra.Command {
	s, out, watch := server{env: env}, output{}, false
	c := &cobra.Command{
		Use:   "status [POLICY]",
		Short: "where rollouts stand; with --watch until one is done",
		Long: `Without a policy: one line for each rollout. With one: its batches, its canary, who
paused it, and the sites that stand out.

With --watch it says what changes until the rollout is done, with exit status 0, or 3
if nodes failed or did not take part; 3 when it is paused or goes back; 8 when --timeout is over.`,
		Example: "  meshctl rollout status\n  meshctl rollout status retail-pos-prod --watch --timeout 30m",
		Args:    cli.Args(0, 1, "[POLICY]"),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := out.check(c); err != nil {
			return err
		}
		if watch && len(args) == 0 {
			return cli.Usage(c, "--watch is for one rollout: name its policy")
		}
		client, err := s.client()
		if err != nil {
			return err
		}
		ctx, cancel := s.within(c.Context())
		defer cancel()
		if len(args) == 0 {
			list, err := client.Rollouts(ctx)
			if err != nil {
				return err
			}
			if out.json {
				return cli.JSON(env.Stdout, list)
			}
			for _, r := range list {
				if _, err := fmt.Fprintln(env.Stdout, rolloutLine(r)); err != nil {
					return err
				}
			}
			return nil
		}
		if watch {
			return watchRollout(ctx, env.Stdout, client, args[0], rolloutEvery)
		}
		r, err := client.Rollout(ctx, args[0])
		if err != nil {
			return err
		}
		if out.json {
			return cli.JSON(env.Stdout, r)
		}
		_, err = io.WriteString(env.Stdout, rolloutScreen(r))
		return err
	}
	s.addFlags(c, 30*time.Second)
	c.Flags().BoolVarP(&watch, "watch", "w", false, "say what changes until it is done, or --timeout is over")
	out.addFlags(c, "text", "json")
	return c
}

// watchRollout prints each line that is not the one before.
func watchRollout(ctx context.Context, w io.Writer, client *api.Client, name string, every time.Duration) error {
	var last string
	for {
		r, err := client.Rollout(ctx, name)
		if err == nil {
			if line := rolloutLine(r); line != last {
				last = line
				if _, err := fmt.Fprintln(w, line); err != nil {
					return err
				}
			}
			done, err := rolloutEnd(r)
			if done {
				return err
			}
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		t := time.NewTimer(every)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return problem.New(problem.Timeout, "the rollout of policy %s is not done", name).WithDone("it goes on").WithNext("meshctl rollout status %s", name)
			}
			return ctx.Err()
		}
	}
}

// rolloutEnd says whether there is nothing more to wait for, and how it ended.
func rolloutEnd(r api.Rollout) (done bool, err error) {
	degraded := func(format string, a ...any) (bool, error) {
		return true, problem.New(problem.NeedsAttention, "the rollout of policy %s %s", r.Policy, fmt.Sprintf(format, a...)).WithNext("meshctl rollout status %s", r.Policy)
	}
	switch api.RolloutState(r.State) {
	case api.RolloutDone:
		if r.Failed > 0 || r.Phases["Deferred"] > 0 {
			return degraded("is done: %d failed, %d wait for their next window", r.Failed, r.Phases["Deferred"])
		}
		return true, nil
	case api.RolloutPaused, api.RolloutRollingBack, api.RolloutSuspended, api.RolloutSuperseded, api.RolloutDeleted:
		return degraded("is %s: %s", r.State, r.Reason)
	case api.RolloutWaiting, api.RolloutCanary, api.RolloutSoaking, api.RolloutRunning:
	}
	return false, nil
}

// rolloutLine is a rollout in one line.
func rolloutLine(r api.Rollout) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s rev %d  %s %s  %s", cli.Printable(r.Policy), r.Revision, cli.Printable(r.Bundle), cli.Printable(r.Version), strings.ToUpper(r.State))
	if r.Batches > 0 {
		fmt.Fprintf(&b, "  batch %d/%d", r.Batch, r.Batches)
	}
	fmt.Fprintf(&b, "  %d of %d settled: %s", r.Settled, r.Nodes, rolloutPhases(r))
	fmt.Fprintf(&b, "  failed %d, more than %d stop it", r.Failed, r.Budget)
	if r.Reason != "" {
		fmt.Fprintf(&b, "  (%s)", cli.Printable(r.Reason))
	}
	return b.String()
}

func rolloutPhases(r api.Rollout) string {
	var words []string
	for _, word := range []string{"Installed", "Installing", "Waiting", "Deferred", "RolledBack", "InstallFailed", "VerifyFailed", "Lost", "TakenBack"} {
		if n := r.Phases[word]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, word))
		}
	}
	if len(words) == 0 {
		return "no nodes"
	}
	return strings.Join(words, ", ")
}

// rolloutScreen is a rollout as a whole.
func rolloutScreen(r api.Rollout) string {
	var b strings.Builder
	fmt.Fprintln(&b, rolloutLine(r))
	at := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
	if r.Window != "" {
		fmt.Fprintf(&b, "window   %s", cli.Printable(r.Window))
		switch {
		case r.Next != nil && r.Open:
			fmt.Fprintf(&b, "  OPEN until %s", at(*r.Next))
		case r.Next != nil:
			fmt.Fprintf(&b, "  opens %s", at(*r.Next))
		}
		b.WriteString("\n")
	}
	if r.Finish != nil {
		fmt.Fprintf(&b, "finish   about %s\n", at(*r.Finish))
	}
	if c := r.Canary; c != nil {
		fmt.Fprintf(&b, "canary   %d of %d settled, %d failed", c.Settled, c.Nodes, c.Failed)
		if c.Until != nil {
			fmt.Fprintf(&b, "  soaks until %s", at(*c.Until))
		}
		b.WriteString("\n")
	}
	for _, c := range r.Cohorts {
		fmt.Fprintf(&b, "cohort   %s, %s: batch %d of %d", cli.Count(c.Sites, "site"), cli.Count(c.Nodes, "node"), c.Batch, c.Batches)
		if !c.Opens.IsZero() {
			fmt.Fprintf(&b, "  %s to %s", at(c.Opens), at(c.Closes))
		}
		b.WriteString("\n")
	}
	rolloutPauses(&b, r)
	for _, s := range r.Sites {
		fmt.Fprintf(&b, "site     %s: %d of %d failed", cli.Printable(s.Site), s.Failed, s.Nodes)
		if s.Reason != "" {
			fmt.Fprintf(&b, ", %s", cli.Printable(s.Reason))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func rolloutPauses(w io.Writer, r api.Rollout) {
	for _, p := range r.Pauses {
		fmt.Fprintf(w, "paused   %s by %s: %s\n", p.At.UTC().Format(time.RFC3339), cli.Printable(p.By), cli.Printable(p.Reason))
		if p.Resumed != nil {
			fmt.Fprintf(w, "resumed  %s by %s: %s\n", p.Resumed.UTC().Format(time.RFC3339), cli.Printable(p.Who), cli.Printable(p.Why))
		}
	}
}
