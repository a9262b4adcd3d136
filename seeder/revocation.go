package seeder

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/revocation"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// maxListAhead is how far ahead of the seeder's clock a list may say that it was made: a signer's clock that is years
// ahead would keep every list after it from being accepted.
const maxListAhead = 24 * time.Hour

// revocations are the bundles that operators have revoked. Nodes verify the signature themselves; it is checked here so
// that a mistake is told to the one who made it, and so that no policy names such a bundle.
type revocations struct {
	db  *fleet.Store
	set *trust.Set

	putting sync.Mutex // one at a time
	mu      sync.RWMutex
	now     recalled // replaced, never changed
}

// recalled is the list in force, and since when each line of it, and of those before, was known here.
type recalled struct {
	list   *revocation.List // nil: none
	signed trust.Signed
	lines  map[manifest.Digest]recordedLine
}

type recordedLine struct {
	revocation.Bundle
	recorded time.Time
}

func loadRevocations(ctx context.Context, db *fleet.Store, set *trust.Set) (*revocations, error) {
	x := &revocations{db: db, set: set}
	return x, x.reload(ctx)
}

// reload reads what was revoked. Signatures were verified when it came; a key that has expired since changes nothing.
func (x *revocations) reload(ctx context.Context) error {
	rows, err := x.db.Revocations(ctx)
	if err != nil {
		return err
	}
	next := recalled{lines: map[manifest.Digest]recordedLine{}}
	for _, r := range rows {
		l, err := revocation.Parse(r.Document.Doc)
		if err != nil {
			return problem.New(problem.StoreDamaged, "revocation list %d in the seeder's database", r.Sequence).Because(err)
		}
		for _, b := range l.Bundles {
			if _, ok := next.lines[b.Checksum]; !ok {
				next.lines[b.Checksum] = recordedLine{b, r.Recorded}
			}
		}
		next.list, next.signed = l, r.Document
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.now = next
	return nil
}

func (x *revocations) inForce() recalled {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.now
}

// at is the line about a bundle, by every list there ever was: a full list may have forgotten it, and the seeder does not.
func (l recalled) at(d manifest.Digest) *revocation.Bundle {
	if r, ok := l.lines[d]; ok {
		return &r.Bundle
	}
	return nil
}

// refuse is nil unless a bundle is revoked.
func (x *revocations) refuse(d manifest.Digest) error {
	b := x.inForce().at(d)
	if b == nil {
		return nil
	}
	return (&revocation.List{Bundles: []revocation.Bundle{*b}}).Refuse(d).WithDone("nothing was changed")
}

// why is the reason for which a bundle is revoked; empty: it is not.
func (x *revocations) why(d manifest.Digest) string {
	if b := x.inForce().at(d); b != nil {
		return b.Reason
	}
	return ""
}

// put takes a signed list that follows the one in force; fresh are the bundles that were not revoked before. The list in
// force once more changes nothing.
func (x *revocations) put(ctx context.Context, s trust.Signed, at, now time.Time) (fresh []revocation.Bundle, err error) {
	l, err := revocation.Open(x.set, s, at)
	if err != nil {
		return nil, err
	}
	if made := revocation.Time(l.Created); made.After(now.Add(maxListAhead)) {
		return nil, problem.New(problem.InvalidRevocation, "the list says that it was made at %s, and it is %s", l.Created, revocation.Timestamp(now)).
			WithDone("the list in force stays").WithNext("set the clock of the machine that signed it, and revoke again")
	}
	x.putting.Lock()
	defer x.putting.Unlock()
	old := x.inForce()
	if bytes.Equal(old.signed.Doc, s.Doc) {
		return nil, nil
	}
	if err := l.Follows(old.list); err != nil {
		return nil, err
	}
	if _, err := x.db.PutRevocations(ctx, fleet.Revocations{Sequence: l.Sequence, Document: s, Recorded: now}); err != nil {
		return nil, err
	}
	for _, b := range l.Bundles {
		if old.at(b.Checksum) == nil {
			fresh = append(fresh, b)
		}
	}
	return fresh, x.reload(ctx)
}

// revoked reports whether a bundle had been revoked at one time, as known at another.
func (l recalled) revoked(d *manifest.Digest, asOf, knownAt time.Time) bool {
	if d == nil {
		return false
	}
	r, ok := l.lines[*d]
	return ok && !r.recorded.After(knownAt) && !revocation.Time(r.Revoked).After(asOf)
}

// mark says of the bundles that run on a node which are revoked, whatever the node has heard of it.
func (l recalled) mark(n *status.Node) {
	if len(l.lines) == 0 {
		return
	}
	var runs []string
	for i, item := range n.Installed {
		b := l.at(item.Checksum)
		if b == nil {
			continue
		}
		if item.Revoked == "" {
			n.Installed = slices.Clone(n.Installed)
			n.Installed[i].Revoked = b.Reason
		}
		runs = append(runs, fmt.Sprintf("%s %s runs here and was revoked: %s", b.Bundle, b.Version, b.Reason))
	}
	alarmed := func(a status.Alarm) bool { return a.Code == string(problem.BundleRevoked) }
	if len(runs) > 0 && !slices.ContainsFunc(n.Alarms, alarmed) {
		n.Alarms = append(slices.Clip(n.Alarms), status.Alarm{Code: string(problem.BundleRevoked), Since: n.At,
			Message: status.Clip(strings.Join(runs, "; "), 400)})
	}
}

func (s *Seeder) revocationRoutes(handle func(method, path string, fn route)) {
	handle("GET", api.PathRevocations, func(http.ResponseWriter, *http.Request) (any, error) { return s.revoked(), nil })
	handle("POST", api.PathRevocations, func(w http.ResponseWriter, r *http.Request) (any, error) {
		var q trust.Signed
		if err := api.ReadJSON(w, r, api.MaxBody, &q); err != nil {
			return nil, err
		}
		fresh, err := s.revocations.put(r.Context(), q, s.trustedNow(), s.now())
		if err != nil {
			return nil, err
		}
		var names []string
		for _, b := range fresh {
			names = append(names, b.Bundle+" "+b.Version)
		}
		about(r, auditWord(strings.Join(names, ", ")))
		return s.revoked(), s.recall(r.Context(), fresh)
	})
}

// recall acts on bundles that were just revoked: every site hears of it and rollouts stop.
func (s *Seeder) recall(ctx context.Context, fresh []revocation.Bundle) error {
	sites, err := s.db.Sites(ctx)
	if err != nil {
		return err
	}
	for _, x := range sites {
		if err := s.publish(ctx, x.Name); err != nil {
			return err
		}
	}
	list := s.revoked()
	for _, b := range fresh {
		i := slices.IndexFunc(list.Bundles, func(x api.RevokedBundle) bool { return x.Checksum == b.Checksum })
		text := fmt.Sprintf("bundle %s %s %s is revoked: %s; %d nodes run it", b.Bundle, b.Version, b.Checksum.Short(), b.Reason, list.Bundles[i].Running)
		if names := list.Bundles[i].Policies; len(names) > 0 {
			text += "; it is named by policy " + strings.Join(names, ", ")
		}
		s.log.Warn("bundle revoked", "bundle", b.Bundle, "version", b.Version, "checksum", b.Checksum.String(), "reason", b.Reason)
		s.events.publish(api.Event{Kind: "bundle", Name: "revoked", Severity: "critical", Subject: b.Bundle + " " + b.Version, Text: text, Code: string(problem.BundleRevoked)})
	}
	if err := s.rollouts.step(ctx); err != nil { // they look again by themselves
		s.log.Error("rollouts did not get on", "err", err)
	}
	return nil
}

// revoked is the list in force, as the API shows it.
func (s *Seeder) revoked() api.Revocations {
	now := s.revocations.inForce()
	out := api.Revocations{Bundles: []api.RevokedBundle{}}
	if now.list == nil {
		return out
	}
	out.Sequence, out.Document = now.list.Sequence, &now.signed
	runs := map[manifest.Digest]int{}
	for _, n := range s.members.all() {
		said, _ := s.presence.get(n.PeerID)
		for _, i := range said.Node.Installed {
			runs[i.Checksum]++
		}
	}
	for _, b := range now.list.Bundles {
		x := api.RevokedBundle{Bundle: b, Recorded: now.lines[b.Checksum].recorded.UTC(), Running: runs[b.Checksum], Policies: []string{}}
		for _, w := range s.desired.all() {
			if w.policy != nil && w.policy.Bundle.Checksum == b.Checksum {
				x.Policies = append(x.Policies, w.Name)
			}
		}
		out.Bundles = append(out.Bundles, x)
	}
	return out
}

// refuseRevoked keeps the rollout of a revoked bundle from going on by a person's word.
func (x *rollouts) refuseRevoked(name string) error {
	for _, w := range x.desired.all() {
		if w.Name == name && w.policy != nil {
			return x.revocations.refuse(w.policy.Bundle.Checksum)
		}
	}
	return nil
}
