package dnf

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// maxRules bounds a file of rules, in bytes.
const maxRules = 1 << 20

// rules are what a machine's owner has said of versions.
type rules struct {
	exclude []string // patterns of excludepkgs=
	include []string // patterns of includepkgs=; empty: everything
	lock    []string // patterns of the versionlock plugin
	forbid  []string // of the same, those with "!"

	installOnly []string // beside dnf's own
	carried     string   // lines of [main] that dnf is to see as they are
}

// carried are settings that a transaction on this machine has to know and that cannot make it do less than asked.
var carried = []string{"installonly_limit", "installonlypkgs", "protected_packages", "multilib_policy"}

// readRules reads the machine's configuration. What is not there says nothing; what cannot be read is an error, because
// a rule must not be lost.
func readRules(root string) (r rules, err error) {
	files := []string{"etc/dnf/dnf.conf"}
	more, err := filepath.Glob(filepath.Join(root, "etc/dnf/libdnf5.conf.d/*.conf"))
	if err != nil {
		return r, err
	}
	for _, f := range more {
		rel, err := filepath.Rel(root, f)
		if err != nil {
			return r, err
		}
		files = append(files, rel)
	}
	for _, f := range files {
		main, err := readSection(root, f)
		if err != nil {
			return r, err
		}
		r.exclude = append(r.exclude, list(main["excludepkgs"]+" "+main["exclude"])...)
		r.include = append(r.include, list(main["includepkgs"])...)
		r.installOnly = append(r.installOnly, list(main["installonlypkgs"])...)
		for _, k := range carried {
			if v := main[k]; v != "" {
				r.carried += k + "=" + v + "\n"
			}
		}
		if slices.Contains(list(main["tsflags"]), "nodocs") {
			r.carried += "tsflags=nodocs\n"
		}
	}
	locks := "etc/dnf/plugins/versionlock.list"
	plugin, err := readSection(root, "etc/dnf/plugins/versionlock.conf")
	if err != nil {
		return r, err
	}
	if f := plugin["locklist"]; f != "" {
		locks = f
	}
	if v := strings.ToLower(plugin["enabled"]); v == "0" || v == "false" || v == "no" || v == "off" {
		return r, nil
	}
	b, err := readRule(root, locks)
	if err != nil {
		return r, err
	}
	r.lock, r.forbid = parseLocks(b)
	return r, nil
}

func readSection(root, name string) (map[string]string, error) {
	b, err := readRule(root, name)
	if err != nil {
		return nil, err
	}
	return parseMain(b), nil
}

func readRule(root, name string) ([]byte, error) {
	b, err := readAtMost(filepath.Join(root, name), maxRules)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("configuration of dnf: %w", err)
	}
	return b, nil
}

// parseMain reads the settings of [main]; a line that begins with a blank goes on with the one before.
func parseMain(b []byte) map[string]string {
	out := map[string]string{}
	section, key := "", ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, " \t\r\n")
		if rest := strings.TrimLeft(line, " \t"); rest == "" || rest[0] == '#' || rest[0] == ';' {
			continue
		} else if rest != line && key != "" {
			out[key] += " " + rest
			continue
		}
		line = strings.TrimLeft(line, " \t")
		if line[0] == '[' {
			section, key = strings.Trim(line, "[]"), ""
			continue
		}
		k, v, ok := strings.Cut(line, "=")
		if key = ""; section == "main" && ok {
			key = strings.TrimSpace(k)
			if strings.HasPrefix(key, "exclude") && out[key] != "" {
				v = out[key] + " " + v // said twice, both count
			}
			out[key] = strings.TrimSpace(v)
		}
	}
	return out
}

// variable is one of dnf's ("Repo variables" in dnf.conf(5)). What it stands for is not known here: anything.
var variable = regexp.MustCompile(`\$\{?\w+\}?`)

func list(s string) []string {
	return strings.FieldsFunc(variable.ReplaceAllString(s, "*"), func(c rune) bool { return c == ',' || c == ' ' || c == '\t' })
}

// parseLocks reads a list of the versionlock plugin: a pattern that says which versions of a package are allowed, or
// with "!" which are not.
func parseLocks(b []byte) (lock, forbid []string) {
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "", line[0] == '#':
		case line[0] == '!':
			forbid = append(forbid, strings.TrimSpace(line[1:]))
		default:
			lock = append(lock, line)
		}
	}
	return lock, forbid
}

// refuses says why the machine's owner does not want this version; empty: nothing against it.
func (r rules) refuses(p packages.Package) string {
	names := spellings(p.Name, p.Version, p.Arch)
	if slices.ContainsFunc(r.forbid, func(pat string) bool { return matches(pat, names) }) ||
		r.locks(p.Name, p.Arch) && !slices.ContainsFunc(r.lock, func(pat string) bool { return matches(pat, names) }) {
		return manager.KeptHeld
	}
	if slices.ContainsFunc(r.exclude, func(pat string) bool { return matches(pat, names) }) ||
		len(r.include) > 0 && !slices.ContainsFunc(r.include, func(pat string) bool { return matches(pat, names) }) {
		return manager.KeptPinned
	}
	return ""
}

// locks reports whether a line of the versionlock plugin speaks of this package.
func (r rules) locks(name, arch string) bool {
	return slices.ContainsFunc(r.lock, func(pat string) bool {
		return slices.ContainsFunc(lockedNames(pat), func(n string) bool { return glob(n, name) || glob(n, name+"."+arch) })
	})
}

// versioned finds where the version begins, in what the plugin writes ("name-0:1.0-1.*") and in what people write.
var versioned = regexp.MustCompile(`^(?:(\d+):)?(.+?)-(?:(?:\d+|\*):)?[\d*?\[][^-]*(?:-[^-]+)?$`)

// lockedNames are the names that a pattern can mean.
func lockedNames(pat string) []string {
	names := []string{pat}
	if m := versioned.FindStringSubmatch(pat); m != nil {
		names = append(names, m[2])
	}
	return names
}

// spellings are the ways in which dnf lets a version be named ("Specifying packages" in dnf(8)).
func spellings(name, version, arch string) []string {
	epoch, v, rel := split(version)
	vr := v + "-" + rel
	return []string{name, name + "." + arch,
		name + "-" + v, name + "-" + epoch + ":" + v,
		name + "-" + vr, name + "-" + epoch + ":" + vr,
		name + "-" + vr + "." + arch, name + "-" + epoch + ":" + vr + "." + arch, epoch + ":" + name + "-" + vr + "." + arch}
}

func matches(pat string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return glob(pat, n) })
}

// glob is fnmatch(3) for names, which hold no slash. A pattern that is not one matches itself.
func glob(pat, name string) bool {
	ok, err := path.Match(strings.ReplaceAll(pat, "[!", "[^"), name)
	return ok && err == nil || pat == name
}
