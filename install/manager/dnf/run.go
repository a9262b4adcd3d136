package dnf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/tool"
)

// repoID names the bundle's repository, the only one there is.
const repoID = "bundle"

// configuration is dnf's, whole: nothing of the machine's reaches dnf but what readRules carried over.
//
//   - best, strict, skip_if_unavailable: what is missing or unreadable is an error; distributions ship the opposite, with
//     which dnf leaves out what it cannot have and ends with status 0.
//   - gpgcheck: verify has done it, against the bundle's keys only; here it would import them for good.
//   - clean_requirements_on_remove: nothing goes that the list does not name.
//   - exit_on_lock: we say who holds it and come back, instead of waiting without an end.
const configuration = `[main]
reposdir=%[1]s
pluginpath=%[1]s
plugins=0
best=1
strict=1
skip_if_unavailable=0
install_weak_deps=0
clean_requirements_on_remove=0
obsoletes=1
exit_on_lock=1
assumeyes=1
defaultyes=0
keepcache=0
metadata_expire=0
gpgcheck=0
localpkg_gpgcheck=0
repo_gpgcheck=0
deltarpm=0
color=never
debuglevel=2
errorlevel=2
history_record=1
excludepkgs=%[2]s
%[3]s`

// repository has module_hotfixes because a stream that is switched on would hide packages of no module.
const repository = `[` + repoID + `]
name=` + repoID + `
baseurl=%s
enabled=1
gpgcheck=0
skip_if_unavailable=0
metadata_expire=0
module_hotfixes=1
`

type mode int

const (
	forReal  mode = iota
	simulate      // up to and with rpm's own test; leaves the machine's history and lock alone
)

// ran is a run of dnf that the caller may look into.
type ran struct {
	res      tool.Result
	solution []step
}

func (r ran) output() manager.Output {
	// Each stream by itself: where both are mixed, one may break in upon a line of the other.
	return manager.Output{Exit: r.res.Exit, Log: tail(r.res.Both), Complain: append(complaints(r.res.Stderr), complaints(r.res.Stdout)...)}
}

// transact runs dnf with the bundle's repository and reads what its solver answered.
func (m *Manager) transact(ctx context.Context, o manager.Order, w wish, how mode, args ...string) (ran, error) {
	repo := fmt.Sprintf(repository, fileURL(o.Repo))
	if len(o.List.Remove) > 0 {
		args = append([]string{"--allowerasing"}, args...) // what the solver would take is held to the list
	}
	if how == simulate {
		persist, err := m.private("persist")
		if err != nil {
			return ran{}, err
		}
		args = append([]string{"--setopt=persistdir=" + persist, "--setopt=tsflags=test"}, args...)
	} else {
		if err := m.dropStaleLock(); err != nil {
			return ran{}, err
		}
		args = append([]string{"--comment=patchmesh " + m.cfg.Runner.ID}, args...)
	}
	res, work, err := m.dnf(ctx, repo, w.exclude, w.rules.carried, append([]string{"--debugsolver"}, args...)...)
	out := ran{res: res}
	if err != nil {
		return out, err
	}
	if res.Exit != 0 {
		return out, failure(res)
	}
	b, err := readAtMost(filepath.Join(work, "debugdata/rpms/solver.result"), maxSolution)
	if errors.Is(err, os.ErrNotExist) && nothingToDo(res.Both) {
		return out, nil
	}
	if err != nil {
		return out, toolError("the solver's answer cannot be read: "+err.Error(), res)
	}
	if out.solution, err = parseSolution(b); err != nil {
		return out, toolError(err.Error(), res)
	}
	return out, nil
}

// dnf runs dnf with a configuration, a cache and a working directory that are new each time: a cache would answer for a
// repository of the same path and other content.
func (m *Manager) dnf(ctx context.Context, repo string, exclude []string, main string, args ...string) (tool.Result, string, error) {
	program, err := dnf4()
	if err != nil {
		return tool.Result{Exit: -1}, "", err
	}
	dir, err := m.private("dnf")
	if err != nil {
		return tool.Result{Exit: -1}, "", err
	}
	repos, work, log := filepath.Join(dir, "repos"), filepath.Join(dir, "work"), filepath.Join(dir, "log")
	conf := fmt.Sprintf(configuration, repos, strings.Join(exclude, " "), main)
	err = errors.Join(os.Mkdir(repos, 0o700), os.Mkdir(work, 0o700), os.Mkdir(log, 0o700),
		os.WriteFile(filepath.Join(dir, "dnf.conf"), []byte(conf), 0o600))
	if err == nil && repo != "" {
		err = os.WriteFile(filepath.Join(repos, repoID+".repo"), []byte(repo), 0o600)
	}
	if err != nil {
		return tool.Result{Exit: -1}, "", err
	}
	base := []string{"--config=" + filepath.Join(dir, "dnf.conf"), "--setopt=cachedir=" + m.outside(filepath.Join(dir, "cache")), "--setopt=logdir=" + m.outside(log)}
	if m.cfg.Root != "/" {
		base = append(base, "--installroot="+m.cfg.Root, "--releasever=1")
	}
	res, err := m.run(ctx, tool.Command{Path: program, Args: append(base, args...), Dir: work})
	return res, work, err
}

// outside is a path of the host as dnf is to be told it: with a root dnf puts the root before the path at first, and
// later does not (_read_conf_file in dnf/cli/cli.py), so it has to lead to the same place either way.
func (m *Manager) outside(path string) string {
	if m.cfg.Root == "/" {
		return path
	}
	return strings.Repeat("/..", 40) + path
}

// run runs a program, and says in the words of a Manager when it did not come to its own end.
func (m *Manager) run(ctx context.Context, c tool.Command) (tool.Result, error) {
	res, err := m.cfg.Runner.Run(ctx, c)
	switch {
	case errors.Is(err, tool.ErrKilled), err == nil && res.Exit < 0:
		return res, &manager.Error{Kind: manager.Cut, Detail: c.Path + " was killed", Exit: -1, Log: tail(res.Both)}
	case err != nil:
		return res, &manager.Error{Kind: manager.Tool, Detail: err.Error(), Exit: -1}
	}
	return res, nil
}

// ask is run for a program whose output is read: an answer that lacks its beginning is none.
func (m *Manager) ask(ctx context.Context, c tool.Command) (tool.Result, error) {
	res, err := m.run(ctx, c)
	if err == nil && res.Dropped > 0 {
		err = toolError(fmt.Sprintf("%s said more than %d bytes", c.Path, tool.MaxOutput), res)
	}
	return res, err
}

// dnf4 names the program: where dnf 5 has taken the name "dnf", its predecessor is still there under its own.
func dnf4() (string, error) {
	for _, name := range []string{"dnf-3", "dnf4"} {
		if tool.Has(name) {
			return name, nil
		}
	}
	return "", &manager.Error{Kind: manager.Tool, Detail: "dnf 4 (dnf-3) is not installed", Exit: -1}
}

// fileURL writes a path for baseurl=, where dnf would see variables.
func fileURL(path string) string {
	var u strings.Builder
	u.WriteString("file://")
	for _, c := range []byte(path) {
		if c == '/' || c == '.' || c == '-' || c == '_' || digit(rune(c)) || letter(rune(c)) {
			u.WriteByte(c)
		} else {
			fmt.Fprintf(&u, "%%%02X", c)
		}
	}
	return u.String()
}

// readAtMost reads a file that has to be small.
func readAtMost(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", name, limit)
	}
	return b, err
}
