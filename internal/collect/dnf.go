package collect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// dnfSettings is the whole configuration of dnf 4. Distributions ship the opposite of best, strict and
// skip_if_unavailable: what is missing or unreadable is left out, with status 0. Keys come from files that were given;
// a key that came over the same network as the packages would prove nothing.
const dnfSettings = `[main]
reposdir=%[1]s
varsdir=%[2]s
cachedir=%[3]s
logdir=%[4]s
persistdir=%[5]s
pluginpath=%[1]s
plugins=0
best=1
strict=1
install_weak_deps=0
obsoletes=1
assumeyes=1
keepcache=1
deltarpm=0
gpgcheck=1
localpkg_gpgcheck=1
metadata_expire=86400
color=never
`

// rpmArch are rpm's names of Go's architectures.
var rpmArch = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i686", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}

// justDB are rpm's options to enter packages in a database and do nothing else: no file, no script, no check.
const justDB = "--install --justdb --nodeps --noscripts --notriggers --nosignature --nodigest --ignorearch --ignoreos --ignoresize --force"

// dnf collects with dnf 4 in roots that hold nothing but a database.
type dnf struct {
	work
	base []string // options of every call
	key  []string // files
	db   string   // where rpm has its database below a root
	n    int      // machines resolved so far
}

func (d *dnf) file(name string) string { return filepath.Join(d.dir, name) }

// dnf runs dnf on a root; its working directory gets what --debugsolver writes.
func (d *dnf) dnf(ctx context.Context, root string, args ...string) (tool.Result, error) {
	program := "dnf"
	if tool.Has("dnf-3") { // dnf 5 has taken the name, and has other options
		program = "dnf-3"
	}
	return d.tool(ctx, nil, d.file("solver"), program, slices.Concat(d.base, []string{"--installroot=" + root}, args)...)
}

