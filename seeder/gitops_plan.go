package seeder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
	"github.com/patchmesh/patchmesh/seeder/fleet"
	"github.com/patchmesh/patchmesh/seeder/gitops"
)

// maxWrong bounds how many faults of one commit are told.
const maxWrong = 10

// gitPlan is what a commit changes.
type gitPlan struct {
	policies []fleet.Policy // new revisions
	removal  policy.Removal
}

// plan checks every policy of a commit against what is in force. The caller holds desired.putting.
func (f *follower) plan(ctx context.Context, snap *gitops.Snapshot, last string) (gitPlan, error) {
	inForce := map[string]want{}
	var before, after []*policy.Policy
	for _, w := range f.s.desired.all() {
		inForce[w.Name] = w
		if w.policy == nil {
			continue
		}
		before = append(before, w.policy)
		if _, changes := snap.Policies[w.Name]; !changes && w.document.Commit == nil {
			after = append(after, w.policy) // given by hand: no business of the repository
		}
	}
	var out gitPlan
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(snap.Policies)) {
		w, text := inForce[name], snap.Policies[name]
		p, err := f.check(name, text)
		if err == nil {
			after = append(after, p)
			if w.document == nil || w.document.Deleted || w.document.Commit == nil || w.document.Policy != string(text) {
				var put fleet.Policy
				if put, err = f.prove(ctx, snap, last, w, name, text); err == nil {
					out.policies = append(out.policies, put)
				}
			}
		}
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	for name, w := range inForce {
		if _, ok := snap.Policies[name]; ok || w.document.Deleted || w.document.Commit == nil {
			continue
		}
		put, err := f.prove(ctx, snap, last, w, name, nil)
		if err != nil {
			wrong = append(wrong, err)
		}
		out.policies = append(out.policies, put)
	}
	if len(wrong) == 1 {
		return out, wrong[0]
	}
	if len(wrong) > 0 {
		return out, problem.New(problem.CommitRefused, "commit %.12s: %d policies cannot be used", snap.Commit.ID, len(wrong)).
			Because(errors.Join(wrong[:min(len(wrong), maxWrong)]...)).WithDone("nothing was changed; the last good commit stays in force")
	}
	var labels []map[string]string
	for _, n := range f.s.members.all() {
		labels = append(labels, n.Labels)
	}
	out.removal = policy.Removed(before, after, labels)
	return out, nil
}

// check parses one policy of a commit; its bundle must be published.
func (f *follower) check(name string, text []byte) (*policy.Policy, error) {
	file := policy.GitDirectory + "/" + name + ".yaml"
	p, err := policy.ParseFile(file, text)
	if err != nil {
		return nil, err
	}
	if p.Name != name {
		return nil, problem.New(problem.InvalidPolicy, "%s is for policy %q: call it %s.yaml", file, p.Name, p.Name).
			WithDone("nothing was changed; the last good commit stays in force")
	}
	return p, checkBundle(f.s.library, p)
}

// prove makes the document by which nodes see for themselves what a commit says of a policy. It is made of the newest
// commit, unless an earlier one, not yet seen, reverts for this policy what the newest only merges.
func (f *follower) prove(ctx context.Context, snap *gitops.Snapshot, last string, w want, name string, text []byte) (fleet.Policy, error) {
	base := snap
	var touched []string
	if last != "" {
		var err error
		if touched, err = f.mirror.Touched(ctx, last, snap.Commit.ID, policy.GitDirectory+"/"+name+".yaml"); err != nil {
			return fleet.Policy{}, err
		}
	}
	if len(touched) > 0 && touched[0] != snap.Commit.ID {
		if c, err := f.mirror.At(ctx, touched[0]); err == nil && c.Commit.Reverts != "" && c.Holds(name, text) && uint64(max(c.Commit.Time.Unix(), 0)) > w.Revision {
			if _, err := f.verify(c); err == nil {
				base = c
			}
		}
	}
	var reverted *gitops.Snapshot
	if id := base.Commit.Reverts; id != "" && len(touched) > 0 && touched[0] == base.Commit.ID {
		if ok, err := f.mirror.Descends(ctx, id, base.Commit.ID); err == nil && ok {
			if reverted, err = f.mirror.At(ctx, id); err != nil {
				reverted = nil // what it says it reverts is not there: no relation, and no older bundle
			}
		}
	}
	s, err := base.Proof(name, text, reverted)
	if err != nil {
		return fleet.Policy{}, err
	}
	doc, p, err := policy.Open(&f.s.set, s, f.s.trustedNow())
	if err != nil {
		return fleet.Policy{}, err
	}
	if doc.Revision <= w.Revision {
		return fleet.Policy{}, problem.New(problem.CommitRefused, "policy %s is at revision %d, commit %.12s would be %d", name, w.Revision, base.Commit.ID, doc.Revision).
			WithDone("nothing was changed; the last good commit stays in force").WithNext("make another commit")
	}
	if err := notOlder(f.s.library, p, w.policy); err != nil {
		return fleet.Policy{}, err
	}
	if p != nil {
		if err := f.s.revocations.refuse(p.Bundle.Checksum); err != nil {
			return fleet.Policy{}, err
		}
	}
	return fleet.Policy{Name: name, Revision: doc.Revision, Document: s, Recorded: f.s.now()}, nil
}

// notOlder refuses a policy that goes back to an older bundle without saying so.
func notOlder(lib *library, next, inForce *policy.Policy) error {
	if next == nil || inForce == nil || next.Bundle.Name != inForce.Bundle.Name {
		return nil
	}
	a, ok := lib.book(next.Bundle.Checksum)
	b, had := lib.book(inForce.Bundle.Checksum)
	if !ok || !had {
		return nil
	}
	return gitops.Older(next, a.Sequence, b.Sequence)
}

// sites reads and checks the sites of a commit.
func (f *follower) sites(snap *gitops.Snapshot) (out []gitops.Site, err error) {
	for _, name := range slices.Sorted(maps.Keys(snap.Sites)) {
		x, err := gitops.ParseSite(name, snap.Sites[name])
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// putSites makes sites and changes what a file says of them. It may be done again: what is as it should be is left alone.
func (f *follower) putSites(ctx context.Context, sites []gitops.Site) error {
	for _, x := range sites {
		at, err := f.s.db.Site(ctx, x.Name)
		if problem.CodeOf(err) == problem.NotFound {
			if _, err = f.s.createSite(ctx, api.SiteSpec{Name: x.Name, Timezone: x.Timezone}); err != nil {
				return fmt.Errorf("site %s: %w", x.Name, err)
			}
			f.audit(ctx, "make site", x.Name, "")
			at, err = f.s.db.Site(ctx, x.Name)
		}
		if err != nil {
			return err
		}
		if x.Timezone != "" && x.Timezone != at.Timezone {
			if _, err := f.s.setTimezone(ctx, x.Name, api.SiteZone{Timezone: x.Timezone}, func(api.SiteZone) error { return nil }); err != nil {
				return err
			}
			f.audit(ctx, "set time zone", x.Name, x.Timezone)
		}
		if d := x.Profile(); d != nil {
			p, err := d.Profile()
			if err != nil {
				return err
			}
			if p.Text() == at.WAN.Text() {
				continue
			}
			if _, err := f.s.setWAN(ctx, x.Name, p.Document(), func(wanprofile.Document) error { return nil }); err != nil {
				return err
			}
			f.audit(ctx, "set WAN profile", x.Name, manifest.DigestOf([]byte(p.Text())).Short())
		}
	}
	return nil
}
