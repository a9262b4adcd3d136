package collect

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// aptSettings is the whole configuration: apt reads the file that APT_CONFIG names first, and it switches the machine's
// own files off, but for the proxies. Phased updates come in now: a fleet is not where a distribution tries them out on
// a tenth. Methods run as whoever collects, because apt's own user must not read a private directory.
const aptSettings = `Dir "@DIR@/";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "@DIR@/sources";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "@TRUSTED@";
Dir::Etc::netrc "@NETRC@";
Dir::Etc::netrcparts "@NETRC@.d";
Dir::State "@DIR@/state";
Dir::State::lists "@DIR@/lists";
Dir::State::status "@DIR@/status";
Dir::State::extended_states "@DIR@/extended_states";
Dir::Cache "@DIR@/cache";
Dir::Log "@DIR@/log";
Dir::Bin::methods "/usr/lib/apt/methods";
Dir::Bin::dpkg "/usr/bin/dpkg";
APT::Architecture "@ARCH@";
APT::Architectures { @ARCHS@ };
APT::Sandbox::User "root";
APT::Solver "internal";
APT::Color "0";
APT::Default-Release "";
APT::Install-Recommends "0";
APT::Install-Suggests "0";
APT::Get::AllowUnauthenticated "0";
APT::Get::AutomaticRemove "0";
APT::Get::Always-Include-Phased-Updates "1";
APT::Update::Error-Mode "any";
Acquire::AllowInsecureRepositories "0";
Acquire::AllowWeakRepositories "0";
Acquire::AllowDowngradeToInsecureRepositories "0";
Acquire::GzipIndexes "0";
Acquire::Languages "none";
Acquire::PDiffs "0";
Acquire::Retries "3";
DPkg::Use-Pty "0";
`

// debArch are Debian's names of Go's architectures where they differ.
var debArch = map[string]string{"386": "i386", "arm": "armhf", "ppc64le": "ppc64el", "mips64le": "mips64el"}

// apt collects with apt-get.
type apt struct {
	work
	native   string
	foreign  []string
	machines int // resolved so far
	provided map[string]Stanza
}

func (a *apt) file(name string) string { return filepath.Join(a.dir, name) }

func (a *apt) apt(ctx context.Context, dir, program string, args ...string) (tool.Result, error) {
	return a.tool(ctx, []string{"APT_CONFIG=" + a.file("apt.conf")}, dir, program, args...)
}

// prepare writes the configuration and the sources, and fetches and verifies the lists of packages.
func (a *apt) prepare(ctx context.Context) error {
	if strings.ContainsAny(a.dir, " \t\n\"\\[]%;") {
		return problem.New(problem.Usage, "%s has blanks or quotes, which apt's configuration has no form for", a.dir).WithNext("name another --dest")
	}
	a.native = a.o.Target.Arch
	if n, ok := debArch[a.native]; ok {
		a.native = n
	}
	if a.native == manifest.Any {
		return problem.New(problem.Usage, "to collect, --target-os must name an architecture, as debian-12/amd64 does")
	}
	for _, d := range []string{"sources", "trusted", "state", "lists/partial", "cache/archives/partial", "log"} {
		if err := os.MkdirAll(a.file(d), 0o755); err != nil {
			return err
		}
	}
	trusted, netrc := a.file("trusted"), "/dev/null"
	own := len(a.o.Sources)+len(a.o.Files) == 0
	if own {
		if err := a.o.sameSystem(); err != nil {
			return err
		}
		trusted, netrc = "/etc/apt/trusted.gpg.d", "/etc/apt/auth.conf"
	}
	if err := a.sources(own); err != nil {
		return err
	}
	conf := strings.NewReplacer("@DIR@", a.dir, "@TRUSTED@", trusted, "@NETRC@", netrc, "@ARCH@", a.native, "@ARCHS@", a.architectures()).Replace(aptSettings)
	if err := os.WriteFile(a.file("status"), nil, 0o644); err != nil {
		return err
	}
	proxies, err := a.tool(ctx, nil, a.dir, "apt-config", "dump", "--no-empty", "--format", `%F "%v";%n`, "Acquire::http", "Acquire::https")
	if err != nil {
		return err
	}
	if err := os.WriteFile(a.file("apt.conf"), append([]byte(conf), proxies.Stdout...), 0o644); err != nil {
		return err
	}
	res, err := a.apt(ctx, a.dir, "apt-get", "update")
	if err != nil {
		return err
	}
	return updateProblem(res)
}

