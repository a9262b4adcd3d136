// Package installtest makes what the executor's tests eat: keys, a chunk store, and signed bundles and policies from
// a map of files. It also holds the oracle: whether a directory is exactly one of the bundles. For tests only; a
// Bench belongs to one test.
package installtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Created is when everything on a bench was made.
var Created = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// facts are those of the machine on a bench.
func facts() *manifest.Facts {
	return &manifest.Facts{OS: "debian", Release: "12", Arch: "amd64"}
}

// Keys sign for the roles.
type Keys struct {
	Release, Policy, Stranger, Roster *signer.KeyFile
	Set                               trust.Set
}

// keys are made once for a test binary: that takes longer than most tests.
var keys = sync.OnceValues(func() (*Keys, error) {
	made := make([]*signer.KeyFile, 4)
	for i := range made {
		priv, _, _, err := signer.GenerateKey(signer.KeyOptions{Name: fmt.Sprintf("key %d", i), Email: "key@example.com", Created: Created.AddDate(-1, 0, 0)})
		if err != nil {
			return nil, err
		}
		if made[i], err = signer.FromKey(priv, nil); err != nil {
			return nil, err
		}
		made[i].Now = func() time.Time { return Created }
	}
	k := &Keys{Release: made[0], Policy: made[1], Stranger: made[2], Roster: made[3]}
	var err error
	for role, key := range map[*trust.RoleKeys]*signer.KeyFile{&k.Set.Release: made[0], &k.Set.Policy: made[1], &k.Set.Roster: made[3]} {
		if *role, err = trust.NewRoleKeys(1, key.Public()); err != nil {
			return nil, err
		}
	}
	return k, nil
})

// Bench is one machine: its configuration, its chunk store, and the keys it trusts.
type Bench struct {
	Dir, Store, ConfigFile string
	Config                 install.Config
	Keys                   *Keys
	ChunkSize              int
}

// New makes a bench in a fresh directory; change may alter the configuration before it is written.
func New(t testing.TB, change func(*install.Config)) *Bench {
	t.Helper()
	k, err := keys()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b := &Bench{Dir: dir, Store: filepath.Join(dir, "chunks"), ConfigFile: filepath.Join(dir, "mesh-install.yaml"), Keys: k, ChunkSize: 1024}
	c := install.DefaultConfig()
	c.Root, c.State, c.Trust = filepath.Join(dir, "root"), filepath.Join(dir, "state"), filepath.Join(dir, "trust.json")
	c.Machine, c.Hooks = filepath.Join(dir, "machine"), filepath.Join(dir, "hooks.d") // never those of the machine that tests run on
	c.Reboot.Command = []string{"/bin/false"}
	c.Facts, c.ReserveBytes = facts(), 0
	if change != nil {
		change(&c)
	}
	b.Config = c
	set, err := k.Set.Encode()
	if err != nil {
		t.Fatal(err)
	}
	WriteFile(t, c.Trust, set)
	var y strings.Builder
	fmt.Fprintf(&y, "root: %s\nstate: %s\ntrust: %s\nkeep: %d\nreserveBytes: %d\nisolation: %s\n", c.Root, c.State, c.Trust, c.Keep, c.ReserveBytes, c.Isolation)
	fmt.Fprintf(&y, "machine: %s\nhooks: %s\nreboot: {command: [%s]}\n", c.Machine, c.Hooks, strings.Join(c.Reboot.Command, ", "))
	if c.Timezone != "" {
		fmt.Fprintf(&y, "timezone: %s\n", c.Timezone)
	}
	fmt.Fprintf(&y, "facts: {os: %s, release: %q, arch: %s}\nhealth:\n  timeoutSeconds: %d\n", c.Facts.OS, c.Facts.Release, c.Facts.Arch, c.Health.TimeoutSeconds)
	if len(c.Health.Command) > 0 {
		fmt.Fprintf(&y, "  command: [%q", c.Health.Command[0])
		for _, a := range c.Health.Command[1:] {
			fmt.Fprintf(&y, ", %q", a)
		}
		y.WriteString("]\n")
	}
	WriteFile(t, b.ConfigFile, []byte(y.String()))
	return b
}

