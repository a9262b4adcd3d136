package chunker

import (
	"os"
	"path/filepath"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
)

// RepoKeyName is where the public key of a deb repository stands in the content.
const RepoKeyName = KeysDir + "/repository.gpg"

// repoDate is the date of a deb repository, of the key that is made for it, and of its signature: older than what the
// most wrong clock shows, and with no end. The age of a bundle is a matter of its manifest and of the trusted time;
// apt, which knows only the machine's clock, must have no say in it.
// (Verifiers differ in what they say to a key of the future: gpgv is told by apt to ignore it, sqv refuses.)
var repoDate = time.Date(1970, 1, 1, 0, 0, 1, 0, time.UTC)

// releaseDate is the form of a date in Release, always UTC.
const releaseDate = "Mon, 02 Jan 2006 15:04:05 +0000"

// signRelease writes InRelease and the public key that verifies it. Without a key it makes one for this bundle, whose
// secret half is gone when it returns: nobody can make another InRelease that the bundle's key accepts.
func signRelease(content string, release []byte, key *signer.KeyFile) error {
	at := repoDate
	if key == nil {
		priv, _, _, err := signer.GenerateKey(signer.KeyOptions{Name: "patchmesh repository", Created: repoDate})
		if err != nil {
			return err
		}
		if key, err = signer.FromKey(priv, nil); err != nil {
			return err
		}
	} else {
		if !key.Public().Expires.IsZero() {
			return problem.New(problem.InvalidFile, "the repository's key %s expires", key.Fingerprint()).WithDone("nothing was built").
				WithNext("use a key without an end: the machines' clocks may show any time")
		}
		if made := key.Public().Created; made.After(at) {
			at = made // a signature that is older than its key is none
		}
	}
	in, err := key.ClearSign(release, at)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(content, KeysDir), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(content, RepoKeyName), key.Public().Raw, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(content, "InRelease"), in, 0o644)
}
