package chunker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/progress"
	"github.com/patchmesh/patchmesh/internal/signer"
)

// DefaultLifetime is how long after its creation a bundle expires if nothing else is said: a month and the time to
// notice that the next one is late.
const DefaultLifetime = 45 * 24 * time.Hour

// BuildOptions say what to build. Name, Version, Sequence, Target, From and Created are required.
type BuildOptions struct {
	Name     string
	Version  string
	Cycle    string
	Sequence uint64
	Target   manifest.Target // with the format
	From     string          // a directory; it is only read
	Out      string          // the directory to make; NAME-VERSION.bundle if empty
	// Created is the date of the bundle and of every file in it, cut to whole seconds: the same inputs with the same
	// date give the same manifest, byte for byte. Signing must happen within trust.MaxSkewFromCreated of it.
	Created    time.Time
	Expires    time.Time // Created and DefaultLifetime if zero
	Supersedes []string
	Packages   PackageOptions  // of rpm and deb
	Signers    []signer.Signer // none: the bundle is not signed; see Sign
	Progress   *progress.Reporter
}

// Build makes the directory of a bundle. It appears under its name whole or not at all.
func Build(ctx context.Context, o BuildOptions) (*Bundle, error) {
	m, err := o.manifest()
	if err != nil {
		return nil, problem.New(problem.Usage, "the bundle cannot be described").Because(err).WithDone("nothing was built")
	}
	if o.Out == "" {
		o.Out = o.Name + "-" + o.Version + ".bundle"
	}
	if _, err := os.Lstat(o.Out); err == nil {
		return nil, problem.New(problem.AlreadyExists, "%s exists already", o.Out).
			WithDone("nothing was built").WithNext("choose another version or another place; a version, once published, never changes")
	}
	defer o.Progress.Stop()
	b, err := o.build(ctx, m)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return nil, problem.New(problem.DiskFull, "no space left for bundle %s", o.Out).Because(err).
			WithDone("nothing was built and nothing is left behind").WithNext("free as much space as %s takes, twice", o.From)
	}
	return b, err
}

// manifest is the manifest as far as it is known before the content, checked as far as it can be.
func (o *BuildOptions) manifest() (*manifest.Manifest, error) {
	m := &manifest.Manifest{Schema: manifest.SchemaManifest, Name: o.Name, Version: o.Version, Cycle: o.Cycle,
		Sequence: o.Sequence, Target: o.Target, Created: o.Created.UTC().Truncate(time.Second),
		Expires: o.Expires.UTC().Truncate(time.Second), Supersedes: append([]string{}, o.Supersedes...)}
	if o.Expires.IsZero() {
		m.Expires = m.Created.Add(DefaultLifetime)
	}
	probe := *m
	probe.Files = 1
	ref, err := indexRef([]byte("probe"))
	if err != nil {
		return nil, err
	}
	probe.Index = ref
	return m, probe.Validate()
}

func (o *BuildOptions) build(ctx context.Context, m *manifest.Manifest) (*Bundle, error) {
	files, err := scan(ctx, o.From)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, refuse(o.From, "holds no file", "name the directory that holds the content")
	}
	var list *packages.List // nil: a bundle of files
	if format := o.Target.Format; format != manifest.FormatFiles {
		if files, err = withoutList(o.From, format, files); err != nil {
			return nil, err
		}
		if err := checkRepoInput(o.From, format, files); err != nil {
			return nil, err
		}
		if list, err = o.startList(); err != nil {
			return nil, err
		}
	}
	tmp, err := os.MkdirTemp(filepath.Dir(o.Out), durable.TempPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", o.Out, err)
	}
	defer os.RemoveAll(tmp) // what was renamed is no longer there

	content := filepath.Join(tmp, ContentName)
	if err := os.Mkdir(content, 0o755); err != nil {
		return nil, err
	}
	if err := copyTree(ctx, o.From, content, files, m.Created, o.Progress); err != nil {
		return nil, err
	}
	if list != nil {
		if err := o.makeRepo(ctx, content, m.Created, list); err != nil {
			return nil, err
		}
	}
	b, err := describe(ctx, tmp, m, o.Progress)
	if err != nil {
		return nil, err
	}
	if list != nil {
		if err := checkRepo(b); err != nil {
			return nil, err
		}
		if o.Packages.Prove != nil {
			if err := o.Packages.Prove(ctx, b); err != nil {
				return nil, err
			}
		}
	}
	for _, s := range o.Signers {
		if err := Sign(ctx, tmp, s); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return nil, err
	}
	if err := durable.SyncTree(tmp); err != nil {
		return nil, err
	}
	if err := durable.Rename(tmp, o.Out); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, problem.New(problem.AlreadyExists, "%s exists already", o.Out).Because(err)
		}
		return nil, err
	}
	return Open(o.Out)
}

// describe writes the index, the manifest and the sums of the content that stands in dir.
func describe(ctx context.Context, dir string, m *manifest.Manifest, p *progress.Reporter) (*Bundle, error) {
	content := filepath.Join(dir, ContentName)
	files, err := scan(ctx, content) // with the repository's metadata
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(content)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	x, err := indexTree(ctx, root, files, p)
	if err != nil {
		return nil, err
	}
	ib, err := x.Encode()
	if err != nil {
		return nil, problem.New(problem.IndexInvalid, "the tree cannot become a bundle").Because(err).WithDone("nothing was built")
	}
	if m.Index, err = indexRef(ib); err != nil {
		return nil, err
	}
	m.Files, m.TotalBytes = len(x.Files), x.TotalBytes()
	mb, err := m.Encode()
	if err != nil {
		return nil, problem.New(problem.ManifestInvalid, "the tree cannot become a bundle").Because(err).WithDone("nothing was built")
	}
	var sums bytes.Buffer
	if err := writeSums(&sums, mb, ib, x); err != nil {
		return nil, err
	}
	for name, b := range map[string][]byte{IndexName: ib, ManifestName: mb, SumsName: sums.Bytes()} {
		if err := durable.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return nil, err
		}
	}
	return Open(dir)
}
