package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/revocation"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// revocations is what the node knows of revoked bundles. The newest signed list is handed on; what was read in any list
// stays known, also after the key that signed it has come to its end.
type revocations struct {
	known  *revocation.List // all that was ever read; nil: nothing was
	newest uint64           // sequence of signed; 0: there is none
	signed trust.Signed     // the newest list as it came
}

// The files: what is known, and the list to hand on.
const (
	revokedName     = "revoked.json"
	revocationsName = "revocations"
)

// loadRevoked reads what is on disk. Called by load.
func (n *Node) loadRevoked() {
	b, err := os.ReadFile(n.d.path(revokedName))
	if err == nil {
		n.revoked.known, err = revocation.Parse(b)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.log.Error("what is known of revoked bundles cannot be read; the list is asked for again", "err", err)
	}
	var s trust.Signed
	if err := readJSON(n.d.path(revocationsName+".json"), &s); err != nil {
		return
	}
	l, err := revocation.Open(&n.e.Trust, s, n.rec.Floor)
	if err != nil {
		n.log.Error("revocation list on disk is not handed on", "err", err)
		return
	}
	n.revoked = revocations{known: revocation.Merge(n.revoked.known, l), newest: l.Sequence, signed: s}
}

// wantsRevocations: by its sequence a list is worth having.
func (n *Node) wantsRevocations(sequence uint64) bool {
	return sequence > n.revoked.newest && (n.revoked.known == nil || sequence >= n.revoked.known.Sequence)
}

// takeRevocations verifies a newer list and adds it to what is known: on disk first, then in force.
func (n *Node) takeRevocations(s trust.Signed) error {
	l, err := revocation.Open(&n.e.Trust, s, n.rec.Floor)
	if err != nil {
		return err
	}
	if !n.wantsRevocations(l.Sequence) {
		return nil
	}
	known := revocation.Merge(n.revoked.known, l)
	b, err := known.Encode()
	if err == nil {
		err = durable.WriteFile(n.d.path(revokedName), b, 0o644)
	}
	if err == nil {
		err = n.d.saveSigned("", revocationsName, s)
	}
	if err != nil {
		return localError{err}
	}
	n.trustedTime(revocation.Time(l.Created))
	n.revoked = revocations{known: known, newest: l.Sequence, signed: s}
	n.log.Info("revocations", "sequence", l.Sequence, "bundles", len(l.Bundles))
	n.reconcileBundles()
	n.markRevoked()
	n.refreshDocs()
	return nil
}

// withheld keeps a life from moving on towards a bundle that is revoked. What the executor has begun it finishes.
func (n *Node) withheld(name string, l *Life) bool {
	no := n.revoked.known.Refuse(l.Target.Checksum)
	if no == nil || Final(l.Phase) || l.Begun {
		return false
	}
	now, news := time.Now(), l.Reason != install.ReasonRevoked
	l.claimed, l.waiting, l.Window = time.Time{}, false, nil
	l.refuse(now, install.ReasonRevoked, problem.BundleRevoked)
	l.Detail = clip(no.Subject+"; "+no.Next, maxDetail)
	if news {
		n.lifeChanged(name, l, nil)
	}
	return true
}

// markRevoked alarms as long as something that runs here is revoked.
func (n *Node) markRevoked() {
	var runs []string
	for _, l := range n.rec.Lives {
		if l.Installed == nil {
			continue
		}
		if b := n.revoked.known.Find(l.Installed.Checksum); b != nil {
			runs = append(runs, fmt.Sprintf("%s %s runs here and was revoked: %s", b.Bundle, b.Version, b.Reason))
		}
	}
	if len(runs) == 0 {
		if a, ok := n.alarms[problem.BundleRevoked]; ok && a.until.IsZero() {
			n.clearAlarm(problem.BundleRevoked)
		}
		return
	}
	slices.Sort(runs)
	n.alarm(problem.BundleRevoked, "%s; it goes on until a policy names another bundle", strings.Join(runs, "; "))
}

// maxRevoked bounds in bytes what a statement says of why a bundle was revoked; the alarm says more.
const maxRevoked = 80

// shown is an installed bundle as the statement has it.
func (n *Node) shown(i status.InstalledItem) status.InstalledItem {
	if b := n.revoked.known.Find(i.Checksum); b != nil {
		i.Revoked = clip(b.Reason, maxRevoked)
	}
	return i
}
