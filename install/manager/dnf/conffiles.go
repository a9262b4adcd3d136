package dnf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// configFile is a file that a package calls configuration.
type configFile struct {
	path string
	tid  int64 // when the transaction began that installed the package, in seconds since 1970
}

// Flags of a file in a package (rpmfileAttrs of rpm).
const (
	flagConfig = 1 << 0
	flagGhost  = 1 << 6
)

const configFormat = `[%{=INSTALLTID}\t%{FILEFLAGS}\t%{FILENAMES}\n]`

// settle has the version of every edited configuration file in force that the list wants. rpm leaves the edited one
// and writes NAME.rpmnew where the package says noreplace, and else moves the edited one to NAME.rpmsave (to
// NAME.rpmorig where it belonged to no package) and puts its own in place. Only what the transaction itself left is
// looked at: a file with such an ending whose last change of state is older than the transaction was there before.
// It may be done twice.
func (m *Manager) settle(ctx context.Context, o manager.Order, done []packages.Change) error {
	var names []string
	for _, c := range done {
		if c.To != "" {
			names = append(names, nevra(c.Name, c.To, c.Arch))
		}
	}
	for len(names) > 0 {
		n := min(batch, len(names))
		res, err := m.query(ctx, append([]string{"--qf", configFormat}, names[:n]...)...)
		if err != nil {
			return err
		}
		files, err := parseConfigFiles(string(res.Stdout))
		if err != nil {
			return toolError(err.Error(), res)
		}
		for _, f := range files {
			if err := m.settleFile(f, o.List.Conffiles); err != nil {
				return fmt.Errorf("configuration file %s: %w", f.path, err)
			}
		}
		names = names[n:]
	}
	return nil
}

// parseConfigFiles reads lines of configFormat; what rpm says of packages that are not there, or have no files, is
// passed over.
func parseConfigFiles(s string) (out []configFile, err error) {
	for line := range strings.Lines(s) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 3)
		if len(f) != 3 {
			continue
		}
		tid, err1 := strconv.ParseInt(f[0], 10, 64)
		flags, err2 := strconv.ParseInt(f[1], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("rpm lists a file as %q: %w", line, err)
		}
		if flags&flagConfig != 0 && flags&flagGhost == 0 && strings.HasPrefix(f[2], "/") {
			out = append(out, configFile{path: f[2], tid: tid})
		}
	}
	return out, nil
}

func (m *Manager) settleFile(f configFile, want packages.Conffiles) error {
	// ending of the version that is to be in force, and the one under which the other stays
	endings := [][2]string{{".rpmsave", ".rpmnew"}, {".rpmorig", ".rpmnew"}}
	if want == packages.Replace {
		endings = [][2]string{{".rpmnew", ".rpmsave"}}
	}
	name := m.path(f.path)
	for _, e := range endings {
		fi, err := os.Lstat(name + e[0])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok || !fi.Mode().IsRegular() || st.Ctim.Sec < f.tid {
			continue
		}
		// A second link first, so that the name is there at every instant.
		if err := os.Remove(name + e[1]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Link(name, name+e[1]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := durable.Rename(name+e[0], name); err != nil {
			return err
		}
	}
	return nil
}
