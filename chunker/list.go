package chunker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/signer"
)

// PackageOptions say what a bundle of packages is to do on a node. A directory that "meshctl bundle collect" made says
// it in a packages.json of its own; what is set here comes on top.
type PackageOptions struct {
	Install   []string           // names that every node is to have; every other package is an update
	Remove    []string           // names that may go
	Conffiles packages.Conffiles // Keep if empty
	Reboot    bool
	// RepoKey signs a deb repository; nil: a key that is made for this bundle and thrown away, which makes the bundle
	// another one each time it is built.
	RepoKey *signer.KeyFile
	// Prove is called with the bundle before it is signed and gets its name; an error ends the build. It may be nil.
	Prove func(ctx context.Context, b *Bundle) error
}

// KeysDir is where the public keys of a repository stand in the content: deb, of InRelease, made here; rpm, of the
// packages' vendors, which --from brings.
const KeysDir = "keys"

// startList reads the list that the directory brings, or begins an empty one, and lays the options over it.
func (o *BuildOptions) startList() (*packages.List, error) {
	l := &packages.List{}
	root, err := os.OpenRoot(o.From)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	switch brought, err := readList(root); {
	case err == nil && brought.Format != o.Target.Format:
		return nil, refuse(filepath.Join(o.From, packages.FileName), fmt.Sprintf("is of format %s", brought.Format), "give the --format that was collected")
	case err == nil:
		l = brought
	case !errors.Is(err, fs.ErrNotExist):
		return nil, refuse(filepath.Join(o.From, packages.FileName), "cannot be used", "collect again").Because(err)
	}
	l.Schema, l.Format, l.Keys = packages.Schema, o.Target.Format, []string{}
	l.Remove = append(append([]string{}, l.Remove...), o.Packages.Remove...)
	slices.Sort(l.Remove)
	l.Remove = slices.Compact(l.Remove)
	l.Reboot = l.Reboot || o.Packages.Reboot
	if o.Packages.Conffiles != "" {
		l.Conffiles = o.Packages.Conffiles
	}
	if l.Conffiles == "" {
		l.Conffiles = packages.Keep
	}
	return l, nil
}

// finishList fills the list from the metadata, checks it against what it said before, and returns its bytes.
func (o *BuildOptions) finishList(l *packages.List, ps []packages.Package) ([]byte, error) {
	brought := l.Packages
	roles := make(map[string]packages.Package, len(brought))
	for _, p := range brought {
		roles[p.ID()] = p
	}
	for i := range ps {
		p := &ps[i]
		if i > 0 && ps[i-1].ID() == p.ID() {
			return nil, refuse(p.File, "is a second version of "+p.ID()+" beside "+ps[i-1].File, "leave one of them out")
		}
		p.Role = packages.Update
		if was, ok := roles[p.ID()]; ok && was.Version == p.Version {
			p.Role = was.Role
			delete(roles, p.ID())
		} else if len(brought) > 0 {
			return nil, refuse(p.File, fmt.Sprintf("is %s %s, which %s does not list", p.ID(), p.Version, packages.FileName), "collect again, or remove "+packages.FileName+" and name the roles")
		}
		if slices.Contains(o.Packages.Install, p.Name) {
			p.Role = packages.Install
		}
	}
	for id, p := range roles {
		return nil, refuse(filepath.Join(o.From, p.File), fmt.Sprintf("is missing: %s lists %s %s", packages.FileName, id, p.Version), "collect again")
	}
	for _, name := range o.Packages.Install {
		if !slices.ContainsFunc(ps, func(p packages.Package) bool { return p.Name == name }) {
			return nil, refuse(o.From, "holds no package "+name+", which is to be installed", "add it, or correct the name")
		}
	}
	l.Packages = ps
	b, err := l.Encode()
	if err != nil {
		return nil, refuse(o.From, "cannot become a bundle of packages", "leave out what is wrong").Because(err)
	}
	return b, nil
}

// plainName are the file names that apt and dnf take as they are: in a URL a percent sign and others mean something.
var plainName = regexp.MustCompile(`^[A-Za-z0-9+._~^:/@-]+$`)

// withoutList leaves packages.json out of what is copied, and refuses names that the tools would read otherwise.
func withoutList(from string, format manifest.Format, files []source) ([]source, error) {
	files = slices.DeleteFunc(files, func(f source) bool { return f.path == packages.FileName })
	for _, f := range files {
		if strings.HasSuffix(f.path, packageSuffix[format]) && !plainName.MatchString(f.path) {
			return nil, refuse(filepath.Join(from, f.path), "has a name that package managers read as another", "rename it")
		}
	}
	return files, nil
}