// architectures are the machine's own and those of which packages are installed beside it.
func (a *apt) architectures() string {
	out := fmt.Sprintf("%q;", a.native)
	for _, name := range a.o.Installed {
		m, err := ReadInstalled(name, manifest.FormatDeb)
		if err != nil {
			continue // was read before
		}
		for _, p := range m.Installed {
			if p.Arch != "" && p.Arch != a.native && !neutral(p.Arch) && !slices.Contains(a.foreign, p.Arch) {
				a.foreign = append(a.foreign, p.Arch)
				out += fmt.Sprintf(" %q;", p.Arch)
			}
		}
	}
	return out
}

// sources writes what was given, or this machine's own.
func (a *apt) sources(own bool) error {
	files := a.o.Files
	if own {
		files = []string{"/etc/apt/sources.list"}
		for _, pattern := range []string{"*.list", "*.sources"} {
			more, err := filepath.Glob(filepath.Join("/etc/apt/sources.list.d", pattern))
			if err != nil {
				return err
			}
			files = append(files, more...)
		}
	}
	n := 0
	put := func(from string, b []byte) error {
		if insecure.Match(b) {
			return problem.New(problem.SignatureInvalid, "a source in %s is to be believed without a signature", from).
				WithDone("nothing was collected").WithNext("remove trusted=yes and allow-insecure=yes, and name the key with signed-by")
		}
		ext := ".list"
		if deb822.Match(b) {
			ext = ".sources"
		}
		n++
		return os.WriteFile(a.file("sources/"+strconv.Itoa(n)+ext), b, 0o644)
	}
	for _, name := range files {
		b, err := readFile(name, 1<<20)
		if own && os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return problem.New(problem.InvalidFile, "%s cannot be read", name).Because(err).WithDone("nothing was collected")
		}
		if err := put(name, b); err != nil {
			return err
		}
	}
	for _, s := range a.o.Sources {
		if strings.ContainsAny(s, "\n\r") || !strings.HasPrefix(s, "deb ") {
			return problem.New(problem.Usage, "source %q: want a line such as: deb [signed-by=/usr/share/keyrings/KEY.gpg] URL SUITE COMPONENT", s)
		}
		if err := put("--source", []byte(s+"\n")); err != nil {
			return err
		}
	}
	for i, name := range a.o.Keys {
		b, err := readFile(name, 1<<20)
		if err != nil {
			return problem.New(problem.InvalidFile, "key %s cannot be read", name).Because(err).WithDone("nothing was collected")
		}
		ext := ".gpg"
		if strings.HasPrefix(string(b), "-----BEGIN") {
			ext = ".asc"
		}
		if err := os.WriteFile(a.file("trusted/"+strconv.Itoa(i)+ext), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

var (
	insecure = regexp.MustCompile(`(?im)^[^#\n]*\b(trusted|allow-insecure|allow-weak|allow-downgrade-to-insecure)\s*[:=]\s*(yes|true|1|on|enable|with)`)
	deb822   = regexp.MustCompile(`(?im)^types\s*:`)
)

// resolve has apt simulate.
func (a *apt) resolve(ctx context.Context, m *Machine) ([]packages.Package, []string, error) {
	status := m.Status
	if status == nil {
		var err error
		if status, err = a.invent(ctx, m.Installed); err != nil {
			return nil, nil, err
		}
	}
	a.machines++
	name := a.file("status." + strconv.Itoa(a.machines))
	if err := os.WriteFile(name, status, 0o644); err != nil {
		return nil, nil, err
	}
	args := []string{"-o", "Dir::State::status=" + name, "--simulate"}
	named := sorted(append(slices.Clone(a.o.Only), a.o.Install...))
	for _, n := range named {
		if !packages.Word(n) || strings.HasSuffix(n, "-") { // which is an order to remove it
			return nil, nil, problem.New(problem.Usage, "%q is no package name that apt takes", n)
		}
	}
	if len(a.o.Only) > 0 {
		args = append(args, "install")
	} else {
		args = append(args, "upgrade", "--with-new-pkgs")
	}
	res, err := a.apt(ctx, a.dir, "apt-get", append(args, named...)...)
	if err != nil {
		return nil, nil, err
	}
	if res.Exit != 0 {
		return nil, nil, resolveProblem(m.Name, res)
	}
	found, gone, err := parseSimulation(string(res.Stdout))
	if err != nil {
		return nil, nil, err
	}
	if gone = slices.DeleteFunc(gone, func(n string) bool { return slices.Contains(a.o.Remove, n) }); len(gone) > 0 {
		return nil, nil, wouldRemove(gone)
	}
	// A paragraph that differs in anything looks like another version of the same number.
	found = slices.DeleteFunc(found, func(p packages.Package) bool {
		return slices.ContainsFunc(m.Installed, func(i packages.Installed) bool {
			return i.Name == p.Name && i.Version == p.Version && (i.Arch == p.Arch || i.Arch == "")
		})
	})
	kept, err := a.newer(ctx, name, keptBack(string(res.Stdout)))
	return found, kept, err
}

// newer are those of the installed packages that the sources have in another version.
func (a *apt) newer(ctx context.Context, status string, names []string) ([]string, error) {
	candidates, err := a.candidates(ctx, status, names)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(n string) bool { return candidates[n].installed == candidates[n].candidate }), nil
}

// policy is what apt-cache says of a package.
type policy struct{ installed, candidate string }

// candidates asks apt which versions it would choose.
func (a *apt) candidates(ctx context.Context, status string, names []string) (map[string]policy, error) {
	out := map[string]policy{}
	for batch := range slices.Chunk(names, 1000) {
		res, err := a.apt(ctx, a.dir, "apt-cache", append([]string{"-o", "Dir::State::status=" + status, "policy"}, batch...)...)
		if err != nil {
			return nil, err
		}
		if res.Exit != 0 {
			return nil, resolveProblem(status, res)
		}
		parsePolicy(string(res.Stdout), out)
	}
	return out, nil
}

// parsePolicy reads "apt-cache policy": "NAME:", and below it "  Installed: VERSION" and "  Candidate: VERSION".
func parsePolicy(text string, into map[string]policy) {
	name := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		p := into[name]
		if v, ok := strings.CutPrefix(line, "  Installed: "); ok {
			p.installed = v
		} else if v, ok := strings.CutPrefix(line, "  Candidate: "); ok {
			p.candidate = v
		} else if !strings.HasPrefix(line, " ") {
			name = strings.TrimSuffix(line, ":")
			continue
		} else {
			continue
		}
		into[name] = p
	}
}

