package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// The seeder's orders to go back (order.OpenDelegated) are kept apart from those of operators: how they are numbered, and
// how many there are, is the seeder's doing, and must neither push out nor hide an order of a person.

// backKey names an order of the seeder.
type backKey struct {
	policy   string
	sequence uint64
}

const backPrefix = "back-"

func isBack(name string) bool { return strings.HasPrefix(name, backPrefix) }

// file is the name of the order's file in orders/.
func (k backKey) file() string { return fmt.Sprintf("%s%020d-%s", backPrefix, k.sequence, k.policy) }

// lets is the policy in force by which the seeder may give an order; nil if there is none. mine: it has to select this node
// too.
func (n *Node) lets(o *order.Order, mine bool) *heldPolicy {
	p := n.policies[o.Under.Policy]
	if p == nil || order.Delegated(o, p.doc.Revision, p.p) != nil || mine && !p.p.Matches(n.labels()) {
		return nil
	}
	return p
}

// loadBack takes an order of the seeder from the disk. One that the policy in force does not let it give is of an older
// revision, and is removed.
func (n *Node) loadBack(file string, s trust.Signed) error {
	o, err := order.OpenDelegated(&n.e.Trust, s, n.rec.Floor)
	if err != nil {
		return err
	}
	if n.lets(o, false) == nil {
		return durable.Remove(n.d.path("orders", file+".json"))
	}
	n.backs[backKey{o.Under.Policy, o.Sequence}] = &heldOrder{o, s}
	return nil
}

// backsOf are the sequences of the seeder's orders under a policy, in order.
func (n *Node) backsOf(name string) (out []uint64) {
	for k := range n.backs {
		if k.policy == name {
			out = append(out, k.sequence)
		}
	}
	slices.Sort(out)
	return out
}

// wantsBack: by what its entry says an order of the seeder is worth asking for.
func (n *Node) wantsBack(name string, sequence uint64) bool {
	p := n.policies[name]
	if p == nil || p.p == nil || p.p.Rollout == nil || !p.p.Rollout.Budget.Rollback || n.backs[backKey{name, sequence}] != nil {
		return false
	}
	held := n.backsOf(name)
	return len(held) < order.MaxKept || sequence > held[0]
}

// takeBack verifies and keeps an order of the seeder. Under a revision that is not in force here it is not kept: it is
// over, or the revision is still to come.
func (n *Node) takeBack(s trust.Signed) error {
	o, err := order.OpenDelegated(&n.e.Trust, s, n.rec.Floor)
	if err != nil {
		return err
	}
	if !slices.Contains(o.Targets.Sites, n.e.Site) {
		return problem.New(problem.Denied, "order %d is for another site", o.Sequence).WithDone("it was not kept")
	}
	p := n.policies[o.Under.Policy]
	if p == nil || p.doc.Revision != o.Under.Revision || !n.wantsBack(o.Under.Policy, o.Sequence) {
		return nil
	}
	if err := order.Delegated(o, p.doc.Revision, p.p); err != nil {
		return err
	}
	key := backKey{o.Under.Policy, o.Sequence}
	if err := n.d.saveSigned("orders", key.file(), s); err != nil {
		return localError{err}
	}
	n.backs[key] = &heldOrder{o, s}
	if held := n.backsOf(key.policy); len(held) > order.MaxKept {
		n.dropBack(backKey{key.policy, held[0]})
	}
	n.log.Info("order of the seeder", "sequence", o.Sequence, "policy", o.Under.Policy, "revision", o.Under.Revision, "bundle", o.Bundle, "version", o.Version, "reason", o.Reason)
	n.assign()
	n.refreshDocs()
	return nil
}

// dropBacks forgets the orders of the seeder that a new revision of a policy has put an end to.
func (n *Node) dropBacks(name string) {
	for _, q := range n.backsOf(name) {
		if key := (backKey{name, q}); n.lets(n.backs[key].o, false) == nil {
			n.dropBack(key)
		}
	}
}

func (n *Node) dropBack(key backKey) {
	delete(n.backs, key)
	if err := durable.Remove(n.d.path("orders", key.file()+".json")); err != nil {
		n.log.Warn("order cannot be removed", "err", err)
	}
}

// assignBacks is the part of assign for the orders of the seeder.
func (n *Node) assignBacks(labels map[string]string) {
	for k, h := range n.backs {
		e := n.rec.Backs[k.policy]
		if (e == nil || e.Revision < h.o.Under.Revision || e.Revision == h.o.Under.Revision && e.Sequence < k.sequence) &&
			h.o.Targets.Names(n.e.Site, n.e.Node, labels) && n.lets(h.o, true) != nil {
			n.rec.Backs[k.policy], n.dirty = &errand{Sequence: k.sequence, Revision: h.o.Under.Revision}, true
		}
	}
}

// backDuties are the orders of the seeder that are to be carried out, in the order of their policies. What an operator has
// ordered since about the same bundle puts an end to them; the executor sees to that too.
func (n *Node) backDuties() (out []duty) {
	for _, name := range slices.Sorted(maps.Keys(n.rec.Backs)) {
		e := n.rec.Backs[name]
		h := n.backs[backKey{name, e.Sequence}]
		if e.Done || h == nil || n.lets(h.o, true) == nil {
			continue
		}
		if by := n.rec.Errands[h.o.Bundle]; by != nil && by.Sequence >= e.Sequence {
			continue
		}
		out = append(out, duty{e, h})
	}
	return out
}
