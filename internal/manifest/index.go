package manifest

import (
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/patchmesh/patchmesh/internal/chunk"
)

// File is one regular file of a bundle. There are no links, devices or special bits: nothing else can be said.
type File struct {
	Path   string     `json:"path"` // relative, slash-separated, clean
	Size   int64      `json:"size"`
	Mode   uint32     `json:"mode"` // 0644 or 0755 (420, 493 in JSON)
	SHA256 string     `json:"sha256"`
	Chunks []ChunkRef `json:"chunks"`
}

// Index lists the files of a bundle in the order of their paths, and for each file its chunks in order.
type Index struct {
	Schema string `json:"schema"`
	Files  []File `json:"files"`
}

// File modes an index may carry.
const (
	ModeFile       = 0o644
	ModeExecutable = 0o755
)

// Encode writes the canonical bytes.
func (x *Index) Encode() ([]byte, error) {
	if err := x.Validate(); err != nil {
		return nil, err
	}
	return EncodeCanonical(x)
}

// ParseIndex reads canonical index bytes and checks them against the manifest that names them.
func ParseIndex(m *Manifest, b []byte) (*Index, error) {
	if int64(len(b)) != m.Index.Size || chunk.Sum(b) != m.Index.ID {
		return nil, fmt.Errorf("index: %d bytes with id %s are not the %d bytes %s that the manifest names",
			len(b), chunk.Sum(b), m.Index.Size, m.Index.ID)
	}
	x := new(Index)
	if err := DecodeCanonical("index", b, x); err != nil {
		return nil, err
	}
	if err := x.Validate(); err != nil {
		return nil, err
	}
	if n, total := len(x.Files), x.TotalBytes(); n != m.Files || total != m.TotalBytes {
		return nil, fmt.Errorf("index: %d files of %d bytes, the manifest says %d files of %d bytes", n, total, m.Files, m.TotalBytes)
	}
	return x, nil
}

// TotalBytes is the sum of the file sizes.
func (x *Index) TotalBytes() (n int64) {
	for i := range x.Files {
		n += x.Files[i].Size
	}
	return n
}

// Validate checks paths, order, modes, sizes and limits.
func (x *Index) Validate() error {
	bad := func(f string, a ...any) error { return fmt.Errorf("index: "+f, a...) }
	if x.Schema != SchemaIndex {
		return bad("schema %q is not %q", x.Schema, SchemaIndex)
	}
	if len(x.Files) < 1 || len(x.Files) > MaxFiles {
		return bad("%d files: want 1 to %d", len(x.Files), MaxFiles)
	}
	var total int64
	folded := make(map[string]string, len(x.Files))
	for i := range x.Files {
		f := &x.Files[i]
		if err := ValidPath(f.Path); err != nil {
			return bad("%w", err)
		}
		if i > 0 && x.Files[i-1].Path >= f.Path {
			return bad("path %q stands after %q: paths must be unique and in order", f.Path, x.Files[i-1].Path)
		}
		// A path that differs only in letter case would overwrite its twin on some file systems.
		key := strings.ToLower(f.Path)
		if other, ok := folded[key]; ok {
			return bad("paths %q and %q differ only in letter case", other, f.Path)
		}
		folded[key] = f.Path
		if f.Mode != ModeFile && f.Mode != ModeExecutable {
			return bad("path %q has mode %#o: want 0644 or 0755", f.Path, f.Mode)
		}
		if h, err := hex.DecodeString(f.SHA256); err != nil || len(h) != 32 || f.SHA256 != strings.ToLower(f.SHA256) {
			return bad("path %q: sha256 %.70q is not 64 lower-case hex digits", f.Path, f.SHA256)
		}
		if f.Size < 0 || f.Size > MaxTotalBytes {
			return bad("path %q: size %d is out of range", f.Path, f.Size)
		}
		if err := sizesAddUp(fmt.Sprintf("index: path %q", f.Path), f.Size, f.Chunks); err != nil {
			return err
		}
		if total += f.Size; total > MaxTotalBytes {
			return bad("files have more than %d bytes together", int64(MaxTotalBytes))
		}
	}
	// A file must not stand where another needs a directory.
	for i := range x.Files {
		for d := path.Dir(x.Files[i].Path); d != "."; d = path.Dir(d) {
			if other, ok := folded[strings.ToLower(d)]; ok {
				return bad("path %q is both a file and the directory of %q", other, x.Files[i].Path)
			}
		}
	}
	return nil
}

// ValidPath accepts a clean relative slash-separated path of printable UTF-8 without dot-dot elements.
func ValidPath(p string) error {
	switch {
	case p == "" || len(p) > MaxPathBytes:
		return fmt.Errorf("path of %d bytes: want 1 to %d", len(p), MaxPathBytes)
	case !utf8.ValidString(p):
		return fmt.Errorf("path %q is not UTF-8", p)
	case strings.HasPrefix(p, "/"):
		return fmt.Errorf("path %q is absolute", p)
	case path.Clean(p) != p || p == "." || p == ".." || strings.HasPrefix(p, "../"):
		return fmt.Errorf("path %q is not clean or leaves the bundle", p)
	case strings.ContainsAny(p, "\\:"):
		return fmt.Errorf("path %q has a backslash or a colon", p)
	}
	for _, r := range p {
		if r < 0x20 || r == 0x7f {
			return fmt.Errorf("path %q has a control character", p)
		}
	}
	for el := range strings.SplitSeq(p, "/") {
		if len(el) > 255 {
			return fmt.Errorf("path %q has an element of more than 255 bytes", p)
		}
	}
	return nil
}
