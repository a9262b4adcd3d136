package seeder

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// desired is the newest revision of every policy. Nodes verify the signatures themselves; they are checked here so that
// a mistake is told to the one who made it.
type desired struct {
	db  *fleet.Store
	set *trust.Set
	log *slog.Logger

	revoked func(manifest.Digest) error // why a bundle may not be named

	putting sync.Mutex // one change at a time
	mu      sync.RWMutex
	list    []want // in the order of their names
}

// want is one policy; policy is nil when it was withdrawn or cannot be read.
type want struct {
	fleet.Policy
	document *policy.Document
	policy   *policy.Policy
	earlier  earlier
}

// earlier is whom the revisions before selected: who follows one of them has to hear of the newest, be it that it is about
// others now.
type earlier struct {
	selectors []policy.Selector // each once
	everybody bool              // there are more than are read, or one that cannot be read
}

// maxEarlier bounds the revisions of one policy that are read for them.
const maxEarlier = 32

// with adds a revision's selector; nil is one that deleted the policy.
func (e earlier) with(p *policy.Policy) earlier {
	if p != nil && !slices.ContainsFunc(e.selectors, func(s policy.Selector) bool { return s.String() == p.Selector.String() }) {
		e.selectors = append(e.selectors, p.Selector)
	}
	return e
}

// concerns: the node follows the policy, or an exclude of it, or may follow a revision before.
func (w want) concerns(labels map[string]string) bool {
	return w.policy == nil || w.earlier.everybody || w.policy.Selector.Matches(labels) ||
		slices.ContainsFunc(w.earlier.selectors, func(s policy.Selector) bool { return s.Matches(labels) })
}

func loadDesired(ctx context.Context, db *fleet.Store, set *trust.Set, log *slog.Logger) (*desired, error) {
	d := &desired{db: db, set: set, log: log}
	return d, d.reload(ctx)
}

// reload reads what is in force. Signatures were verified when it came; a key that has expired since changes nothing.
// The list is replaced, never changed.
func (d *desired) reload(ctx context.Context) error {
	ps, err := d.db.Policies(ctx)
	if err != nil {
		return err
	}
	had := map[string]want{}
	for _, w := range d.all() {
		had[w.Name] = w
	}
	list := make([]want, 0, len(ps))
	for _, p := range ps {
		w := want{Policy: p}
		if old, ok := had[p.Name]; ok && old.Revision == p.Revision {
			w.earlier = old.earlier
		} else if w.earlier, err = d.before(ctx, p); err != nil {
			return err
		}
		if w.document, err = policy.Read(p.Document); err != nil {
			return problem.New(problem.StoreDamaged, "policy %s in the seeder's database", p.Name).Because(err)
		}
		if !w.document.Deleted {
			// Another version of the seeder may have taken it. The nodes decide for themselves: all get to see it.
			if w.policy, err = w.document.Parse(); err != nil {
				d.log.Error("policy in force cannot be read by this version; every site gets it", "policy", p.Name, "err", err)
			}
		}
		list = append(list, w)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = list
	return nil
}

// before reads whom the revisions before this one selected.
func (d *desired) before(ctx context.Context, newest fleet.Policy) (e earlier, err error) {
	ps, err := d.db.PolicyHistory(ctx, newest.Name)
	if err != nil || len(ps) > maxEarlier {
		return earlier{everybody: true}, err
	}
	for _, p := range ps {
		if p.Revision == newest.Revision {
			continue
		}
		doc, err := policy.Read(p.Document)
		if err != nil {
			return earlier{everybody: true}, nil
		}
		was, err := doc.Parse()
		if err != nil {
			return earlier{everybody: true}, nil
		}
		e = e.with(was)
	}
	return e, nil
}

func (d *desired) all() []want {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.list
}

// put takes a signed document. The bundle it names must be published with that checksum.
func (d *desired) put(ctx context.Context, lib *library, s trust.Signed, at, now time.Time) (want, error) {
	doc, pol, err := policy.Open(d.set, s, at)
	if err != nil {
		return want{}, err
	}
	if pol != nil {
		if err := checkBundle(lib, pol); err != nil {
			return want{}, err
		}
		if err := d.revoked(pol.Bundle.Checksum); err != nil {
			return want{}, err
		}
	}
	w := want{Policy: fleet.Policy{Name: doc.Name, Revision: doc.Revision, Document: s, Recorded: now}, document: doc, policy: pol}
	d.putting.Lock()
	defer d.putting.Unlock()
	for _, x := range d.all() {
		if x.Name == doc.Name && x.Revision < doc.Revision {
			if err := notOlder(lib, pol, x.policy); err != nil {
				return want{}, err
			}
		}
	}
	if _, err := d.db.PutPolicy(ctx, w.Policy); err != nil {
		return want{}, err
	}
	return w, d.reload(ctx)
}

func checkBundle(lib *library, p *policy.Policy) error {
	ref := p.Bundle
	refuse := func(format string, args ...any) error {
		return problem.New(problem.ChecksumMismatch, format, args...).WithDone("the policy was not applied")
	}
	if k, ok := lib.book(ref.Checksum); ok && !k.Committed.IsZero() {
		if k.Name != ref.Name || k.Version != ref.Version {
			return refuse("policy %s: the checksum is of bundle %s %s, the policy says %s %s", p.Name, k.Name, k.Version, ref.Name, ref.Version)
		}
		return nil
	}
	for _, k := range lib.list() {
		if k.Name == ref.Name && k.Version == ref.Version && !k.Committed.IsZero() {
			return refuse("policy %s: bundle %s %s has the checksum %s, the policy says %s", p.Name, k.Name, k.Version, k.Digest, ref.Checksum)
		}
	}
	return problem.New(problem.NotFound, "policy %s: there is no published bundle %s %s", p.Name, ref.Name, ref.Version).
		WithDone("the policy was not applied").WithNext("push it first: meshctl bundle push DIR")
}

func (w want) info() api.PolicyInfo {
	i := api.PolicyInfo{Name: w.Name, Revision: w.Revision, Deleted: w.document.Deleted, Document: w.Document}
	i.Created, _ = w.document.Time() // validated when it was parsed
	if w.policy != nil {
		i.Bundle, i.Version, i.Checksum = w.policy.Bundle.Name, w.policy.Bundle.Version, w.policy.Bundle.Checksum
	}
	return i
}
