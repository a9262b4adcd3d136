package collect

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// maxListBytes bounds a plain Packages file of a source; Debian's largest has 60 MB.
const maxListBytes = 512 << 20

// invent makes a dpkg status file from names and versions. What these packages provide, and what they cannot be beside,
// is taken from the packages of the same names in the sources, of the same version where it is still there. What they
// depend on is left out: the machine has it, and what one list does not know of another source must not look broken. What
// there is nothing newer of is held, for apt would take the shorter paragraph for another package of that version.
func (a *apt) invent(ctx context.Context, have []packages.Installed) ([]byte, error) {
	if err := a.learn(ctx); err != nil {
		return nil, err
	}
	var names []string
	for _, p := range have {
		names = append(names, a.identity(p))
	}
	candidates, err := a.candidates(ctx, a.file("status"), names)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, p := range have {
		arch := p.Arch
		fields := []string{"Provides", "Multi-Arch"}
		like, ok := a.provided[p.Name+" "+p.Version]
		if ok {
			fields = append(fields, "Conflicts", "Breaks", "Essential")
		} else {
			like = a.provided[p.Name]
		}
		if arch == "" {
			arch = a.native
			if like.Field("Architecture") == "all" {
				arch = "all"
			}
		}
		want := "install"
		if p.Held || candidates[a.identity(p)].candidate == p.Version {
			want = "hold"
		}
		fmt.Fprintf(&out, "Package: %s\nStatus: %s ok installed\nArchitecture: %s\nVersion: %s\nMaintainer: unknown\nDescription: installed\n", p.Name, want, arch, p.Version)
		for _, f := range fields {
			if v := like.Field(f); v != "" {
				fmt.Fprintf(&out, "%s: %s\n", f, v)
			}
		}
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}

// learn reads the lists of packages that apt fetched and verified: each paragraph under "NAME VERSION", and one of each
// name under "NAME".
func (a *apt) learn(ctx context.Context) error {
	if a.provided != nil {
		return nil
	}
	a.provided = map[string]Stanza{}
	res, err := a.apt(ctx, a.dir, "apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages")
	if err != nil {
		return err
	}
	for name := range strings.Lines(string(res.Stdout)) {
		name = strings.TrimSpace(name)
		b, err := readFile(name, maxListBytes)
		if err != nil {
			return problem.New(problem.InvalidFile, "a list of packages cannot be read").Because(err).WithDone("nothing was collected")
		}
		for _, s := range Stanzas(b) {
			n := s.Field("Package")
			a.provided[n], a.provided[n+" "+s.Field("Version")] = s, s
		}
	}
	return nil
}

// identity is how apt names a package: with the architecture only where it is a foreign one.
func (a *apt) identity(p packages.Installed) string {
	if p.Arch == "" || p.Arch == a.native || neutral(p.Arch) {
		return p.Name
	}
	return p.Name + ":" + p.Arch
}
