// Package cli is what the programs have in common at a terminal: how they are started, how an error becomes a
// message and an exit status, and how numbers and tables look. Standard output carries the answer and nothing else;
// everything said beside it goes to standard error. It holds no command and keeps no state; a program calls Run
// once, from main.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// Env is everything that a command may take from the process it runs in, so that a test can replace it.
type Env struct {
	Args   []string // without the program's name
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
	Now    func() time.Time
}

// System is the Env of this process.
func System() Env {
	return Env{os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv, time.Now}
}

// Main runs the command until it ends and returns the exit status. The first SIGINT or SIGTERM cancels the context,
// the second kills the process.
func Main(env Env, root *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from here on a second signal has its usual effect
	return int(Run(ctx, env, root))
}

// Run executes the command tree with env's arguments. An error is printed on env.Stderr: as text, or as one line of
// JSON when the command that ran has a flag --json that is set or -o that says json.
func Run(ctx context.Context, env Env, root *cobra.Command) problem.Exit {
	root.SetArgs(env.Args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return Usage(c, "%s", err) })
	prepare(root)
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil && help != root {
		help.Args = func(_ *cobra.Command, args []string) error { return known(root, args) }
	}

	ran, err := root.ExecuteContextC(ctx)
	if err == nil {
		return problem.ExitOK
	}
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		fmt.Fprintln(env.Stderr, "interrupted")
		return problem.ExitInterrupted
	}
	var silent Status
	if errors.As(err, &silent) {
		return problem.Exit(silent)
	}
	p := explain(ran, err)
	if wantsJSON(ran) {
		printJSON(env.Stderr, p)
	} else {
		fmt.Fprintln(env.Stderr, p.Text())
	}
	return problem.ExitOf(p)
}

// known refuses to help with a command that there is not.
func known(root *cobra.Command, args []string) error {
	c, rest, err := root.Find(args)
	if err != nil || len(rest) > 0 {
		return Usage(c, "unknown command %q for %q", args[len(args)-max(1, len(rest))], c.CommandPath())
	}
	return nil
}

// prepare gives every command that only groups others the same behaviour: help without arguments, an error with
// some, because an unknown verb is a mistake and not a question.
func prepare(c *cobra.Command) {
	c.DisableFlagsInUseLine = true
	for _, sub := range c.Commands() {
		prepare(sub)
	}
	if c.HasSubCommands() && !c.Runnable() {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				c.SuggestionsMinimumDistance = 2
				p := Usage(c, "unknown command %q for %q", args[0], c.CommandPath())
				if like := c.SuggestionsFor(args[0]); len(like) > 0 {
					p.WithNext("%s %s, or %s --help", c.CommandPath(), like[0], c.CommandPath())
				}
				return p
			}
			return c.Help()
		}
	}
}

// Status is an exit status that says something by itself: nothing is printed for it.
type Status problem.Exit //nolint:errname // it is the exit status; that it is an error is how it gets out

// Error implements error.
func (s Status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// Usage is the error for arguments that do not fit the command.
func Usage(c *cobra.Command, format string, args ...any) *problem.Error {
	return problem.New(problem.Usage, format, args...).WithNext("%s --help", c.CommandPath())
}

// Args demands between least and most arguments; what names them in the message.
func Args(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return Usage(c, "missing argument: want %s", what)
		case len(args) > most && most == 0:
			return Usage(c, "unexpected argument %q", args[0])
		case len(args) > most:
			return Usage(c, "unexpected argument %q: want %s", args[most], what)
		}
		return nil
	}
}

// explain finds or makes the *problem.Error that a person reads. An error of a file is the reader's to mend.
func explain(c *cobra.Command, err error) *problem.Error {
	var p *problem.Error
	var file *fs.PathError
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Timeout, "%s", c.CommandPath()).Because(err)
	case errors.Is(err, syscall.ENOSPC):
		return problem.New(problem.DiskFull, "%s", err)
	case errors.As(err, &file):
		return problem.New(problem.InvalidFile, "%s", err)
	}
	return problem.New(problem.Internal, "%s", err)
}

func wantsJSON(c *cobra.Command) bool {
	if f := c.Flags().Lookup("json"); f != nil && f.Value.String() == "true" {
		return true
	}
	f := c.Flags().Lookup("output")
	return f != nil && f.Value.String() == "json"
}

// jsonError is the contract of an error under --json; fields may be added.
type jsonError struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Code       problem.Code `json:"code"`
	Exit       problem.Exit `json:"exit"`
	Message    string       `json:"message"`
	Done       string       `json:"done,omitempty"`
	Hint       string       `json:"hint,omitempty"`
}

func printJSON(w io.Writer, p *problem.Error) {
	message := p.Subject
	if p.Cause != nil {
		message += ": " + p.Cause.Error()
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	// Standard error is the last place to report anything: if it fails there is nobody to tell.
	_ = e.Encode(jsonError{"meshctl.io/v1", "Error", p.Code, problem.ExitOf(p), message, p.Done, p.Next})
}
