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
	db, err := os.MkdirTemp("", "patchmesh-rpmkeys-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(db)
	base := []string{"--dbpath", db, "--define", "_pkgverify_level all"}
	if _, err := run(ctx, content, nil, "rpmkeys", "rpm", slices.Concat(base, []string{"--import"}, keys)...); err != nil {
		return nil, err
	}
	var bad []string
	for batch := range slices.Chunk(rpms, 500) { // a command line holds no more
		out, err := run(ctx, content, nil, "rpmkeys", "rpm", slices.Concat(base, []string{"--checksig"}, batch)...)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		bad = append(bad, notOK(batch, string(out))...)
		if err != nil && len(bad) == 0 {
			return nil, err
		}
	}
	if len(bad) > 0 {
		return nil, problem.New(problem.SignatureInvalid, "not signed with a key in %s/: %s", KeysDir, firstFew(bad)).
			WithDone("nothing was built").
			WithNext("put the vendor's public key into %s/; sign packages of your own with: rpmsign --addsign", KeysDir)
	}
	return keys, nil
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