// step is a line of apt-get -s: "Inst NAME[:ARCH] [OLD] (NEW SUITE… [ARCH])…" or "Remv NAME[:ARCH] [OLD]…".
var step = regexp.MustCompile(`^(?:Inst ([^ :]+)(?::\S+)?(?: \[\S+\])? \((\S+) .*\[([^ \]]+)\]\)|(?:Remv|Purg) ([^ :]+)).*$`)

// parseSimulation reads what apt-get -s would do: what comes, and the names of what goes without a successor.
func parseSimulation(text string) (found []packages.Package, gone []string, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "Inst ") && !strings.HasPrefix(line, "Remv ") && !strings.HasPrefix(line, "Purg ") {
			continue
		}
		m := step.FindStringSubmatch(line)
		if m == nil {
			return nil, nil, fmt.Errorf("line %q of apt-get --simulate is not understood", line)
		}
		if m[4] != "" {
			gone = append(gone, m[4])
			continue
		}
		p := packages.Package{Name: m[1], Version: m[2], Arch: m[3]}
		if err := plain(packages.Installed{Name: p.Name, Arch: p.Arch, Version: p.Version}); err != nil {
			return nil, nil, err
		}
		found = append(found, p)
	}
	gone = slices.DeleteFunc(gone, func(n string) bool { // one for all architectures takes the place of one for this
		return slices.ContainsFunc(found, func(p packages.Package) bool { return p.Name == n })
	})
	return found, gone, nil
}

