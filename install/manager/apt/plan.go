package apt

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// find returns the installed package that one of the list would take the place of. It may have been for one
// architecture and be for all now, or the other way round.
func find(have []packages.Installed, name, arch, native string) (packages.Installed, bool) {
	i := slices.IndexFunc(have, func(p packages.Installed) bool {
		return p.Name == name && identity(p.Name, p.Arch, native) == identity(name, arch, native)
	})
	if i < 0 {
		return packages.Installed{}, false
	}
	return have[i], true
}

// differing are the packages of the list that the machine is to have and has not, or not in that version.
func differing(l *packages.List, have []packages.Installed, native string) []packages.Package {
	var out []packages.Package
	for _, p := range l.Packages {
		old, there := find(have, p.Name, p.Arch, native)
		if there && (old.Version != p.Version || old.Arch != p.Arch) && p.Role != packages.Dependency || !there && p.Role == packages.Install {
			out = append(out, p)
		}
	}
	return out
}

// choose says which packages apt is asked for by name, and which are left alone and why. What the repository does not
// hold is asked for as well: apt says so.
func choose(o manager.Order, have []packages.Installed, native string, known map[string]policy) (named []packages.Package, kept []manager.Kept) {
	for _, p := range differing(o.List, have, native) {
		old, there := find(have, p.Name, p.Arch, native)
		older := there && compare(p.Version, old.Version) < 0
		switch {
		case there && old.Held:
			kept = append(kept, manager.Kept{Installed: old, Why: manager.KeptHeld})
		case older && !o.AllowDowngrade:
			kept = append(kept, manager.Kept{Installed: old, Why: manager.KeptNewer})
		case known[identity(p.Name, p.Arch, native)].against(p.Version, old.Version, older):
			if !there {
				old = packages.Installed{Name: p.Name, Arch: p.Arch}
			}
			kept = append(kept, manager.Kept{Installed: old, Why: manager.KeptPinned})
		default:
			named = append(named, p)
		}
	}
	return named, kept
}

// policy is what apt knows of a package: the versions there are, and the one it would choose, by the machine's own
// preferences.
type policy struct {
	candidate string
	priority  map[string]int // by version
}

// against reports whether the preferences say no to a version that the repository holds: by a negative priority, by
// choosing another, or, where it is to go back, by one above 1000 for what is installed (apt_preferences(5)).
func (p policy) against(version, installed string, back bool) bool {
	priority, known := p.priority[version]
	return known && (priority < 0 || !back && p.candidate != version || back && p.priority[installed] > 1000)
}

// policies asks apt for those of some packages, by identity.
func (m *Manager) policies(ctx context.Context, of []packages.Package, native string) (map[string]policy, error) {
	if len(of) == 0 {
		return nil, nil
	}
	args := []string{"policy"}
	for _, p := range of {
		args = append(args, identity(p.Name, p.Arch, native))
	}
	res, err := m.run(ctx, "apt-cache", args...)
	if err != nil {
		return nil, cut(err, res)
	}
	if res.Exit != 0 {
		return nil, classify(res)
	}
	return parsePolicy(string(res.Stdout), native), nil
}

// parsePolicy reads "apt-cache policy". A package of the machine's own architecture stands there by its name alone:
//
//	NAME[:ARCH]:
//	  Installed: VERSION
//	  Candidate: VERSION
//	  Version table:
//	     VERSION PRIORITY
//	 *** VERSION PRIORITY
//	        PRIORITY SOURCE…
func parsePolicy(text, native string) map[string]policy {
	out := map[string]policy{}
	id := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		if !strings.HasPrefix(line, " ") {
			name, arch, foreign := strings.Cut(strings.TrimSuffix(line, ":"), ":")
			if !foreign {
				arch = native
			}
			id = name + ":" + arch
			continue
		}
		p := out[id]
		if v, ok := strings.CutPrefix(line, "  Candidate: "); ok {
			p.candidate = v
		} else if len(line) > 5 && (strings.HasPrefix(line, " *** ") || strings.HasPrefix(line, "     ") && line[5] != ' ') {
			if f := strings.Fields(line[5:]); len(f) == 2 {
				n, err := strconv.Atoi(f[1])
				if p.priority == nil {
					p.priority = map[string]int{}
				}
				if err == nil {
					p.priority[f[0]] = n
				}
			}
		}
		out[id] = p
	}
	return out
}

// install makes the command line of apt-get, but for -s or -y. What has to go may go only when the list says so; a
// version may go back only when the policy says so. apt itself holds to both, and objections looks again.
func install(o manager.Order, named []packages.Package) []string {
	var args []string
	for _, f := range forConffiles(o) {
		args = append(args, "-o", "DPkg::Options::="+f)
	}
	if len(o.List.Remove) == 0 {
		args = append(args, "--no-remove")
	}
	if o.AllowDowngrade {
		args = append(args, "--allow-downgrades")
	}
	args = append(args, "install")
	for _, p := range named {
		args = append(args, argument(p))
	}
	return args
}

// forConffiles has dpkg decide without asking. confdef would keep an edited file whatever else is said: it is dpkg's own
// default.
func forConffiles(o manager.Order) []string {
	if o.List.Conffiles == packages.Replace {
		return []string{"--force-confnew"}
	}
	return []string{"--force-confdef", "--force-confold"}
}

