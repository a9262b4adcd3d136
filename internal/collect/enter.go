package collect

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// enter makes a root whose database says what a machine has: the machine's own, or one of stubs.
func (d *dnf) enter(ctx context.Context, root string, m *Machine) error {
	db := filepath.Join(root, d.db)
	if err := os.MkdirAll(db, 0o755); err != nil {
		return err
	}
	switch {
	case m.Database != "":
		if err := CopyDatabase(m.Database, db); err != nil {
			return err
		}
		res, err := d.tool(ctx, nil, d.dir, "rpm", "--dbpath="+db, "-qa", "--qf", nevraFormat)
		if err != nil {
			return err
		}
		m.Installed, err = parseRPMList(res.Stdout)
		if err != nil || res.Exit != 0 || len(m.Installed) == 0 {
			return problem.New(problem.InvalidFile, "%s is no database that rpm can read", m.Database).Because(err).WithDone("nothing was collected").
				WithNext("copy /var/lib/rpm/rpmdb.sqlite from the machine, or give the output of: rpm -qa")
		}
		return nil
	case len(m.Installed) == 0:
		return nil
	}
	return d.stubs(ctx, root, db, m.Installed)
}

// maxDatabaseBytes bounds a copy of rpm's database: some 100 MB on a large machine.
const maxDatabaseBytes = 2 << 30

// CopyDatabase copies rpm's database, one file or a directory, into a directory.
func CopyDatabase(from, db string) error {
	files, one := []string{from}, true
	if info, err := os.Stat(from); err == nil && info.IsDir() {
		one = false
		if files, err = filepath.Glob(filepath.Join(from, "*")); err != nil {
			return err
		}
	}
	for _, name := range files {
		to := filepath.Base(name)
		if one {
			to = "rpmdb.sqlite"
		}
		b, err := readFile(name, maxDatabaseBytes)
		if err == nil {
			err = os.WriteFile(filepath.Join(db, to), b, 0o644)
		}
		if err != nil {
			return problem.New(problem.InvalidFile, "the database %s cannot be copied", from).Because(err).WithDone("nothing was changed")
		}
	}
	return nil
}

// stubs enters packages of which only names and versions are known. What they provide is taken from the packages of the
// same names in the sources, of the same version where it is still there. What they require is left out: the machine
// has it.
func (d *dnf) stubs(ctx context.Context, root, db string, have []packages.Installed) error {
	known, err := d.capabilities(ctx, root, have)
	if err != nil {
		return err
	}
	dir := root + ".stubs"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var files []string
	for i, p := range have {
		like, ok := known[p.Name+" "+p.Version+" "+p.Arch]
		if !ok {
			like = known[p.Name]
		}
		var provides []provided
		for _, c := range like.provides {
			if c.name == p.Name { // the stub has that, with its own version
				continue
			}
			if c.version == like.version { // such as config(NAME) and NAME(x86-64)
				c.version = p.Version
			}
			provides = append(provides, c)
		}
		name := filepath.Join(dir, strconv.Itoa(i)+".rpm")
		if err := os.WriteFile(name, stubRPM(p, provides), 0o644); err != nil {
			return err
		}
		files = append(files, name)
	}
	list := filepath.Join(dir, "all") // rpm reads names from a file, where a command line would be too long
	if err := os.WriteFile(list, []byte(strings.Join(files, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	res, err := d.tool(ctx, nil, d.dir, "rpm", append(strings.Fields(justDB), "--dbpath="+db, list)...)
	if err != nil {
		return err
	}
	if res.Exit != 0 {
		return fmt.Errorf("rpm: list of installed packages: exit status %d: %s", res.Exit, complaints(said(res)))
	}
	return nil
}

// capability is what a package in the sources provides.
type capability struct {
	version  string
	provides []provided
}

// mark begins a package in what dnf repoquery prints: no capability and no file begins so.
const mark = "\x01"

// capabilities asks dnf for what the packages of these names in the sources provide, with the files that others may
// require: those that every repository's primary metadata lists.
func (d *dnf) capabilities(ctx context.Context, root string, have []packages.Installed) (map[string]capability, error) {
	known := map[string]capability{}
	var names []string
	for _, p := range have {
		names = append(names, p.Name)
	}
	for batch := range slices.Chunk(sorted(names), 200) {
		res, err := d.dnf(ctx, root, append([]string{"--quiet", "repoquery", "--available", "--queryformat",
			mark + "%{name} %{epoch}:%{version}-%{release} %{arch}\n%{provides}\n%{files}"}, batch...)...)
		if err != nil {
			return nil, err
		}
		if res.Exit != 0 {
			return nil, updateProblem(res)
		}
		parseCapabilities(string(res.Stdout), known)
	}
	return known, nil
}

// parseCapabilities notes each package under "NAME VERSION ARCH", and the last one under its name.
func parseCapabilities(text string, known map[string]capability) {
	for part := range strings.SplitSeq(text, mark) {
		head, rest, _ := strings.Cut(part, "\n")
		f := strings.Fields(head)
		if len(f) != 3 {
			continue
		}
		c := capability{version: strings.TrimPrefix(f[1], "0:")}
		for line := range strings.Lines(rest) {
			line = strings.TrimSpace(line)
			name, version, _ := strings.Cut(line, " = ")
			if name == "" || strings.HasPrefix(name, "/") && !requirable(name) {
				continue
			}
			c.provides = append(c.provides, provided{name, version})
		}
		known[f[0]], known[f[0]+" "+c.version+" "+f[2]] = c, c
	}
}

// requirable are the files that dependencies may name without the list of all files (createrepo_c, "primary files").
func requirable(file string) bool {
	return strings.HasPrefix(file, "/etc/") || strings.Contains(file, "bin/") || file == "/usr/lib/sendmail"
}
