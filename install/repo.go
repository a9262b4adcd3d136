package install

import (
	"fmt"
	"path/filepath"

	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
)

// writeFragment puts beside "current" the lines with which apt or dnf finds the repository that lies there. It names
// the link, so it stays the same from release to release.
//
// The repository's own metadata need no signature here: every byte was checked against the signed manifest before it
// was written, and only root may write there since. Package signatures stay what they are: gpgcheck is on. The dnf
// repository is off unless it is asked for by name, and an unreadable one is an error, never an empty one.
func writeFragment(name string, format manifest.Format, link string) error {
	var text, ext string
	switch format {
	case manifest.FormatDeb:
		ext, text = ".list", fmt.Sprintf("deb [trusted=yes] file:%s ./\n", link)
	case manifest.FormatRPM:
		ext, text = ".repo", fmt.Sprintf(`[patchmesh-%s]
name=patchmesh %s
baseurl=file://%s
enabled=0
gpgcheck=1
repo_gpgcheck=0
skip_if_unavailable=0
metadata_expire=0
`, name, name, link)
	case manifest.FormatFiles:
		return nil
	}
	return durable.WriteFile(filepath.Join(filepath.Dir(link), "patchmesh-"+name+ext), []byte(text), 0o644)
}