// argument is an exact version on apt-get's command line. A + or - at the end is an order of its own there (install,
// remove) and is taken off, so a version that ends in one gets one more.
func argument(p packages.Package) string {
	s := p.Name
	if p.Arch != "all" {
		s += ":" + p.Arch
	}
	s += "=" + p.Version
	if strings.HasSuffix(s, "+") || strings.HasSuffix(s, "-") {
		s += "+"
	}
	return s
}

// step is one line of what apt would do.
type step struct {
	remove     bool
	name, arch string // of a removal the arch may be empty: the machine's own
	from, to   string
}

// parseSteps reads "apt-get -s":
//
//	Inst NAME[:ARCH] [OLD] (NEW SUITE… [ARCH]) …
//	Remv NAME[:ARCH] [OLD] …
//	Conf NAME …
//
// Conf is what follows from the others, and what was left to be configured.
func parseSteps(text, native string) ([]step, error) {
	var out []step
	for line := range strings.Lines(text) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if verb != "Inst" && verb != "Remv" && verb != "Purg" {
			continue
		}
		full, rest, _ := strings.Cut(rest, " ")
		s := step{remove: verb != "Inst"}
		s.name, s.arch, _ = strings.Cut(full, ":")
		if old, tail, ok := strings.Cut(rest, "]"); ok && strings.HasPrefix(old, "[") {
			s.from, rest = old[1:], strings.TrimSpace(tail)
		}
		if s.remove {
			if s.arch == "" {
				s.arch = native
			}
		} else {
			in, _, ok := strings.Cut(strings.TrimPrefix(rest, "("), ")")
			f := strings.Fields(in)
			if !ok || !strings.HasPrefix(rest, "(") || len(f) < 2 || !strings.HasPrefix(f[len(f)-1], "[") {
				return nil, fmt.Errorf("line %q of apt-get -s is not understood", strings.TrimSpace(line))
			}
			s.to, s.arch = f[0], strings.Trim(f[len(f)-1], "[]")
		}
		if s.name == "" || s.arch == "" || s.remove && s.from == "" {
			return nil, fmt.Errorf("line %q of apt-get -s is not understood", strings.TrimSpace(line))
		}
		out = append(out, s)
	}
	return out, nil
}

// changes is what the steps make of what is installed, as packages.Diff would show it afterwards.
func changes(steps []step, have []packages.Installed, native string) []packages.Change {
	after := slices.Clone(have)
	for _, s := range steps {
		after = slices.DeleteFunc(after, func(p packages.Installed) bool {
			return identity(p.Name, p.Arch, native) == identity(s.name, s.arch, native)
		})
		if !s.remove {
			after = append(after, packages.Installed{Name: s.name, Arch: s.arch, Version: s.to})
		}
	}
	return packages.Diff(have, after)
}

// objections lists what a plan does that the order does not allow, or leaves out. It is all that stands between what
// apt makes of a command line and the machine, and takes nothing from apt but the changes.
func objections(o manager.Order, named []packages.Package, plan []packages.Change) []string {
	var out []string
	for _, c := range plan {
		i := slices.IndexFunc(o.List.Packages, func(p packages.Package) bool { return p.Name == c.Name && p.Arch == c.Arch })
		switch {
		case c.To == "" && slices.ContainsFunc(plan, func(d packages.Change) bool { return succeeds(d, c) }):
			// One for all architectures takes the place of one for this, or the other way round: c is the old one.
		case c.To == "" && !slices.Contains(o.List.Remove, c.Name):
			out = append(out, fmt.Sprintf("%s %s would be removed", c.ID(), c.From))
		case c.To == "":
		case i < 0:
			out = append(out, fmt.Sprintf("%s %s would come in and is not in the list", c.ID(), c.To))
		case o.List.Packages[i].Version != c.To:
			out = append(out, fmt.Sprintf("%s would be at %s, the list says %s", c.ID(), c.To, o.List.Packages[i].Version))
		case c.From != "" && compare(c.To, c.From) < 0 && !o.AllowDowngrade:
			out = append(out, fmt.Sprintf("%s would go back from %s to %s", c.ID(), c.From, c.To))
		}
	}
	for _, p := range named {
		if !slices.ContainsFunc(plan, func(c packages.Change) bool { return c.Name == p.Name && c.Arch == p.Arch && c.To == p.Version }) {
			out = append(out, fmt.Sprintf("%s %s would be left out", p.ID(), p.Version))
		}
	}
	return out
}

// succeeds reports whether one package comes in the place of one that goes, which was for another kind of machine.
func succeeds(came, gone packages.Change) bool {
	return came.Name == gone.Name && came.From == "" && gone.To == "" && (came.Arch == "all" || gone.Arch == "all")
}

// arrivals are the new packages that no person asked for: whatever the list does not install everywhere.
func arrivals(l *packages.List, done []packages.Change) []string {
	var out []string
	for _, c := range done {
		replaced := slices.ContainsFunc(done, func(d packages.Change) bool { return succeeds(c, d) })
		asked := slices.ContainsFunc(l.Packages, func(p packages.Package) bool {
			return p.Name == c.Name && p.Arch == c.Arch && p.Role == packages.Install
		})
		if c.From == "" && !replaced && !asked {
			name := c.Name
			if c.Arch != "all" {
				name += ":" + c.Arch
			}
			out = append(out, name)
		}
	}
	return out
}
