package node

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/gossip"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
	"github.com/patchmesh/patchmesh/node/swarm"
)

// heldPolicy is the newest revision of a policy; p is nil when it was withdrawn.
type heldPolicy struct {
	doc *policy.Document
	p   *policy.Policy
	s   trust.Signed
}

// heldDoc is a document we hand on to whoever asks for its digest.
type heldDoc struct {
	kind     wire.DocKind
	name     string
	revision uint64
	s        trust.Signed
}

// maxManifests bounds the manifests a node keeps.
const maxManifests = 64

// load reads what is on disk and builds the state of the loop. Called by New.
func (n *Node) load() error {
	var s trust.Signed
	if err := readJSON(n.d.path("roster.json"), &s); err == nil {
		if r, err := roster.Open(&n.e.Trust, s, n.rec.Floor); err == nil && r.Site == n.e.Site {
			n.adopt(&rosterInForce{r, s})
		} else {
			n.log.Error("roster on disk is not valid", "err", err)
		}
	}
	if n.inForce.Load() == nil {
		r, err := roster.Open(&n.e.Trust, n.e.Roster, n.rec.Floor)
		if err != nil {
			return problem.New(problem.RosterInvalid, "neither roster.json nor the enrolment holds a valid roster").Because(err)
		}
		n.adopt(&rosterInForce{r, n.e.Roster})
	}
	if err := n.d.eachSigned("policies", func(_ string, s trust.Signed) error {
		d, p, err := policy.Open(&n.e.Trust, s, n.rec.Floor)
		if err != nil {
			return err
		}
		if old := n.policies[d.Name]; old == nil || old.doc.Revision < d.Revision {
			n.policies[d.Name] = &heldPolicy{d, p, s}
		}
		n.rec.Policies[d.Name] = max(n.rec.Policies[d.Name], d.Revision)
		return nil
	}); err != nil {
		n.log.Error("a policy on disk is not used", "err", err)
		n.event(problem.InvalidPolicy, "a policy on disk is not used; it is asked for again: %v", err)
	}
	if err := n.d.eachSigned("bundles", func(_ string, s trust.Signed) error {
		m, _, err := n.e.Trust.OpenManifest(s, n.rec.Floor)
		if err == nil {
			n.hold(m, s)
		}
		return err
	}); err != nil {
		n.log.Error("a manifest on disk is not used", "err", err)
	}
	for _, l := range n.rec.Lives {
		l.resume()
	}
	n.rec.rebooted(bootID())
	n.loadRevoked()
	n.loadQuarantine()
	n.loadOrders()
	n.loadGrants()
	n.loadContacts()
	n.loadStrikes()
	n.unpinStale()
	role := n.roleOf(n.self)
	n.sw = swarm.New(swarm.Config{Self: swarm.Peer(n.self.String()), Role: role, Ban: n.cfg.banOf()}, time.Now())
	n.avoid()
	n.poll.due(n.cfg.now(), n.self.String(), 0) // from now on
	n.refreshDocs()
	n.mine = fit(n.describe())
	return nil
}

// adopt puts a roster in force; nil at the very start.
func (n *Node) adopt(f *rosterInForce) {
	allowed := map[peer.ID]string{}
	if f != nil {
		for _, r := range f.r.Nodes {
			if id, err := peer.Decode(r.PeerID); err == nil {
				allowed[id] = r.Name
			}
		}
	}
	n.allowed.Store(&allowed)
	if f != nil {
		n.inForce.Store(f)
	}
}

// expect tells the swarm whom to wait for at the start.
func (n *Node) expect() {
	var ps []swarm.Peer
	for id := range *n.allowed.Load() {
		if id != n.self {
			ps = append(ps, swarm.Peer(id.String()))
		}
	}
	slices.Sort(ps)
	n.step(swarm.Expect{Peers: ps})
}

// onRoster is gossip's: a document that claims a higher version.
func (n *Node) onRoster(s trust.Signed) error {
	var err error
	if cerr := n.call(n.ctx, func() { err = n.takeRoster(s) }); cerr != nil {
		return cerr
	}
	return err
}

