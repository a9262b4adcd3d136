package dnf

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/tool"
)

// batch bounds how many packages one rpmkeys looks at.
const batch = 500

// verify checks every package of an order: digests, and a signature by one of the bundle's keys; where the bundle
// brings no keys, by one that the machine's own database holds. One bad package refuses the whole bundle, whether this
// machine would install it or not. The options are those of dnf's gpgcheck (dnf/rpm/miscutils.py), and a level that asks
// for both.
func (m *Manager) verify(ctx context.Context, o manager.Order) error {
	keyring, err := m.rpmdb(ctx)
	if err != nil {
		return err
	}
	if len(o.List.Keys) > 0 {
		if keyring, err = m.private("keyring"); err != nil {
			return err
		}
		for _, k := range o.List.Keys {
			res, err := m.run(ctx, tool.Command{Path: "rpmkeys", Args: []string{"--dbpath=" + keyring, "--import", filepath.Join(o.Repo, k)}})
			if err != nil {
				return err
			}
			if res.Exit != 0 {
				return &manager.Error{Kind: manager.Untrusted, Detail: "key " + k + " cannot be read", Exit: res.Exit, Log: tail(res.Both)}
			}
		}
	}
	var files []string
	for _, p := range o.List.Packages {
		files = append(files, filepath.Join(o.Repo, p.File))
	}
	for len(files) > 0 {
		n := min(batch, len(files))
		res, err := m.run(ctx, tool.Command{Path: "rpmkeys", Args: append([]string{"--dbpath=" + keyring, "--define=_pkgverify_level all",
			"--define=_pkgverify_flags 0x0", "--checksig"}, files[:n]...)})
		if err != nil {
			return err
		}
		if bad := unverified(res, o.Repo); bad != "" {
			return &manager.Error{Kind: manager.Untrusted, Detail: bad, Exit: res.Exit, Log: tail(res.Both)}
		}
		files = files[n:]
	}
	return nil
}

// unverified names what rpmkeys is not content with; empty: all is well.
func unverified(res tool.Result, repo string) string {
	if res.Exit == 0 {
		return ""
	}
	var bad []string
	for line := range strings.Lines(string(res.Both)) {
		if line = strings.TrimSpace(line); line != "" && (!strings.HasSuffix(line, " OK") || strings.HasSuffix(line, " NOT OK")) && len(bad) < maxComplaints {
			bad = append(bad, strings.ReplaceAll(line, repo+"/", ""))
		}
	}
	return "no good signature by a key of the bundle: " + strings.Join(bad, "; ")
}