// keptBack are the names below "The following packages have been kept back:".
func keptBack(text string) (names []string) {
	_, rest, ok := strings.Cut(text, "have been kept back:\n")
	for line := range strings.Lines(rest) {
		if !ok || !strings.HasPrefix(line, " ") {
			break
		}
		names = append(names, strings.Fields(line)...)
	}
	return names
}

// download fetches the packages from the sources that were verified; apt compares size and hash with them.
func (a *apt) download(ctx context.Context, dir string, ps []packages.Package) error {
	for batch := range slices.Chunk(ps, 200) {
		args := []string{"download"}
		for _, p := range batch {
			s := p.Name
			if !neutral(p.Arch) {
				s += ":" + p.Arch
			}
			args = append(args, s+"="+p.Version)
		}
		res, err := a.apt(ctx, dir, "apt-get", args...)
		if err != nil {
			return err
		}
		if res.Exit != 0 || strings.Contains(said(res), "cannot be authenticated") {
			return downloadProblem(res)
		}
		for i := range batch {
			if err := a.placed(ctx, dir, &batch[i]); err != nil {
				return err
			}
		}
		a.o.Progress.Add(int64(len(batch)))
	}
	return nil
}

// placed finds the file of a package and gives it the name that Debian's archive gives it, without the epoch: apt writes
// the epoch's colon as %3a, which it reads as a colon again when it stands in a repository.
func (a *apt) placed(ctx context.Context, dir string, p *packages.Package) error {
	got := p.Name + "_" + strings.ReplaceAll(p.Version, ":", "%3a") + "_" + p.Arch + ".deb"
	_, version, ok := strings.Cut(p.Version, ":")
	if !ok {
		version = p.Version
	}
	p.File = p.Name + "_" + version + "_" + p.Arch + ".deb"
	if got != p.File {
		if err := durable.Rename(filepath.Join(dir, got), filepath.Join(dir, p.File)); err != nil {
			return fmt.Errorf("package %s: %w", p.ID(), err)
		}
	}
	res, err := a.tool(ctx, nil, dir, "dpkg-deb", "--show", "--showformat=${Package} ${Architecture} ${Version} ${Installed-Size}", p.File)
	if err != nil {
		return err
	}
	f := strings.Fields(string(res.Stdout))
	if res.Exit != 0 || len(f) < 3 || f[0] != p.Name || f[1] != p.Arch || f[2] != p.Version {
		return problem.New(problem.InvalidFile, "what was downloaded as %s %s says of itself: %.200q", p.ID(), p.Version, res.Both).WithDone("nothing was collected")
	}
	if len(f) > 3 {
		if kib, err := strconv.ParseInt(f[3], 10, 32); err == nil && kib >= 0 {
			p.InstalledBytes = kib << 10
		}
	}
	return nil
}

// keys: a deb bundle has a repository of its own, signed when it is built; packages of this format carry no signature.
func (a *apt) keys(context.Context, string) ([]string, error) { return []string{}, nil }
