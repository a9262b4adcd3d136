package seeder

import (
	"strings"

	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// signers names who signed a policy that is in the database: the fingerprints of primary keys, joined by '+'. Whoever
// tells of a policy's origin tells it so.
func (s *Seeder) signers(doc trust.Signed) string {
	sig := doc.Sig
	if d, err := policy.Read(doc); err == nil && d.Commit != nil {
		sig = d.Commit.Signature
	}
	names, err := s.set.Policy.Signers(sig)
	if err != nil {
		return "" // of another version of this program
	}
	return strings.Join(names, "+")
}
