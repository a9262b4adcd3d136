// Command mesh-install is the executor: it runs as root, once for each request, verifies a bundle itself and puts it
// in force. See package install for what it does; here are only arguments, the split in two processes, and the exit
// status. It must not be made setuid: whoever may start it may roll a machine back.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
	_ "time/tzdata" // a small machine may have none installed

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/isolate"
	"github.com/patchmesh/patchmesh/internal/build"
	"github.com/patchmesh/patchmesh/internal/problem"
)

const usage = `mesh-install puts a bundle in force that is complete in the local chunk store, or says why not.

  mesh-install apply --request FILE   act on a request of the daemon
  mesh-install status                 what is in force, kept and held back
  mesh-install rollback NAME          put the kept release before in force
  mesh-install audit                  read what is installed and kept, and say whether it is what was signed
  mesh-install retry NAME             forget the failures of a bundle, so that it is tried again
  mesh-install recover [--early]      finish or undo what a crash left; every other command does that first. --early, for
                                      the start of the machine: only what needs no service of it, the way back
  mesh-install version

  --config FILE   default /etc/meshd/mesh-install.yaml
  --json          print one JSON document

Exit status: 0 done or nothing to do, 1 deferred (nothing changed), 2 checksum, 3 signature or not meant for this
machine, 4 install failed and the release before is in force, 5 the way back failed too.
Example: mesh-install rollback pos-files --json
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// command is a parsed command line.
type command struct {
	verb, name, config, request string
	json, early                 bool
	args                        []string // as given, for the worker
}

func parse(args []string) (command, error) {
	c := command{args: args}
	bad := func(f string, a ...any) (command, error) {
		return c, problem.New(problem.Usage, f, a...).WithNext("mesh-install help")
	}
	if len(args) == 0 {
		return bad("a command is missing")
	}
	c.verb = args[0]
	fs := flag.NewFlagSet(c.verb, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&c.config, "config", "/etc/meshd/mesh-install.yaml", "")
	fs.StringVar(&c.request, "request", "", "")
	fs.BoolVar(&c.json, "json", false, "")
	fs.BoolVar(&c.early, "early", false, "")
	rest := args[1:]
	if len(rest) > 0 && rest[0] != "" && rest[0][0] != '-' { // NAME may stand before the flags
		c.name, rest = rest[0], rest[1:]
	}
	if err := fs.Parse(rest); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			c.verb = "help"
			return c, nil
		}
		return bad("%v", err)
	}
	if c.name == "" && fs.NArg() > 0 {
		c.name, rest = fs.Arg(0), fs.Args()[1:]
	} else {
		rest = fs.Args()
	}
	needsName := c.verb == "rollback" || c.verb == "retry"
	switch {
	case len(rest) > 0:
		return bad("%q is one argument too many", rest[0])
	case needsName && c.name == "":
		return bad("%s needs the name of a bundle", c.verb)
	case !needsName && c.name != "":
		return bad("%s takes no argument, not %q", c.verb, c.name)
	case (c.verb == "apply") != (c.request != ""):
		return bad("--request FILE belongs to apply, and apply needs it")
	case c.early && c.verb != "recover":
		return bad("--early belongs to recover")
	}
	return c, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 3 && args[0] == "worker" {
		return work(ctx, args[1], args[2], args[3:], stdout, stderr)
	}
	c, err := parse(args)
	if err != nil {
		return finish(c, install.Unusable(err), stdout, stderr)
	}
	switch c.verb {
	case "help", "-h", "--help":
		fmt.Fprint(stdout, usage)
		return install.ExitDone
	case "version":
		fmt.Fprintln(stdout, build.Line("mesh-install"))
		return install.ExitDone
	case "apply", "rollback", "retry", "recover", "audit", "status":
	default:
		return finish(c, install.Unusable(problem.New(problem.Usage, "there is no command %q", c.verb).WithNext("mesh-install help")), stdout, stderr)
	}
	cfg, err := install.ReadConfig(c.config)
	if err != nil {
		return finish(c, install.Unusable(err), stdout, stderr)
	}
	if c.verb == "status" {
		return printStatus(c, cfg, stdout, stderr)
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	w := isolate.Worker{
		Program: "/proc/self/exe", Args: args, Stdout: stdout, Stderr: stderr, Host: newHost(cfg, log),
		Require: cfg.Isolation == install.IsolationRequired,
	}
	code, err := w.Run(ctx)
	var killed *isolate.SignalError
	switch {
	case errors.As(err, &killed):
		return finish(c, install.Cut(err), stdout, stderr)
	case err != nil:
		return finish(c, install.Unusable(problem.New(problem.NoIsolation, "the worker cannot be run apart").Because(err).WithDone("nothing was changed")), stdout, stderr)
	}
	return code
}

// work is the part that runs apart. It keeps to one thread: its system calls come in one order, the one that the
// crash tests go through.
func work(ctx context.Context, outside, why string, args []string, stdout, stderr io.Writer) int {
	runtime.LockOSThread()
	syscall.Umask(0o022) // what is laid out is for everybody to read, whatever the caller's umask
	isolation := isolate.Enter(outside, why)
	c, err := parse(args)
	if err != nil {
		return finish(c, install.Unusable(err), stdout, stderr)
	}
	cfg, err := install.ReadConfig(c.config)
	if err != nil {
		return finish(c, install.Unusable(err), stdout, stderr)
	}
	parent, err := isolate.Parent()
	if err != nil {
		return finish(c, install.Unusable(err), stdout, stderr)
	}
	in := &install.Installer{
		Config: cfg, Host: parent, Providers: install.Providers(cfg), Isolation: isolation, Built: build.Time(), Now: time.Now,
		Log: slog.New(slog.NewTextHandler(stderr, nil)),
	}
	var r install.Result
	switch c.verb {
	case "apply":
		req, err := install.ReadRequest(c.request)
		if err != nil {
			r = install.Unusable(err)
			r.Isolation = isolation
			break
		}
		r = in.Apply(ctx, req)
	case "rollback":
		r = in.Rollback(ctx, c.name)
	case "retry":
		r = in.Retry(ctx, c.name)
	case "audit":
		r = in.Audit(ctx)
	case "recover":
		if c.early {
			r = in.RecoverEarly(ctx)
		} else {
			r = in.Recover(ctx)
		}
	}
	return finish(c, r, stdout, stderr)
}

// finish prints a result and returns its exit status.
func finish(c command, r install.Result, stdout, stderr io.Writer) int {
	write := r.WriteText
	if c.json {
		write = r.WriteJSON
	}
	if err := write(stdout); err != nil {
		fmt.Fprintf(stderr, "mesh-install: result: %v\n", err)
	}
	return r.Exit
}