// takeRoster verifies, persists and adopts a newer roster.
func (n *Node) takeRoster(s trust.Signed) error {
	r, err := roster.Open(&n.e.Trust, s, n.rec.Floor)
	if err != nil {
		return problem.New(problem.RosterInvalid, "a roster that was offered is not valid").Because(err).WithDone("the roster in force stays")
	}
	if r.Site != n.e.Site {
		return problem.New(problem.RosterInvalid, "a roster of site %s was offered", r.Site).WithDone("the roster in force stays")
	}
	now := n.inForce.Load()
	if r.Version <= now.r.Version {
		return nil
	}
	if err := n.d.saveSigned("", "roster", s); err != nil {
		return localError{err}
	}
	n.trustedTime(r.Created)
	n.adopt(&rosterInForce{r, s})
	n.log.Info("roster", "version", r.Version, "nodes", len(r.Nodes))
	for id, nb := range n.nb { // who is off the roster is out
		if !n.allow(id) {
			nb.s.End(problem.New(problem.PeerNotOnRoster, "%s is not on the roster any more", nb.name))
		}
	}
	n.clearAlarm(problem.PeerNotOnRoster)
	if !n.allow(n.self) {
		n.alarm(problem.PeerNotOnRoster, "this node is not on its site's roster any more: neighbours refuse it")
	}
	for name := range n.byName {
		if _, ok := r.ByName(name); !ok {
			delete(n.byName, name)
		}
	}
	n.expect()
	n.steps = append(n.steps, swarm.Role{Peer: swarm.Peer(n.self.String()), Role: n.roleOf(n.self)})
	for id := range n.nb {
		n.steps = append(n.steps, swarm.Role{Peer: swarm.Peer(id.String()), Role: n.roleOf(id)})
	}
	n.seedFrom(n.where)
	n.refreshDocs()
	n.assign() // labels may be others now
	n.retarget()
	n.mesh.Refresh()
	return nil
}

// maxFloorStep is how far one document may raise the floor: a signer whose clock is decades ahead must not make this
// node refuse, for ever, every key that has an end date.
const maxFloorStep = 400 * 24 * time.Hour

// trustedTime raises the floor of trusted time; see trust.Floor. Of what the seeder signs only a roster does: it signs grants and
// orders as often as it likes, and a bound for each is none for all of them.
func (n *Node) trustedTime(at time.Time) {
	if most := n.rec.Floor.Add(maxFloorStep); at.After(most) {
		at = most
	}
	if f := trust.Floor(n.rec.Floor, at); f.After(n.rec.Floor) {
		n.rec.Floor, n.dirty = f, true
	}
}

// onPeer is gossip's: a node of the roster is alive at this address.
func (n *Node) onPeer(p gossip.Peer) {
	id, err := peer.Decode(p.PeerID)
	if err != nil {
		return
	}
	n.group.Go(func() error {
		n.post(func() {
			c := n.contact(id)
			c.learn(p.Addr)
			c.hurry()
			n.dialNeighbours(time.Now()) // an idle node's next tick is up to a second away
			n.saveContacts(p.Name, p.Addr, p.GossipAddr)
		})
		return nil
	})
}

// onConflict is gossip's: two nodes use one name. A node restarted on another port looks like that for a while.
func (n *Node) onConflict(c gossip.Conflict) {
	if c.Last.Sub(c.First) < 3*time.Minute {
		return
	}
	n.group.Go(func() error {
		n.post(func() {
			n.event(problem.NameTaken, "the name %s is used by a second node at %s (peer ID %s)", c.Name, c.Addr, c.PeerID)
		})
		return nil
	})
}

// where is a line of peers.json.
type where struct {
	Peer   netip.AddrPort `json:"peer"`
	Gossip netip.AddrPort `json:"gossip"`
}

func (n *Node) loadContacts() {
	m := map[string]where{}
	if err := readJSON(n.d.path("peers.json"), &m); err != nil {
		m = map[string]where{}
	}
	n.where = m
	n.seedFrom(m)
	for _, r := range n.inForce.Load().r.Nodes {
		if w, ok := m[r.Name]; ok && w.Peer.IsValid() {
			if id, err := peer.Decode(r.PeerID); err == nil {
				n.contact(id).learn(w.Peer)
			}
		}
	}
}

// seedFrom sets the addresses that gossip calls: last known, roster, static.
func (n *Node) seedFrom(m map[string]where) {
	var out []string
	for _, w := range m {
		if w.Gossip.IsValid() {
			out = append(out, w.Gossip.String())
		}
	}
	for _, r := range n.inForce.Load().r.Nodes {
		if r.Name != n.e.Node {
			out = append(out, r.Addrs...)
		}
	}
	out = append(out, n.cfg.Static...)
	slices.Sort(out)
	out = slices.Compact(out)
	n.seeds.Store(&out)
}