// prepare writes the configuration and the sources, and fetches the metadata.
func (d *dnf) prepare(ctx context.Context) error {
	arch, ok := rpmArch[d.o.Target.Arch]
	if !ok || d.o.Target.Release == manifest.Any {
		return problem.New(problem.Usage, "to collect, --target-os must name a release and an architecture, as rhel-9/x86_64 does")
	}
	for _, dir := range []string{"repos", "vars", "cache", "log", "persist", "solver", "downloads", "keys", "root.0"} {
		if err := os.MkdirAll(d.file(dir), 0o755); err != nil {
			return err
		}
	}
	vars := d.file("vars")
	own := len(d.o.Sources)+len(d.o.Files) == 0
	if own {
		if err := d.o.sameSystem(); err != nil {
			return err
		}
		vars = "/etc/dnf/vars,/etc/yum/vars"
	}
	release, _, _ := strings.Cut(d.o.Target.Release, ".") // VERSION_ID is 9.4 where the repositories' release is 9
	if err := d.sources(own, release, arch); err != nil {
		return err
	}
	conf := fmt.Sprintf(dnfSettings, d.file("repos"), vars, d.file("cache"), d.file("log"), d.file("persist"))
	if err := os.WriteFile(d.file("dnf.conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	var urls []string
	for _, k := range d.key {
		urls = append(urls, "file://"+k)
	}
	d.base = []string{"--config=" + d.file("dnf.conf"), "--releasever=" + release, "--forcearch=" + arch,
		"--setopt=cachedir=" + d.file("cache"), "--setopt=logdir=" + d.file("log"), "--setopt=persistdir=" + d.file("persist"),
		"--setopt=*.gpgcheck=1", "--setopt=*.skip_if_unavailable=0", "--setopt=*.gpgkey=" + strings.Join(urls, " ")}
	res, err := d.tool(ctx, nil, d.dir, "rpm", "--eval", "%{_dbpath}")
	if err != nil {
		return err
	}
	if d.db = strings.TrimSpace(string(res.Stdout)); !strings.HasPrefix(d.db, "/") {
		return fmt.Errorf("rpm says that its database is in %q", d.db)
	}
	if res, err = d.dnf(ctx, d.file("root.0"), "makecache"); err != nil {
		return err
	}
	return updateProblem(res)
}

// sources writes the repositories, and finds the files of their keys.
func (d *dnf) sources(own bool, release, arch string) error {
	files := d.o.Files
	if own {
		var err error
		if files, err = filepath.Glob("/etc/yum.repos.d/*.repo"); err != nil {
			return err
		}
	}
	keys := slices.Clone(d.o.Keys)
	for i, name := range files {
		b, err := readFile(name, 1<<20)
		if err != nil {
			return problem.New(problem.InvalidFile, "%s cannot be read", name).Because(err).WithDone("nothing was collected")
		}
		if err := os.WriteFile(d.file("repos/"+strconv.Itoa(i)+".repo"), b, 0o644); err != nil {
			return err
		}
		for _, k := range keyFiles(string(b), release, arch) {
			if _, err := os.Stat(k); err == nil {
				keys = append(keys, k)
			}
		}
	}
	for i, url := range d.o.Sources {
		if strings.ContainsAny(url, " \t\n\r$") || !strings.Contains(url, "://") {
			return problem.New(problem.Usage, "source %q: want the base URL of a dnf repository", url)
		}
		id := "source-" + strconv.Itoa(i+1)
		if err := os.WriteFile(d.file("repos/"+id+".repo"), []byte("["+id+"]\nname="+id+"\nbaseurl="+url+"\nenabled=1\n"), 0o644); err != nil {
			return err
		}
	}
	keys = sorted(keys)
	if len(keys) == 0 || len(keys) > packages.MaxKeys {
		return problem.New(problem.SignatureInvalid, "%d files of public keys: want 1 to %d", len(keys), packages.MaxKeys).WithDone("nothing was collected").
			WithNext("give the vendor's key with --key FILE, or in the .repo file as gpgkey=file:///...; compare its fingerprint with what the vendor publishes")
	}
	for i, name := range keys {
		b, err := readFile(name, 1<<20)
		if err != nil {
			return problem.New(problem.InvalidFile, "key %s cannot be read", name).Because(err).WithDone("nothing was collected")
		}
		file := d.file("keys/" + strconv.Itoa(i+1) + ".asc") // a name without what a URL or a list would read otherwise
		if err := os.WriteFile(file, b, 0o644); err != nil {
			return err
		}
		d.key = append(d.key, file)
	}
	return nil
}

// keyFiles are the files that gpgkey= of a .repo file names.
func keyFiles(text, release, arch string) (files []string) {
	key := ""
	for line := range strings.Lines(text) {
		value := strings.TrimSpace(line)
		if name, v, ok := strings.Cut(value, "="); ok && !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") {
			key, value = strings.TrimSpace(name), v
		}
		if key != "gpgkey" {
			continue
		}
		for _, f := range strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
			if f, ok := strings.CutPrefix(f, "file://"); ok {
				files = append(files, strings.NewReplacer("$releasever", release, "$basearch", arch).Replace(f))
			}
		}
	}
	return files
}

// resolve has dnf solve, and download what it finds: its solver says what that is in a file meant for machines.
func (d *dnf) resolve(ctx context.Context, m *Machine) ([]packages.Package, []string, error) {
	d.n++
	root := d.file("root." + strconv.Itoa(d.n))
	if err := d.enter(ctx, root, m); err != nil {
		return nil, nil, err
	}
	var questions [][]string
	if len(d.o.Only) == 0 {
		questions = append(questions, []string{"upgrade"})
	}
	if named := sorted(append(slices.Clone(d.o.Only), d.o.Install...)); len(named) > 0 {
		for _, n := range named {
			if !packages.Word(n) {
				return nil, nil, problem.New(problem.Usage, "%q is no package name that dnf takes", n)
			}
		}
		questions = append(questions, append([]string{"install"}, named...))
	}
	var found []packages.Package
	for _, q := range questions {
		some, err := d.solve(ctx, root, m.Name, q)
		if err != nil {
			return nil, nil, err
		}
		for _, p := range some {
			if !slices.ContainsFunc(found, func(f packages.Package) bool { return f.ID() == p.ID() }) {
				found = append(found, p)
			}
		}
	}
	return found, nil, nil
}

