package cli_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// program is a small tree: tool noun verb ARG.
func program(err error) *cobra.Command {
	root := &cobra.Command{Use: "tool"}
	noun := &cobra.Command{Use: "noun", Short: "things"}
	verb := &cobra.Command{Use: "verb ARG", Args: cli.Args(1, 1, "ARG"), RunE: func(c *cobra.Command, _ []string) error {
		c.PrintErrln("ran")
		return err
	}}
	verb.Flags().Bool("json", false, "machine output")
	noun.AddCommand(verb)
	root.AddCommand(noun)
	return root
}

func TestRun(t *testing.T) {
	corrupt := problem.New(problem.ChunkCorrupt, "chunk 7 of app 1.2").WithDone("it was dropped").WithNext("meshctl bundle verify app")
	for _, c := range []struct {
		name, args string
		err        error
		exit       problem.Exit
		stderr     string // all of it
	}{
		{"good", "noun verb x", nil, 0, "ran\n"},
		{"missing argument", "noun verb", nil, 2, "error[E1001]: missing argument: want ARG\n  next: tool noun verb --help\n"},
		{"too many", "noun verb x y", nil, 2, "error[E1001]: unexpected argument \"y\": want ARG\n  next: tool noun verb --help\n"},
		{"unknown flag", "noun verb x --fast", nil, 2, "error[E1001]: unknown flag: --fast\n  next: tool noun verb --help\n"},
		{"unknown verb", "noun vreb", nil, 2, "error[E1001]: unknown command \"vreb\" for \"tool noun\"\n  next: tool noun verb, or tool noun --help\n"},
		{"unknown verb, like none", "noun jump", nil, 2, "error[E1001]: unknown command \"jump\" for \"tool noun\"\n  next: tool noun --help\n"},
		{"unknown noun", "nuon", nil, 2, "error[E1001]: unknown command \"nuon\" for \"tool\"\n  next: tool noun, or tool --help\n"},
		{"help for what is not there", "help noun jump", nil, 2, "error[E1001]: unknown command \"jump\" for \"tool noun\"\n  next: tool noun --help\n"},
		{"problem", "noun verb x", corrupt, 5, "ran\nerror[E2103]: chunk 7 of app 1.2\n  done: it was dropped\n  next: meshctl bundle verify app\n"},
		{"problem as JSON", "noun verb x --json", corrupt, 5, `ran
{"apiVersion":"meshctl.io/v1","kind":"Error","code":"E2103","exit":5,"message":"chunk 7 of app 1.2","done":"it was dropped","hint":"meshctl bundle verify app"}
`},
		{"file", "noun verb x", &fs.PathError{Op: "open", Path: "gone", Err: os.ErrNotExist}, 2, "ran\nerror[E1002]: open gone: file does not exist\n"},
		{"no class", "noun verb x", errors.New("out of luck"), 1, "ran\nerror[E9001]: out of luck\n"},
		{"time ran out", "noun verb x", context.DeadlineExceeded, 8, "ran\nerror[E3302]: tool noun verb: context deadline exceeded\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs strings.Builder
			env := cli.Env{Args: strings.Fields(c.args), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs}
			if got := cli.Run(context.Background(), env, program(c.err)); got != c.exit {
				t.Errorf("exit %d, want %d", got, c.exit)
			}
			if errs.String() != c.stderr {
				t.Errorf("stderr:\n%swant:\n%s", errs.String(), c.stderr)
			}
			if out.String() != "" {
				t.Errorf("talk on stdout: %q", out.String())
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	signal := errors.New("interrupt signal received") // what signal.NotifyContext gives as the cause
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(signal)
	for name, c := range map[string]struct {
		err  error
		exit problem.Exit
	}{
		"canceled":         {fmt.Errorf("chunk 7: %w", context.Canceled), problem.ExitInterrupted},
		"the signal":       {fmt.Errorf("chunk 7: %w", signal), problem.ExitInterrupted},
		"something before": {problem.New(problem.ChunkCorrupt, "chunk 7"), problem.ExitVerification},
	} {
		var errs strings.Builder
		env := cli.Env{Args: []string{"noun", "verb", "x"}, Stdout: &errs, Stderr: &errs}
		if got := cli.Run(ctx, env, program(c.err)); got != c.exit {
			t.Errorf("%s: exit %d, want %d", name, got, c.exit)
		}
	}
}

func TestRate(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bit/s", 750_000: "6 Mbit/s", 512_500: "4.1 Mbit/s", 1 << 30: "8.59 Gbit/s"} {
		if got := cli.Rate(n); got != want {
			t.Errorf("Rate(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 12 * time.Second: "12s", 5*time.Minute + 59*time.Second: "5m",
		time.Hour + 51*time.Minute: "1h51m", 76 * time.Hour: "3d04h",
	} {
		if got := cli.Age(d); got != want {
			t.Errorf("Age(%s) = %q, want %q", d, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	if got := cli.Printable("ok\x1b[2J\nß\u202e"); got != "ok?[2J?ß?" {
		t.Errorf("got %q", got)
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	var tab cli.Table
	tab.Row("NODE", "WAN", "REASON")
	tab.Row("pos-01", cli.Right(8, "205 MiB"), "")
	tab.Row("pos-2", cli.Right(8, "0 B"), "waits")
	if _, err := tab.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if want := "NODE    WAN       REASON\npos-01   205 MiB\npos-2        0 B  waits\n"; b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}