func (n *Node) saveContacts(name string, p, g netip.AddrPort) {
	m := n.where
	if m[name] == (where{p, g}) {
		return
	}
	m[name] = where{p, g}
	for k := range m {
		if _, ok := n.inForce.Load().r.ByName(k); !ok {
			delete(m, k)
		}
	}
	n.where = m
	b, err := json.Marshal(m)
	n.disk.add(func() error {
		if err != nil {
			return err
		}
		return durable.WriteFile(n.d.path("peers.json"), b, 0o600)
	}, func(err error) {
		if err != nil {
			n.log.Warn("peers.json cannot be written", "err", err)
		}
	})
	n.seedFrom(m)
}

// refreshDocs rebuilds the list of documents and tells everybody.
func (n *Node) refreshDocs() {
	clear(n.docs)
	add := func(kind wire.DocKind, name string, rev uint64, s trust.Signed) {
		n.docs[sha256.Sum256(s.Doc)] = heldDoc{kind, name, rev, s}
	}
	f := n.inForce.Load()
	add(wire.DocRoster, f.r.Site, f.r.Version, f.s)
	if n.revoked.newest > 0 {
		add(wire.DocRevocations, "fleet", n.revoked.newest, n.revoked.signed)
	}
	for _, p := range n.policies {
		add(wire.DocPolicy, p.doc.Name, p.doc.Revision, p.s)
	}
	for _, h := range n.orders {
		add(wire.DocOrder, h.o.Bundle, h.o.Sequence, h.s)
	}
	for k, h := range n.backs {
		add(wire.DocBack, k.policy, k.sequence, h.s)
	}
	for _, h := range n.grants {
		add(wire.DocGrant, h.g.Policy, h.g.Serial, h.s)
	}
	for _, b := range n.bundles {
		add(wire.DocManifest, b.m.Name, b.m.Sequence, b.s)
	}
	l := n.docList()
	for _, nb := range n.nb {
		nb.s.Send(l)
	}
}

