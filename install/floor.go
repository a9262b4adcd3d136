package install

import (
	"fmt"

	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// admitGrant refuses a grant that is older than one that this machine has seen before, and remembers the newest: on the
// disk, before anything is done by it. The daemon has no privileges and may have been taken over: what it once was given
// it could show again, such as the grant from before a pause.
//
// The floor is that of one site and one policy, as are the serials, and counts within the policy's revision (policy.Mark).
// A seeder that came back from a backup numbers on by the time of day, and so above what it has forgotten. If its clock
// had been ahead meanwhile, its grants are too old here until the operator gives the policy a new revision.
func (s *session) admitGrant(v *verified) error {
	g := v.grant
	if v.wanted.Rollout == nil || v.grantErr != nil || !g.Fits(s.Config.Site, v.policy, v.revision, v.release.Checksum) {
		return nil // granted says what follows
	}
	return s.raise(g)
}

func (s *session) raise(g *grant.Grant) error {
	if newest := s.ledger.Grants[g.Site][g.Policy]; g.Mark().Before(newest) {
		return &deferral{reason: grant.LeaseMissing, detail: fmt.Sprintf("grant %d for revision %d of policy %s is older than grant %d for revision %d, which this machine has seen; a newer grant ends that, or a new revision of the policy",
			g.Serial, g.Revision, g.Policy, newest.Number, newest.Revision)}
	}
	return s.change(func(l *ledger.Ledger) bool { return l.Granted(g.Site, g.Policy, g.Mark()) })
}

// takeNote raises the floors of a policy and its grants, and does nothing else. A daemon in order gives notice when a start
// that was granted is granted no more, so that one that is taken over later has nothing to show.
func (s *session) takeNote(r Request) Result {
	set, err := readTrust(s.Config.Trust)
	if err != nil {
		return s.refuse(err)
	}
	at := trust.Floor(s.Built, s.ledger.Time)
	d, p, err := policy.Open(set, trust.Signed{Doc: r.Policy, Sig: r.PolicySignature}, at)
	if err != nil {
		return s.refuse(err)
	}
	if err := s.ledger.AdmitPolicy(d.Name, d.Revision); err != nil {
		return s.refuse(err)
	}
	g, err := grantOf(set, at, r)
	if err != nil {
		return s.refuse(err)
	}
	if g != nil {
		if p == nil || !g.Fits(s.Config.Site, d.Name, d.Revision, p.Bundle.Checksum) {
			return s.refuse(&deferral{reason: grant.LeaseMissing, detail: "the grant of the notice is not one for its policy"})
		}
		if err := s.raise(g); err != nil {
			return s.refuse(err)
		}
	}
	if err := s.change(func(l *ledger.Ledger) bool { return l.Accept(d.Name, d.Revision) }); err != nil {
		return s.refuse(err)
	}
	return newResult(Success, ExitDone, status.Installed, ReasonNoted)
}
