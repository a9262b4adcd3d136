package closure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/collect"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// bed is a root that may be spoiled.
type bed struct {
	root    string // does not exist yet
	private string
	list    *packages.List
	run     tool.Runner
	whole   bool // it has not only a database
}

// fromRoot copies a root.
func fromRoot(ctx context.Context, d *bed, root string) error {
	if os.Geteuid() != 0 {
		return problem.New(problem.Denied, "to install into a copy of %s takes root", root).WithDone("nothing was built").
			WithNext("run as root, or give the machine's database with --base")
	}
	from, err := filepath.Abs(root)
	if err == nil {
		var info os.FileInfo
		if info, err = os.Stat(from); err == nil && !info.IsDir() {
			err = fmt.Errorf("it is no directory")
		}
	}
	if err == nil && from == "/" {
		err = fmt.Errorf("it is this machine, with everything that is mounted in it")
	}
	if err != nil {
		return problem.New(problem.InvalidFile, "%s cannot be a base", root).Because(err).WithDone("nothing was built")
	}
	d.whole = true
	res, err := d.run.Run(ctx, tool.Command{Path: "cp", Args: []string{"--archive", "--one-file-system", "--reflink=auto", "--", from, d.root}})
	if err == nil && res.Exit != 0 {
		err = fmt.Errorf("cp: exit status %d: %.500s", res.Exit, res.Stderr)
	}
	return err
}

// fromList makes a root that holds nothing but a database.
func fromList(ctx context.Context, d *bed, name string) error {
	m, err := collect.ReadInstalled(name, d.list.Format)
	if err != nil {
		return err
	}
	if d.list.Format == manifest.FormatDeb {
		status := m.Status
		if status == nil {
			status = names(m.Installed, d.list)
		}
		return d.dpkg(status)
	}
	if m.Database == "" {
		return problem.New(problem.InvalidFile, "%s holds names and versions: of rpm packages these prove nothing, because nearly all they need has other names", name).
			WithDone("nothing was built").WithNext("give a copy of the machine's rpmdb.sqlite (rpm --eval %%_dbpath says where it is), or a root with --base-root")
	}
	res, err := d.run.Run(ctx, tool.Command{Path: "rpm", Args: []string{"--eval", "%{_dbpath}"}})
	if err != nil {
		return err
	}
	db := filepath.Join(d.root, strings.TrimSpace(string(res.Stdout)))
	if err := os.MkdirAll(db, 0o755); err != nil {
		return err
	}
	return collect.CopyDatabase(m.Database, db)
}

// dpkg lays out dpkg's database. dpkg --audit wants a list of files of every package; they are empty.
func (d *bed) dpkg(status []byte) error {
	var err error
	for _, dir := range []string{"etc/apt/preferences.d", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "var/lib/apt", "tmp"} {
		err = errors.Join(err, os.MkdirAll(filepath.Join(d.root, dir), 0o755))
	}
	write := func(name string, b []byte) {
		err = errors.Join(err, os.WriteFile(filepath.Join(d.root, "var/lib/dpkg", name), b, 0o644))
	}
	write("status", status)
	write("available", nil)
	write("info/format", []byte("1\n"))
	foreign := map[string]bool{}
	for _, p := range collect.Stanzas(status) {
		name, arch := p.Field("Package"), p.Field("Architecture")
		if !packages.Word(name) || !packages.Word(arch) {
			return problem.New(problem.InvalidFile, "package %q %q in the base is no package", name, arch)
		}
		if p.Field("Multi-Arch") == "same" {
			name += ":" + arch
		}
		write("info/"+name+".list", []byte("/.\n"))
		write("info/"+name+".md5sums", nil)
		foreign[arch] = true
	}
	if err != nil {
		return err
	}
	var archs bytes.Buffer
	for arch := range foreign {
		if arch != "all" {
			fmt.Fprintln(&archs, arch)
		}
	}
	return os.WriteFile(filepath.Join(d.root, "var/lib/dpkg/arch"), archs.Bytes(), 0o644)
}

// names makes a status file from names and versions. What the packages depend on is not known, and taken to be there. An
// architecture that the list does not say is that of the package of this name in the bundle, or the machine's.
func names(have []packages.Installed, l *packages.List) []byte {
	arch, native := map[string]string{}, ""
	for _, p := range l.Packages {
		arch[p.Name] = p.Arch
		if p.Arch != "all" {
			native = p.Arch
		}
	}
	for _, p := range have {
		if native == "" && p.Arch != "all" {
			native = p.Arch
		}
	}
	var b bytes.Buffer
	for _, p := range have {
		a := p.Arch
		if a == "" {
			a = arch[p.Name]
		}
		if a == "" {
			a = native
		}
		if a == "" {
			a = "all"
		}
		want := "install"
		if p.Held {
			want = "hold"
		}
		fmt.Fprintf(&b, "Package: %s\nStatus: %s ok installed\nArchitecture: %s\nVersion: %s\nMaintainer: unknown\nDescription: installed\n\n", p.Name, want, a, p.Version)
	}
	return b.Bytes()
}