func (n *Node) docList() *wire.Docs {
	l := &wire.Docs{}
	for dig, d := range n.docs {
		l.Entries = append(l.Entries, wire.DocEntry{Kind: d.kind, Name: d.name, Revision: d.revision, Digest: dig})
	}
	slices.SortFunc(l.Entries, func(a, b wire.DocEntry) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	return l
}

// shelf is what a peer says it can hand on, and what it was asked for.
type shelf struct {
	list  []wire.DocEntry
	asked map[manifest.Digest]ask
	owed  int // answers to what was asked
}

type ask struct {
	tries int
	again time.Time // not before
	open  bool      // not answered
}

// docPatience is how long one peer may take to answer before another is asked, and at least how long before the same
// one is; maxAsks bounds what one list makes us ask at a time.
const (
	docPatience = 3 * time.Second
	maxAsks     = 64
)

// onDocs takes a peer's list.
func (n *Node) onDocs(s *xfer.Session, list []wire.DocEntry) {
	sh := n.shelfOf(s)
	if sh == nil {
		return
	}
	listed := make(map[manifest.Digest]bool, len(list))
	for _, e := range list {
		listed[e.Digest] = true
	}
	maps.DeleteFunc(sh.asked, func(d manifest.Digest, _ ask) bool { return !listed[d] })
	sh.list = list
	n.askFor(s, sh, time.Now())
}

func (n *Node) shelfOf(s *xfer.Session) *shelf {
	if nb := n.nb[s.Peer()]; nb != nil && nb.s == s {
		return &nb.docs
	}
	if s == n.seederS {
		return &n.seederDocs
	}
	return nil
}

// askAround asks again for what was not answered, or not asked for yet.
func (n *Node) askAround(now time.Time) {
	if now.Sub(n.askedAll) < docPatience/3 {
		return
	}
	n.askedAll = now
	maps.DeleteFunc(n.asked, func(_ manifest.Digest, at time.Time) bool { return now.Sub(at) >= docPatience })
	for _, nb := range n.nb {
		n.askFor(nb.s, &nb.docs, now)
	}
	if n.seederS != nil {
		n.askFor(n.seederS, &n.seederDocs, now)
	}
}

// askFor asks a peer for what is new in its list and what nobody was asked for just now.
func (n *Node) askFor(s *xfer.Session, sh *shelf, now time.Time) {
	if now.Before(n.mannersOf(s.Peer()).avoided) {
		return
	}
	asks := 0
	for _, e := range sh.list {
		a := sh.asked[e.Digest]
		if _, ok := n.docs[e.Digest]; ok || !n.newDoc(e) || now.Before(a.again) || now.Sub(n.asked[e.Digest]) < docPatience {
			continue
		}
		if asks++; asks > maxAsks {
			return
		}
		a.tries++
		a.again, a.open = now.Add(docPatience<<min(a.tries, 7)), true
		if sh.asked == nil {
			sh.asked = map[manifest.Digest]ask{}
		}
		sh.asked[e.Digest], n.asked[e.Digest] = a, now
		sh.owed++
		s.Send(&wire.GetDoc{Digest: e.Digest})
	}
}

// askUnder asks at once for what stands under a policy, which may have come before its revision and was not kept.
func (n *Node) askUnder(name string) {
	shelves := []*shelf{&n.seederDocs}
	for _, nb := range n.nb {
		shelves = append(shelves, &nb.docs)
	}
	for _, sh := range shelves {
		for _, e := range sh.list {
			if (e.Kind == wire.DocGrant || e.Kind == wire.DocBack) && e.Name == name && !sh.asked[e.Digest].open {
				delete(sh.asked, e.Digest)
				delete(n.asked, e.Digest)
			}
		}
	}
}

// newDoc: by what its entry says, which is a hint, a document is worth asking for.
func (n *Node) newDoc(e wire.DocEntry) bool {
	switch e.Kind {
	case wire.DocRoster:
		return e.Revision > n.inForce.Load().r.Version
	case wire.DocPolicy:
		p := n.policies[e.Name]
		return p == nil && e.Revision >= n.rec.Policies[e.Name] || p != nil && e.Revision > p.doc.Revision
	case wire.DocOrder:
		return n.wantsOrder(e.Revision)
	case wire.DocBack:
		return n.wantsBack(e.Name, e.Revision)
	case wire.DocGrant:
		return n.wantsGrant(e.Name, e.Revision)
	case wire.DocRevocations:
		return n.wantsRevocations(e.Revision)
	case wire.DocManifest:
		return n.referenced(e.Digest)
	}
	return false
}

// referenced: some policy in force, for whatever node of the site, names the bundle.
func (n *Node) referenced(d manifest.Digest) bool {
	for _, p := range n.policies {
		if p.p != nil && p.p.Bundle.Checksum == d {
			return true
		}
	}
	return false
}

// onDoc verifies a document and takes it if it is newer than what we have.
func (n *Node) onDoc(s *xfer.Session, m *wire.Doc) {
	dig := manifest.DigestOf(m.Doc)
	sh := n.shelfOf(s)
	if sh == nil {
		return
	}
	if sh.owed == 0 {
		n.unasked(s.Peer())
		return
	}
	if sh.owed--; !sh.asked[dig].open {
		return // verification costs: nobody makes us do it unasked
	}
	a := sh.asked[dig]
	a.open = false
	sh.asked[dig] = a
	d := trust.Signed{Doc: m.Doc, Sig: m.Sig}
	var err error
	switch m.Kind {
	case wire.DocRoster:
		err = n.takeRoster(d)
	case wire.DocPolicy:
		_, err = n.takePolicy(d)
	case wire.DocOrder:
		err = n.takeOrder(d)
	case wire.DocBack:
		err = n.takeBack(d)
	case wire.DocGrant:
		err = n.takeGrant(d)
	case wire.DocRevocations:
		err = n.takeRevocations(d)
	case wire.DocManifest:
		if n.referenced(dig) {
			_, err = n.takeManifest(d)
		}
	default:
		err = fmt.Errorf("document of unknown kind %q", m.Kind)
	}
	if err != nil {
		n.log.Warn("document refused", "kind", m.Kind, "from", n.nameOf(s.Peer()), "err", err)
		n.event(diskCode(err), "a %s from %s was refused: %v", m.Kind, n.nameOf(s.Peer()), err)
		if local := (localError{}); !errors.As(err, &local) {
			n.spurious(s.Peer())
		}
	}
}

// localError is why a genuine document could not be kept here: nobody else's fault.
type localError struct{ error }

// Unwrap returns the cause.
func (e localError) Unwrap() error { return e.error }

// takePolicy adopts a policy of a higher revision than the one we have; accepted is false for an old one.
func (n *Node) takePolicy(s trust.Signed) (accepted bool, err error) {
	d, p, err := policy.Open(&n.e.Trust, s, n.rec.Floor)
	if err != nil {
		return false, err
	}
	if old := n.policies[d.Name]; old != nil && d.Revision <= old.doc.Revision || d.Revision < n.rec.Policies[d.Name] {
		return false, nil
	}
	if err := n.d.saveSigned("policies", d.Name, s); err != nil {
		return false, localError{err}
	}
	if at, err := d.Time(); err == nil {
		n.trustedTime(at)
	}
	n.policies[d.Name] = &heldPolicy{d, p, s}
	n.rec.Policies[d.Name], n.dirty = d.Revision, true
	n.dropGrant(d.Name)
	n.dropBacks(d.Name)
	n.askUnder(d.Name)
	n.retryUnreadable()
	n.hurryErrands()
	n.log.Info("policy", "name", d.Name, "revision", d.Revision, "deleted", d.Deleted)
	n.retarget()
	n.refreshDocs()
	n.askAround(time.Now()) // a manifest that was not referenced before may be now
	return true, nil
}

const reasonUnreadable = "PolicyUnreadable"

// retryUnreadable: what was not readable on disk may have come again, so nothing is to be waited for.
func (n *Node) retryUnreadable() {
	for _, l := range n.rec.Lives {
		if l.Reason == reasonUnreadable {
			l.Next = time.Time{}
		}
	}
}

// takeManifest verifies and keeps a manifest.
func (n *Node) takeManifest(s trust.Signed) (*heldBundle, error) {
	dig := manifest.DigestOf(s.Doc)
	if b := n.bundles[dig]; b != nil {
		return b, nil
	}
	m, v, err := n.e.Trust.OpenManifest(s, n.rec.Floor)
	if err != nil {
		return nil, err
	}
	if len(n.bundles) >= maxManifests {
		n.prune()
	}
	if len(n.bundles) >= maxManifests {
		return nil, localError{problem.New(problem.QuotaExceeded, "%d manifests are in use already", len(n.bundles))}
	}
	if err := n.d.saveSigned("bundles", digestName(dig), s); err != nil {
		return nil, localError{err}
	}
	n.trustedTime(v.Newest())
	n.log.Info("manifest", "bundle", m.Name, "version", m.Version, "checksum", dig.Short())
	b := n.hold(m, s)
	n.retarget()
	n.refreshDocs()
	return b, nil
}

// labels of this node, by the roster.
func (n *Node) labels() map[string]string {
	if r, ok := n.inForce.Load().r.ByPeer(n.self.String()); ok {
		return r.Labels
	}
	return nil
}

// retarget works out what the policies in force ask of this node and of the site.
func (n *Node) retarget() {
	var live []*policy.Policy
	for _, p := range n.policies {
		if p.p != nil {
			live = append(live, p.p)
		}
	}
	targets := map[string]*status.Desired{}
	n.clearAlarm(problem.PolicyConflict)
	n.conflicts = map[string]error{}
	for _, c := range policy.Select(live, n.labels()) {
		if err := c.Err(); err != nil {
			n.alarm(problem.PolicyConflict, "%v", err)
			n.conflicts[c.Bundle] = err
			if l := n.rec.Lives[c.Bundle]; l != nil { // keeps what it has
				targets[c.Bundle] = l.Target
			}
			continue
		}
		if c.Policy == nil { // excluded: as if there were none
			continue
		}
		targets[c.Bundle] = &status.Desired{Policy: c.Policy.Name, Revision: n.policies[c.Policy.Name].doc.Revision,
			Bundle: c.Bundle, Version: c.Policy.Bundle.Version, Checksum: c.Policy.Bundle.Checksum}
		if from := n.policies[c.Policy.Name].doc.Commit; from != nil {
			targets[c.Bundle].Commit = from.ID
		}
	}
	for name, l := range n.rec.Lives { // a policy that cannot be read any more was not withdrawn
		if _, ok := targets[name]; !ok && l.Target != nil && n.policies[l.Target.Policy] == nil {
			targets[name] = l.Target
		}
	}
	for name := range targets {
		if n.rec.Lives[name] == nil {
			n.rec.Lives[name] = &Life{}
		}
	}
	for name, l := range n.rec.Lives {
		if l.aim(targets[name]) {
			if name == n.quarantine.Bundle { // what it is about may be asked for no more
				n.quarantine = n.quarantine.hurry()
			}
			n.lifeChanged(name, l, nil)
		}
	}
	n.reconcileBundles()
}
