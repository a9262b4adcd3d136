// Package collect gathers, on a build machine that reaches the distribution's repositories, what one variant of an
// operating system needs: the updates of what its machines have installed, and everything these pull in. The real apt
// and dnf resolve and download, in a configuration of their own, with signatures checked; nothing of this machine is
// read but where its own sources are asked for, and nothing of it changes. Only dnf wants root. It builds no bundle
// (chunker does) and proves nothing about a node (internal/closure).
//
// The result is a directory of packages with a packages.json that says for each what it is for. It appears under its
// name whole or not at all. Functions are safe for concurrent use.
package collect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/progress"
)

// Options say what to collect. Target, with a concrete architecture, and Dest are required, and Installed or a name.
type Options struct {
	Target    manifest.Target // of format deb or rpm
	Installed []string        // files that say what machines have, see ReadInstalled
	Only      []string        // names: nothing but these and what they need; none: every update there is
	Install   []string        // names that every machine is to have
	Remove    []string        // names that may be removed for it
	Sources   []string        // deb: lines of sources.list; rpm: base URLs
	Files     []string        // sources in files: deb: .list, .sources; rpm: .repo. With no source at all: this machine's own
	Keys      []string        // files of public keys; deb: for sources without signed-by; rpm: for all, beside what their gpgkey names
	Here      manifest.Facts  // what this machine is: its own sources are for its own system
	Dest      string          // a directory that is not there yet
	Progress  *progress.Reporter
}

// Result is what was collected.
type Result struct {
	Packages []Package `json:"packages"`
	Kept     []string  `json:"kept"`  // updates that the solver left out because a package would have to go, or is held
	Bytes    int64     `json:"bytes"` // of the package files
}

// Package is one that was collected.
type Package struct {
	packages.Package
	From []string `json:"from"` // the versions that machines have now, in order; none: it is new
}

// backend is what differs between the formats.
type backend interface {
	// prepare fetches and verifies the metadata of the sources.
	prepare(ctx context.Context) error
	// resolve says what is to come on one machine, and what was kept back. It fills in what the machine has where that
	// takes a tool to read.
	resolve(ctx context.Context, m *Machine) (found []packages.Package, kept []string, err error)
	// download fetches exactly these packages into dir, verified, and fills in File and InstalledBytes.
	download(ctx context.Context, dir string, ps []packages.Package) error
	// keys puts the public keys that signed the packages into dir and returns their paths below it.
	keys(ctx context.Context, dir string) ([]string, error)
}

// Run collects. A Result without packages means that there is nothing to do, and nothing was made.
func Run(ctx context.Context, o Options) (*Result, error) {
	machines, err := o.machines()
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(o.Dest); err == nil {
		return nil, problem.New(problem.AlreadyExists, "%s exists already", o.Dest).WithDone("nothing was collected").WithNext("name a directory that is not there yet")
	}
	dest, err := filepath.Abs(o.Dest)
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dest), durable.TempPrefix+"*")
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "%s cannot be made", o.Dest).Because(err)
	}
	defer os.RemoveAll(tmp) // what was renamed is no longer there
	defer o.Progress.Stop()
	w := work{dir: filepath.Join(tmp, "work"), o: &o, run: tool.Runner{ID: "collect-" + strings.TrimPrefix(filepath.Base(tmp), durable.TempPrefix), Env: proxies()}}
	content := filepath.Join(tmp, "content")
	if err := errors.Join(os.Mkdir(w.dir, 0o755), os.Mkdir(content, 0o755)); err != nil {
		return nil, err
	}
	var b backend
	switch o.Target.Format {
	case manifest.FormatDeb:
		b = &apt{work: w}
	case manifest.FormatRPM:
		b = &dnf{work: w}
	default:
		return nil, problem.New(problem.Usage, "format %q: only deb and rpm can be collected", o.Target.Format)
	}
	r, err := w.collect(ctx, b, machines, content)
	if err != nil || len(r.Packages) == 0 {
		return r, err
	}
	if err := errors.Join(os.Chmod(content, 0o755), durable.SyncTree(content)); err != nil {
		return nil, err
	}
	if err := durable.Rename(content, dest); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = problem.New(problem.AlreadyExists, "%s exists already", o.Dest).Because(err)
		}
		return nil, err
	}
	return r, nil
}

// work is what both back ends share.
type work struct {
	dir string // private and empty
	o   *Options
	run tool.Runner
}

func (w work) collect(ctx context.Context, b backend, machines []Machine, content string) (*Result, error) {
	o := w.o
	o.Progress.Stage("sources", 0, progress.Files)
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	o.Progress.Stage("resolve", int64(len(machines)), progress.Files)
	u := union{o: o, machines: machines}
	for i := range machines {
		found, kept, err := b.resolve(ctx, &machines[i])
		if err == nil {
			err = u.add(found, kept)
		}
		if err != nil {
			return nil, err
		}
		o.Progress.Add(1)
	}
	ps := u.packages()
	if len(ps) == 0 {
		o.Progress.Done()
		return &Result{Packages: []Package{}, Kept: sorted(u.kept)}, nil
	}
	o.Progress.Stage("download", int64(len(ps)), progress.Files)
	if err := b.download(ctx, content, ps); err != nil {
		return nil, err
	}
	keys, err := b.keys(ctx, content)
	if err != nil {
		return nil, err
	}
	l := &packages.List{Schema: packages.Schema, Format: o.Target.Format, Packages: ps, Remove: sorted(o.Remove), Keys: keys, Conffiles: packages.Keep}
	raw, err := l.Encode()
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "what was collected cannot become a bundle").Because(err)
	}
	if err := os.WriteFile(filepath.Join(content, packages.FileName), raw, 0o644); err != nil {
		return nil, err
	}
	r := &Result{Kept: sorted(u.kept)}
	for _, p := range ps {
		info, err := os.Stat(filepath.Join(content, p.File))
		if err != nil {
			return nil, err
		}
		r.Bytes += info.Size()
		r.Packages = append(r.Packages, Package{Package: p, From: u.from(p)})
	}
	o.Progress.Done()
	return r, nil
}

// tool runs a program in the private directory; what must be known of its failure is in the Result.
func (w work) tool(ctx context.Context, env []string, dir, program string, args ...string) (tool.Result, error) {
	res, err := w.run.Run(ctx, tool.Command{Path: program, Args: args, Dir: dir, Env: env})
	switch {
	case ctx.Err() != nil:
		return res, ctx.Err()
	case errors.Is(err, fs.ErrNotExist) || err != nil && !tool.Has(program):
		return res, problem.New(problem.MissingTool, "%s is not installed", program).Because(err).
			WithDone("nothing was collected").WithNext("collect on a machine of the family of %s, or install %s", w.o.Target.OS, program)
	case err != nil:
		return res, fmt.Errorf("%s: %w", program, err)
	}
	return res, nil
}

// proxies are what a build machine says of its way out.
func proxies() (env []string) {
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// readFile reads a file that has at most limit bytes.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return b, err
}

// sorted is a copy in order, without repetitions.
func sorted(s []string) []string {
	s = append([]string{}, s...)
	slices.Sort(s)
	return slices.Compact(s)
}
