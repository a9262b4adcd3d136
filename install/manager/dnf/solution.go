package dnf

import (
	"fmt"
	"strings"

	"github.com/patchmesh/patchmesh/internal/packages"
)

// maxSolution bounds the solver's answer, in bytes.
const maxSolution = 16 << 20

// step is one line of a solution: what comes in, and what goes for it.
type step struct {
	come packages.Installed
	gone []packages.Installed
}

// parseSolution reads what libsolv writes of its answer, debugdata/rpms/solver.result, a line for each step (ext/testcase.c,
// testcase_solverresult): "VERB PACKAGE@REPO [PACKAGE@REPO]", the package that is there first, and @System for the
// machine. A verb, a repository or a form that is not known is an error: whoever cannot read a plan must not follow it.
func parseSolution(b []byte) ([]step, error) {
	if len(b) > maxSolution {
		return nil, fmt.Errorf("solver's answer: %d bytes: at most %d", len(b), maxSolution)
	}
	var steps []step
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		var st step
		var err error
		switch verb := f[0]; verb {
		case "install", "multiinstall":
			st, err = readStep(f, "", repoID)
		case "erase": // alone, or because the second takes its place
			st, err = readStep(f[:min(len(f), 2)], "@System")
			if len(f) > 2 && err == nil {
				_, err = readStep(append(f[:1:1], f[2:]...), repoID)
			}
		case "upgrade", "downgrade", "change", "reinstall", "multireinstall":
			st, err = readStep(f, "@System", repoID)
		default:
			err = fmt.Errorf("%q is not a known step", verb)
		}
		if err != nil {
			return nil, fmt.Errorf("solver's answer %q: %w", strings.TrimSpace(line), err)
		}
		steps = append(steps, st)
	}
	return steps, nil
}

// readStep reads the packages of a line; repos are those they have to be of, an empty one stands for none.
func readStep(f []string, repos ...string) (st step, err error) {
	f = f[1:]
	for _, want := range repos {
		if want == "" {
			continue
		}
		if len(f) == 0 {
			return st, fmt.Errorf("a package is missing")
		}
		id, repo, ok := strings.Cut(f[0], "@")
		if !ok || repo != want {
			return st, fmt.Errorf("%q is not of %s", f[0], want)
		}
		p, err := parseNEVRA(id)
		if err != nil {
			return st, err
		}
		if want == "@System" {
			st.gone = append(st.gone, p)
		} else {
			st.come = p
		}
		f = f[1:]
	}
	if len(f) > 0 {
		return st, fmt.Errorf("%q is too much", f)
	}
	return st, nil
}

// parseNEVRA takes NAME-[EPOCH:]VERSION-RELEASE.ARCH apart.
func parseNEVRA(s string) (packages.Installed, error) {
	dot := strings.LastIndexByte(s, '.')
	rel := strings.LastIndexByte(s[:max(dot, 0)], '-')
	ver := strings.LastIndexByte(s[:max(rel, 0)], '-')
	if ver < 1 || rel-ver < 2 || dot-rel < 2 || dot == len(s)-1 {
		return packages.Installed{}, fmt.Errorf("%q is no NAME-VERSION-RELEASE.ARCH", s)
	}
	return packages.Installed{Name: s[:ver], Version: strings.TrimPrefix(s[ver+1:dot], "0:"), Arch: s[dot+1:]}, nil
}
