package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
)

// server is the seeder that a command talks to.
type server struct {
	env     cli.Env
	access  cli.Access
	timeout time.Duration
}

func (s *server) addFlags(c *cobra.Command, timeout time.Duration) {
	s.access.AddFlags(c.PersistentFlags())
	c.PersistentFlags().DurationVar(&s.timeout, "timeout", timeout, "give up after this long; 0 waits for ever")
}

// client returns a client of the seeder, and an error that says how to name one if nothing does.
func (s *server) client() (*api.Client, error) {
	a, found, err := s.access.Resolve(s.env.Getenv)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, problem.New(problem.Usage, "no seeder is named").
			WithNext("give --server, set MESHCTL_SERVER, or write ~/.config/meshctl/config.yaml")
	}
	return api.NewClient(a)
}

// within bounds a command by --timeout.
func (s *server) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, s.timeout)
}

// do calls fn with a client and within the timeout.
func (s *server) do(c *cobra.Command, fn func(context.Context, *api.Client) error) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	ctx, cancel := s.within(c.Context())
	defer cancel()
	return fn(ctx, client)
}

// signed is do for what an operator signs. The signer comes first: nothing is asked that it could not sign.
func (s *server) signed(c *cobra.Command, key *keyFlags, fn func(context.Context, *api.Client, signer.Signer) error) error {
	sign, err := key.signer(c)
	if err != nil {
		return err
	}
	return s.do(c, func(ctx context.Context, client *api.Client) error { return fn(ctx, client, sign) })
}

// answer asks the seeder and prints what it says, in the form that is asked for.
func answer[T any](c *cobra.Command, s *server, out *output, ask func(context.Context, *api.Client) (T, error), table func(T) *cli.Table) error {
	if err := out.check(c); err != nil {
		return err
	}
	return s.do(c, func(ctx context.Context, client *api.Client) error {
		v, err := ask(ctx, client)
		if err != nil {
			return err
		}
		if out.forPeople() {
			_, err = table(v).WriteTo(s.env.Stdout)
			return err
		}
		return out.structured(s.env.Stdout, v, nil)
	})
}
