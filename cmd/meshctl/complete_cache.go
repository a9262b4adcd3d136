package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/durable"
)

// How long an answer is good for, how long nobody is asked after one that did not come, and for how long an old answer is
// better than none.
const (
	answerGood  = 10 * time.Second
	silenceGood = time.Minute
	answerStale = 24 * time.Hour
	maxCached   = 4 << 20 // bytes
)

// prompter is who is asked for names, and where the answers are kept between one press of the key and the next.
type prompter struct {
	env    cli.Env
	access api.Access
	found  bool   // a seeder is named
	socket string // of the daemon, if none is
	dir    string // "" keeps nothing
}

// newPrompter takes the flags that were typed so far.
func newPrompter(env cli.Env, c *cobra.Command) *prompter {
	var access cli.Access
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	access.AddFlags(f)
	f.VisitAll(func(own *pflag.Flag) {
		if typed := c.Flags().Lookup(own.Name); typed != nil && typed.Changed {
			_ = own.Value.Set(typed.Value.String()) // a string takes any
		}
	})
	a := &prompter{env: env, socket: nodeSocket}
	var err error
	if a.access, a.found, err = access.Resolve(env.Getenv); err != nil {
		a.socket = ""
	}
	if typed := c.Flags().Lookup("socket"); typed != nil && typed.Changed {
		a.found, a.socket = false, typed.Value.String()
	}
	switch cache, home := env.Getenv("XDG_CACHE_HOME"), env.Getenv("HOME"); {
	case cache != "":
		a.dir = filepath.Join(cache, "meshctl")
	case home != "":
		a.dir = filepath.Join(home, ".cache", "meshctl")
	}
	return a
}

// cached is an answer on disk.
type cached struct {
	At    time.Time `json:"at"`    // of the answer
	Tried time.Time `json:"tried"` // when it was asked for last
	Names []string  `json:"names"`
}

// names answers from what is kept, or asks. It takes no longer than completionBudget, and says nothing of what goes wrong.
func (a *prompter) names(ctx context.Context, q query) []string {
	if !a.found && a.socket == "" {
		return nil
	}
	was, now := a.read(q), a.env.Now()
	within := func(at time.Time, d time.Duration) bool { return !at.After(now) && now.Sub(at) < d }
	old := was.Names
	if !within(was.At, answerStale) {
		old = nil
	}
	if within(was.At, answerGood) || within(was.Tried, silenceGood) && was.Tried.After(was.At) {
		return old
	}
	ctx, cancel := context.WithTimeout(ctx, completionBudget)
	defer cancel()
	found, err := a.ask(ctx, q)
	if err != nil {
		a.write(q, cached{At: was.At, Tried: now, Names: old})
		return old
	}
	found = fit(found)
	a.write(q, cached{At: now, Tried: now, Names: found})
	return found
}

func (a *prompter) ask(ctx context.Context, q query) ([]string, error) {
	if !a.found {
		client, err := api.NewNodeClient(a.socket)
		if err != nil {
			return nil, err
		}
		return q.askNode(ctx, client)
	}
	client, err := api.NewClient(a.access)
	if err != nil {
		return nil, err
	}
	defer client.CloseIdle()
	return q.ask(ctx, client)
}

// file is where the answer to a query is kept: another for each seeder, and for who asks.
func (a *prompter) file(q query) string {
	of := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q", a.access.URLs, a.access.Token, a.socket, q.of, q.site))
	return filepath.Join(a.dir, fmt.Sprintf("names-%x.json", of[:12]))
}

func (a *prompter) read(q query) (out cached) {
	if a.dir == "" {
		return cached{}
	}
	info, err := os.Stat(a.file(q))
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxCached {
		return cached{}
	}
	if b, err := os.ReadFile(a.file(q)); err != nil || json.Unmarshal(b, &out) != nil {
		return cached{}
	}
	out.Names = fit(out.Names)
	return out
}

// write keeps an answer. That it cannot costs a question, and no word.
func (a *prompter) write(q query, c cached) {
	if a.dir == "" || os.MkdirAll(a.dir, 0o700) != nil {
		return
	}
	if b, err := json.Marshal(c); err == nil {
		_ = durable.WriteFile(a.file(q), b, 0o600)
	}
}
