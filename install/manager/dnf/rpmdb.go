package dnf

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// duplicate is the State of a package of which the database holds several versions although it may hold one: a
// transaction was cut between the coming of the new and the going of the old.
const duplicate = "duplicate"

// installOnly are dnf's own names of what may be there in several versions ("installonlypkgs" in dnf.conf(5)).
var installOnly = []string{"kernel", "kernel-PAE", "installonlypkg(kernel)", "installonlypkg(kernel-module)", "installonlypkg(vm)", "multiversion(kernel)"}

// rpmdb is the directory of rpm's database, as rpm itself says: it differs from distribution to distribution.
func (m *Manager) rpmdb(ctx context.Context) (string, error) {
	if m.db == "" {
		res, err := m.run(ctx, tool.Command{Path: "rpm", Args: []string{"--eval", "%{_dbpath}"}})
		if err != nil {
			return "", err
		}
		db := strings.TrimSpace(string(res.Stdout))
		if res.Exit != 0 || !strings.HasPrefix(db, "/") {
			return "", toolError("rpm does not say where its database is", res)
		}
		m.db = db
	}
	return m.path(m.db), nil
}

// query runs rpm -q on the machine's database.
func (m *Manager) query(ctx context.Context, args ...string) (tool.Result, error) {
	db, err := m.rpmdb(ctx)
	if err != nil {
		return tool.Result{}, err
	}
	res, err := m.ask(ctx, tool.Command{Path: "rpm", Args: append([]string{"--dbpath=" + db, "-q"}, args...)})
	if err == nil && bytes.Contains(res.Stderr, []byte("error:")) {
		e := failure(res)
		e.Kind = manager.Broken // rpm passes over what it cannot read, with status 0
		return res, e
	}
	return res, err
}

const queryFormat = `%{NAME}\t%|EPOCH?{%{EPOCH}}:{0}|\t%{VERSION}-%{RELEASE}\t%{ARCH}\n`

// database lists the packages, in order.
func (m *Manager) database(ctx context.Context) ([]packages.Installed, error) {
	res, err := m.query(ctx, "-a", "--qf", queryFormat)
	if err != nil {
		return nil, err
	}
	if res.Exit != 0 {
		return nil, failure(res)
	}
	return parseDatabase(res.Stdout)
}

// parseDatabase reads lines of queryFormat. The keys that rpm keeps among the packages are left out.
func parseDatabase(b []byte) ([]packages.Installed, error) {
	var out []packages.Installed
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 4 || slices.Contains(f, "") {
			return nil, &manager.Error{Kind: manager.Tool, Detail: fmt.Sprintf("rpm lists a package as %q", line)}
		}
		if f[0] == "gpg-pubkey" {
			continue
		}
		p := packages.Installed{Name: f[0], Version: f[2], Arch: f[3]}
		if f[1] != "0" {
			p.Version = f[1] + ":" + p.Version
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b packages.Installed) int {
		if c := strings.Compare(a.Name+"\x00"+a.Arch, b.Name+"\x00"+b.Arch); c != 0 {
			return c
		}
		return compare(a.Version, b.Version)
	})
	return out, nil
}

// markDuplicates sets the State of what is in a list in order twice and may be there once. Of those the newest is as it
// should be.
func (m *Manager) markDuplicates(ctx context.Context, ps []packages.Installed) error {
	var r *rules
	for i := range len(ps) - 1 {
		if ps[i].ID() != ps[i+1].ID() {
			continue
		}
		if r == nil {
			read, err := readRules(m.cfg.Root)
			if err != nil {
				return err
			}
			r = &read
		}
		res, err := m.query(ctx, "--qf", `[%{PROVIDES}\n]`, ps[i].Name)
		if err != nil {
			return err
		}
		several := slices.ContainsFunc(strings.Fields(string(res.Stdout)), func(p string) bool {
			return slices.Contains(installOnly, p) || slices.Contains(r.installOnly, p)
		})
		if !several {
			ps[i].State = duplicate
		}
	}
	return nil
}

// dependencies are the packages that dnf's history marks as having come in for others. Where there is no history
// nothing is.
func (m *Manager) dependencies(ctx context.Context) (map[string]bool, error) {
	if _, err := os.Stat(m.path("var/lib/dnf/history.sqlite")); err != nil {
		return nil, nil
	}
	res, _, err := m.dnf(ctx, "", nil, "", "-q", "repoquery", "--installed", "--qf", `%{name}\t%{arch}\t%{reason}`)
	if err != nil {
		return nil, err
	}
	if res.Exit != 0 || res.Dropped > 0 {
		return nil, failure(res)
	}
	out := map[string]bool{}
	for line := range strings.Lines(string(res.Stdout)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 3 {
			return nil, toolError(fmt.Sprintf("dnf lists a package as %q", line), res)
		}
		if f[2] == "dependency" || f[2] == "weak-dependency" {
			out[f[0]+":"+f[1]] = true
		}
	}
	return out, nil
}