// WriteFile writes a file or ends the test.
func WriteFile(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Spec is what a bundle should be. A path that ends in ".sh" becomes executable.
type Spec struct {
	Name, Version string
	Sequence      uint64
	Format        manifest.Format
	Target        *manifest.Target
	Files         map[string]string
	Key           *signer.KeyFile          // instead of the release key
	Index         func(*manifest.Index)    // alter the index before it is written, rules or no rules
	Manifest      func(*manifest.Manifest) // alter the manifest before it is signed
}

// Bundle is a signed bundle whose chunks are in the bench's store.
type Bundle struct {
	Spec
	Manifest *manifest.Manifest
	Index    *manifest.Index
	Docs     trust.Signed
	Digest   manifest.Digest
	Chunks   []chunk.ID
}

// Dir is the name of the release directory that the bundle becomes.
func (b *Bundle) Dir() string { return b.Manifest.Version + "-" + b.Digest.Short() }

// Bundle builds and signs a bundle and puts its chunks into the store.
func (b *Bench) Bundle(t testing.TB, s Spec) *Bundle {
	t.Helper()
	if s.Format == "" {
		s.Format = manifest.FormatFiles
	}
	target := manifest.Target{OS: manifest.Any, Release: manifest.Any, Arch: manifest.Any, Format: s.Format}
	if s.Target != nil {
		target = *s.Target
		target.Format = s.Format
	}
	st, err := store.Open(b.Store, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	out := &Bundle{Spec: s}
	cut := func(data []byte) []manifest.ChunkRef {
		refs := []manifest.ChunkRef{}
		for part := range slices.Chunk(data, b.ChunkSize) {
			id := chunk.Sum(part)
			if _, err := st.Put(id, part); err != nil {
				t.Fatal(err)
			}
			refs = append(refs, manifest.ChunkRef{ID: id, Size: int64(len(part))})
			out.Chunks = append(out.Chunks, id)
		}
		return refs
	}
	x := &manifest.Index{Schema: manifest.SchemaIndex}
	for _, p := range slices.Sorted(maps.Keys(s.Files)) {
		data := []byte(s.Files[p])
		sum := sha256.Sum256(data)
		mode := uint32(manifest.ModeFile)
		if strings.HasSuffix(p, ".sh") {
			mode = manifest.ModeExecutable
		}
		x.Files = append(x.Files, manifest.File{Path: p, Size: int64(len(data)), Mode: mode, SHA256: hex.EncodeToString(sum[:]), Chunks: cut(data)})
	}
	if s.Index != nil {
		s.Index(x)
	}
	xb, err := manifest.EncodeCanonical(x)
	if err != nil {
		t.Fatal(err)
	}
	m := &manifest.Manifest{
		Schema: manifest.SchemaManifest, Name: s.Name, Version: s.Version, Cycle: "2026-11", Sequence: s.Sequence, Target: target,
		Created: Created, Expires: Created.AddDate(0, 6, 0), Supersedes: []string{}, Files: len(x.Files), TotalBytes: x.TotalBytes(),
		Index: manifest.IndexRef{ID: chunk.Sum(xb), Size: int64(len(xb)), Chunks: cut(xb)},
	}
	if s.Manifest != nil {
		s.Manifest(m)
	}
	mb, err := manifest.EncodeCanonical(m)
	if err != nil {
		t.Fatal(err)
	}
	key := b.Keys.Release
	if s.Key != nil {
		key = s.Key
	}
	out.Manifest, out.Index, out.Docs, out.Digest = m, x, Sign(t, key, mb), manifest.DigestOf(mb)
	return out
}

// Sign signs a document.
func Sign(t testing.TB, k *signer.KeyFile, doc []byte) trust.Signed {
	t.Helper()
	sig, err := k.Sign(context.Background(), doc)
	if err != nil {
		t.Fatal(err)
	}
	return trust.Signed{Doc: doc, Sig: sig}
}

// Want is a policy that asks for a bundle.
type Want struct {
	Revision uint64 // 0: 1
	URL      string
	Timeout  int // seconds; 0: none given
	Disabled bool
	Spec     string                  // more lines of the policy's spec, each with two blanks before it
	Key      *signer.KeyFile         // instead of the policy key
	Ref      func(*policy.BundleRef) // alter what is asked for
}

// Policy makes and signs a policy that asks for a bundle.
func (b *Bench) Policy(t testing.TB, bundle *Bundle, w Want) trust.Signed {
	t.Helper()
	ref := policy.BundleRef{Name: bundle.Manifest.Name, Version: bundle.Manifest.Version, Checksum: bundle.Digest}
	if w.Ref != nil {
		w.Ref(&ref)
	}
	var y strings.Builder
	fmt.Fprintf(&y, "apiVersion: patchmgmt.io/v1\nkind: PatchPolicy\nmetadata:\n  name: pos\nspec:\n")
	fmt.Fprintf(&y, "  bundleRef: {name: %s, version: %q, checksum: %q}\n", ref.Name, ref.Version, ref.Checksum)
	fmt.Fprintf(&y, "  targets: {selector: {matchLabels: {role: pos}}}\n  rollback:\n    enabled: %t\n", !w.Disabled)
	if w.URL != "" {
		fmt.Fprintf(&y, "    healthCheckUrl: %q\n", w.URL)
	}
	if w.Timeout > 0 {
		fmt.Fprintf(&y, "    healthCheckTimeoutSeconds: %d\n", w.Timeout)
	}
	y.WriteString(w.Spec)
	d, err := policy.NewDocument([]byte(y.String()), max(1, w.Revision), Created)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	key := b.Keys.Policy
	if w.Key != nil {
		key = w.Key
	}
	return Sign(t, key, doc)
}

// Request asks for a bundle.
func (b *Bench) Request(t testing.TB, bundle *Bundle, w Want) install.Request {
	t.Helper()
	return install.NewRequest(bundle.Docs, b.Policy(t, bundle, w), b.Store)
}

// WriteRequest writes a request into a file and returns its name.
func (b *Bench) WriteRequest(t testing.TB, bundle *Bundle, w Want) string {
	t.Helper()
	doc, err := b.Request(t, bundle, w).Encode()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(b.Dir, "request-"+bundle.Dir()+".json")
	WriteFile(t, name, doc)
	return name
}

// ChunkPath is where the store keeps a chunk.
func (b *Bench) ChunkPath(id chunk.ID) string {
	return filepath.Join(b.Store, store.Name(id))
}

// InForce says which of the bundles "current" shows, checked byte for byte; "" when there is no link. Anything that
// is none of them is an error.
func (b *Bench) InForce(name string, bundles ...*Bundle) (*Bundle, error) {
	link := filepath.Join(b.Config.Root, name, "current")
	target, err := os.Readlink(link)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, c := range bundles {
		if filepath.Base(target) == c.Dir() {
			got, err := Tree(filepath.Join(b.Config.Root, name, target))
			if err != nil {
				return nil, err
			}
			if !maps.Equal(got, c.Files) {
				return nil, fmt.Errorf("%s holds %d files that are not those of %s", target, len(got), c.Version)
			}
			return c, nil
		}
	}
	return nil, fmt.Errorf("%s points at %q", link, target)
}

// Tree reads every file below a directory. A mode or a kind of file that no bundle has is an error.
func Tree(dir string) (map[string]string, error) {
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		want := fs.FileMode(manifest.ModeFile)
		if strings.HasSuffix(rel, ".sh") {
			want = manifest.ModeExecutable
		}
		if fi.Mode() != want {
			return fmt.Errorf("%s has mode %v, want %v", rel, fi.Mode(), want)
		}
		b, err := os.ReadFile(p)
		got[filepath.ToSlash(rel)] = string(b)
		return err
	})
	return got, err
}

// Litter lists what does not belong in the bench's root and state when nothing is going on.
func (b *Bench) Litter() ([]string, error) {
	var out []string
	for _, top := range []string{b.Config.Root, b.Config.State} {
		err := filepath.WalkDir(top, func(p string, e fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err == nil && (strings.HasPrefix(e.Name(), ".tmp-") || e.Name() == "journal.json") {
				out = append(out, p)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// CopyTree puts a copy of a directory in the place of another, with links and modes; what is missing stays missing.
func CopyTree(t testing.TB, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(from, func(p string, e fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		q := filepath.Join(to, rel)
		fi, err := e.Info()
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return os.MkdirAll(q, fi.Mode().Perm())
		case fi.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			return os.Symlink(target, q)
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(q, data, fi.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Packages makes a bundle of a repository, as the build server lays one out.
func (b *Bench) Packages(t testing.TB, repo *managertest.Repo, version string, sequence uint64) *Bundle {
	t.Helper()
	files, err := Tree(repo.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bundle(t, Spec{Name: "os", Version: version, Sequence: sequence, Format: repo.List.Format, Files: files})
}
