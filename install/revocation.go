package install

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/revocation"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Bundles that operators have revoked are not installed, and nothing goes back to one on anybody's word. The daemon hands
// on the newest list with each request. What it says is verified here and written down before the request is acted upon,
// and nothing takes it out again: a daemon that is somebody else's can keep the executor from hearing of the newest
// revocation, and cannot make it forget one.
//
// What a transaction has begun it finishes, and the way back from an install that failed leads to the state before,
// whatever that was: a machine is never left in between.

// revokedName is the file in the state directory: a revocation.List, of all lists that were ever read.
const revokedName = "revoked.json"

// readRevoked reads what is known of revoked bundles; nil: nothing is.
func (s *state) readRevoked() (*revocation.List, error) {
	b, err := os.ReadFile(s.path(revokedName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var l *revocation.List
	if err == nil {
		l, err = revocation.Parse(b)
	}
	if err != nil {
		return nil, problem.New(problem.StoreDamaged, "%s cannot be read", s.path(revokedName)).Because(err).WithDone("nothing was changed").
			WithNext("it is written anew when the daemon hands on the signed list")
	}
	return l, nil
}

// learn adds the list of a request, whatever that asks for, to what is known. One that is not genuine is worth as much as none.
func (s *session) learn(r Request) error {
	if len(r.Revocations) == 0 {
		return nil
	}
	set, err := readTrust(s.Config.Trust)
	if err != nil {
		return err
	}
	l, err := revocation.Open(set, trust.Signed{Doc: r.Revocations, Sig: r.RevocationsSignature}, trust.Floor(s.Built, s.ledger.Time))
	if err != nil {
		s.Log.Warn("revocation list not believed", "err", err)
		return nil
	}
	if s.revoked.Covers(l) && s.revoked != nil && s.revoked.Sequence >= l.Sequence {
		return nil
	}
	known := revocation.Merge(s.revoked, l)
	b, err := known.Encode()
	if err != nil {
		return err
	}
	if err := s.state.write(revokedName, b); err != nil {
		return err
	}
	s.revoked, s.unread = known, nil
	return nil
}

// notRevoked refuses a bundle that is revoked, and any while it cannot be said which are.
func (s *session) notRevoked(d manifest.Digest) error {
	if s.unread != nil {
		return s.unread
	}
	if no := s.revoked.Refuse(d); no != nil {
		return no.WithDone("nothing was changed")
	}
	return nil
}

// notRevokedDir is notRevoked for the release in a directory, which is named for the version and the checksum.
func (s *session) notRevokedDir(dir string) error {
	if s.unread != nil {
		return s.unread
	}
	if s.revoked == nil {
		return nil
	}
	for _, b := range s.revoked.Bundles {
		if strings.HasSuffix(dir, "-"+b.Checksum.Short()) {
			return s.notRevoked(b.Checksum)
		}
	}
	return nil
}
