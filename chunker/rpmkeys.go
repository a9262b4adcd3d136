package chunker

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// checkRPMSignatures has rpm check the signature and the digests of every package in content with nothing but the keys
// in keys/, as a node will (gpgcheck=1), and returns the paths of the keys. There is no way around it: a package that
// a node would refuse is no part of a bundle.
func checkRPMSignatures(ctx context.Context, content string) ([]string, error) {
	files, err := scan(ctx, content)
	if err != nil {
		return nil, err
	}
	keys, rpms := []string{}, []string{}
	for _, f := range files {
		switch {
		case strings.HasPrefix(f.path, KeysDir+"/"):
			keys = append(keys, f.path)
		case strings.HasSuffix(f.path, packageSuffix[manifest.FormatRPM]):
			rpms = append(rpms, "./"+f.path) // no name is taken for an option
		}
	}
	if len(keys) == 0 {
		return nil, refuse(KeysDir+"/", "holds no public key", "put the vendors' keys there, armoured; of your own packages: rpmsign --addsign, gpg --armor --export")
	}
	if len(keys) > packages.MaxKeys {
		return nil, refuse(KeysDir+"/", "holds too many keys", "leave only those that signed the packages")
	}
	return keys, checkSigned(ctx, content, keys, rpms)
}

// checkSigned has rpm check packages in dir with some keys, whose paths are below dir or absolute.
func checkSigned(ctx context.Context, dir string, keys, rpms []string) error {
	db, err := os.MkdirTemp("", "patchmesh-rpmkeys-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(db)
	base := []string{"--dbpath", db, "--define", "_pkgverify_level all"}
	if _, err := run(ctx, dir, nil, "rpmkeys", "rpm", slices.Concat(base, []string{"--import"}, keys)...); err != nil {
		return err
	}
	var bad []string
	for batch := range slices.Chunk(rpms, 500) { // a command line holds no more
		out, err := run(ctx, dir, nil, "rpmkeys", "rpm", slices.Concat(base, []string{"--checksig"}, batch)...)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wrong := notOK(batch, string(out))
		if err != nil && len(wrong) == 0 {
			return err
		}
		bad = append(bad, wrong...)
	}
	if len(bad) > 0 {
		return problem.New(problem.SignatureInvalid, "not signed with a key in %s/: %s", KeysDir, firstFew(bad)).
			WithDone("nothing was built").
			WithNext("put the vendor's public key into %s/; sign packages of your own with: rpmsign --addsign", KeysDir)
	}
	return nil
}

// VendorKeys copies public keys, given as files, into keys/ below dir, and returns the paths of those without which the
// packages in dir would not all be signed; the others are not copied. An error says which packages none of them signed.
func VendorKeys(ctx context.Context, dir string, from []string) ([]string, error) {
	rpms, err := filepath.Glob(filepath.Join(dir, "*.rpm"))
	if err != nil {
		return nil, err
	}
	for i := range rpms {
		rpms[i] = "./" + filepath.Base(rpms[i])
	}
	if err := checkSigned(ctx, dir, from, rpms); err != nil {
		return nil, err
	}
	needed := slices.Clone(from)
	for _, k := range from {
		if less := slices.DeleteFunc(slices.Clone(needed), func(n string) bool { return n == k }); len(less) > 0 && checkSigned(ctx, dir, less, rpms) == nil {
			needed = less
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, KeysDir), 0o755); err != nil {
		return nil, err
	}
	paths := []string{}
	for _, name := range needed {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		to := KeysDir + "/" + filepath.Base(name)
		if err := os.WriteFile(filepath.Join(dir, to), b, 0o644); err != nil {
			return nil, err
		}
		paths = append(paths, to)
	}
	return paths, nil
}

// notOK are the files of which rpmkeys does not say that digests and signatures are good.
func notOK(files []string, said string) (bad []string) {
	ok := map[string]bool{}
	for line := range strings.Lines(said) {
		if name, good := strings.CutSuffix(strings.TrimSpace(line), ": digests signatures OK"); good {
			ok[name] = true
		}
	}
	for _, f := range files {
		if !ok[f] {
			bad = append(bad, filepath.Clean(f))
		}
	}
	return bad
}

// firstFew joins at most ten names.
func firstFew(names []string) string {
	if len(names) > 10 {
		return strings.Join(names[:10], ", ") + " and others"
	}
	return strings.Join(names, ", ")
}