func (d *dnf) solve(ctx context.Context, root, list string, question []string) ([]packages.Package, error) {
	answer := d.file("solver/debugdata/rpms/solver.result")
	if err := os.RemoveAll(d.file("solver/debugdata")); err != nil {
		return nil, err
	}
	res, err := d.dnf(ctx, root, append([]string{"--debugsolver", "--downloadonly", "--downloaddir=" + d.file("downloads")}, question...)...)
	if err != nil {
		return nil, err
	}
	if res.Exit != 0 {
		switch text := said(res); {
		case saysUntrusted.MatchString(text), saysChecksum.MatchString(text), saysUnreachable.MatchString(text), saysNoRelease.MatchString(text):
			return nil, updateProblem(res)
		}
		return nil, resolveProblem(list, res)
	}
	b, err := readFile(answer, 16<<20)
	if errors.Is(err, fs.ErrNotExist) && strings.Contains(said(res), "Nothing to do") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("dnf's solver: %w", err)
	}
	found, gone, err := parseSolution(string(b))
	if err != nil {
		return nil, err
	}
	if gone = slices.DeleteFunc(gone, func(n string) bool { return slices.Contains(d.o.Remove, n) }); len(gone) > 0 {
		return nil, wouldRemove(gone)
	}
	return found, nil
}

// parseSolution reads libsolv's answer, "VERB PACKAGE@REPO [PACKAGE@REPO]": what comes, and the names of what goes
// without a successor of its name.
func parseSolution(text string) (found []packages.Package, gone []string, err error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		id, repo, _ := strings.Cut(f[len(f)-1], "@")
		if f[0] == "erase" || f[0] == "obsoleted" {
			id, repo, _ = strings.Cut(f[1%len(f)], "@")
		}
		ps, bad := parseRPMList([]byte(id))
		if bad != nil || len(ps) != 1 || len(f) < 2 || len(f) > 3 {
			return nil, nil, fmt.Errorf("line %q of dnf's solver is not understood", strings.TrimSpace(line))
		}
		switch p := ps[0]; {
		case f[0] == "erase" || f[0] == "obsoleted":
			gone = append(gone, p.Name)
		case slices.Contains([]string{"install", "multiinstall", "upgrade", "downgrade", "change", "reinstall"}, f[0]) && repo != "@System":
			found = append(found, packages.Package{Name: p.Name, Arch: p.Arch, Version: p.Version})
		default:
			return nil, nil, fmt.Errorf("line %q of dnf's solver is not understood", strings.TrimSpace(line))
		}
	}
	gone = slices.DeleteFunc(gone, func(n string) bool {
		return slices.ContainsFunc(found, func(p packages.Package) bool { return p.Name == n })
	})
	return found, sorted(gone), nil
}

const nevraFormat = `%{NAME}-%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}.%{ARCH}\n`

// download places what resolve has fetched, and has rpm check every signature once more, with no keys but those given.
func (d *dnf) download(ctx context.Context, dir string, ps []packages.Package) error {
	files, err := filepath.Glob(d.file("downloads/*.rpm"))
	if err != nil {
		return err
	}
	for _, name := range files {
		res, err := d.tool(ctx, nil, d.dir, "rpm", "-qp", "--nosignature", "--qf", "%{SIZE} "+nevraFormat, name)
		if err != nil {
			return err
		}
		size, id, _ := strings.Cut(strings.TrimSpace(string(res.Stdout)), " ")
		is, bad := parseRPMList([]byte(id))
		if res.Exit != 0 || bad != nil || len(is) != 1 {
			return problem.New(problem.InvalidFile, "%s is no package: %.200q", filepath.Base(name), res.Both).WithDone("nothing was collected")
		}
		i := slices.IndexFunc(ps, func(p packages.Package) bool {
			return p.Name == is[0].Name && p.Arch == is[0].Arch && p.Version == is[0].Version
		})
		if i < 0 {
			continue // of a question whose answer was not taken
		}
		p := &ps[i]
		p.InstalledBytes, _ = strconv.ParseInt(size, 10, 64) // rpm writes a number, or "(none)"
		p.File = p.Name + "-" + strings.TrimPrefix(p.Version[strings.IndexByte(p.Version, ':')+1:], ":") + "." + p.Arch + ".rpm"
		if err := durable.Rename(name, filepath.Join(dir, p.File)); err != nil {
			return err
		}
		d.o.Progress.Add(1)
	}
	for _, p := range ps {
		if p.File == "" {
			return fmt.Errorf("package %s %s: dnf did not download it", p.ID(), p.Version)
		}
	}
	return nil
}

// keys puts the keys beside the packages; those that signed none are left out.
func (d *dnf) keys(ctx context.Context, dir string) ([]string, error) {
	return chunker.VendorKeys(ctx, dir, d.key)
}
