package gossip

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// table is what memberlist has told us, and what is allowed to be told. memberlist calls into it from its own
// goroutines, often under its own lock: nothing here blocks, calls out or grows without a bound. The mesh's loop
// reads it whenever changed has something.
type table struct {
	self    string
	id      string // our own peer ID
	allowed []netip.Prefix
	now     func() time.Time
	changed chan struct{} // capacity 1

	mu        sync.Mutex
	version   uint64            // of the roster in force
	names     map[string]string // the roster: peer ID by name
	letter    []byte            // the roster as we hand it on; not changed once it is here
	members   map[string]Member // all that memberlist ever admitted and that is alive or on the roster
	strangers map[string]caller // refused, but they say they know a newer roster
	conflicts map[string]Conflict
	former    map[string]place // where a node was before it moved
	inbox     []letter         // rosters heard and not yet looked at
	refused   map[[32]byte]time.Time
	counts    counts
}

// caller is where something claims to know a roster.
type caller struct {
	addr   netip.AddrPort
	roster uint64
	at     time.Time
}

// place is an address that a node had, until at.
type place struct {
	addr netip.AddrPort
	at   time.Time
}

// counts are the mesh's own counters; the guard has its own.
type counts struct {
	Unknown, Identity, Malformed, Conflicts, Rosters, RostersRefused, Joins, JoinsFailed uint64
}

const (
	maxStrangers = 16
	maxInbox     = 4
	maxRefused   = 64

	strangerTTL = 2 * time.Minute // a stranger that is real calls again
	echoTTL     = time.Minute     // that others may still say where a node was before it moved
	refusedTTL  = time.Minute     // before the same roster is tried again; a full disk may have been the reason
)

func newTable(self, id string, allowed []netip.Prefix, now func() time.Time) *table {
	return &table{
		self: self, id: id, allowed: allowed, now: now, changed: make(chan struct{}, 1),
		members: map[string]Member{}, strangers: map[string]caller{}, conflicts: map[string]Conflict{}, former: map[string]place{}, refused: map[[32]byte]time.Time{},
	}
}

// kick tells the loop to look. It never blocks.
func (t *table) kick() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// Reasons to keep a node out of the membership.
var (
	errUnknown  = errors.New("name is not on the roster")
	errIdentity = errors.New("peer ID is not the one on the roster")
	errEcho     = errors.New("node was at that address before it moved")
)

// admit decides whether an alive message about name may be believed. What it refuses never enters memberlist's table.
func (t *table) admit(name string, addr netip.AddrPort, b []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, err := parseMeta(b)
	if err != nil {
		t.counts.Malformed++
		return err
	}
	want, known := t.names[name]
	if name == t.self {
		want, known = t.id, true
	}
	switch {
	case !known:
		t.counts.Unknown++
		t.stranger(name, addr, m)
		return errUnknown
	case m.PeerID != want:
		t.counts.Identity++
		t.conflict(name, addr, m.PeerID)
		t.stranger(name, addr, m) // or the roster gave the name to another node since
		return errIdentity
	case t.echo(name, addr):
		return errEcho
	}
	return nil
}

// echo reports whether news of a node is of where it was before it moved. Such news goes round for a while after the
// farewell, and memberlist gives a node that has left any address it hears of, however old the news: it would then wait
// for the node there, and take where it really is for a second node of that name.
func (t *table) echo(name string, addr netip.AddrPort) bool {
	was, ok := t.former[name]
	return ok && was.addr == addr && t.now().Sub(was.at) < echoTTL
}

// stranger remembers one that claims a newer roster than ours: it may be on that one.
func (t *table) stranger(name string, addr netip.AddrPort, m meta) {
	if m.Roster <= t.version || !allows(t.allowed, addr.Addr()) {
		return
	}
	now := t.now()
	if _, ok := t.strangers[name]; !ok && len(t.strangers) >= maxStrangers {
		maps.DeleteFunc(t.strangers, func(_ string, c caller) bool { return now.Sub(c.at) > strangerTTL })
		if len(t.strangers) >= maxStrangers {
			return
		}
	}
	t.strangers[strings.Clone(name)] = caller{addr, m.Roster, now}
	t.kick()
}

// conflict notes a second node of one name. Names are those of the roster, so the map is bounded by it.
func (t *table) conflict(name string, addr netip.AddrPort, id string) {
	now := t.now()
	c, ok := t.conflicts[name]
	if !ok {
		c = Conflict{Name: name, First: now}
	}
	c.Addr, c.PeerID, c.Last = addr, id, now
	c.Count++
	t.conflicts[name] = c
	t.counts.Conflicts++
	t.kick()
}

// clash is memberlist's own conflict: one name, and one identity or admit would have caught it, at two addresses.
func (t *table) clash(name string, addr netip.AddrPort, b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m, err := parseMeta(b); err == nil {
		t.conflict(name, addr, m.PeerID)
	}
}

// alive and dead follow memberlist's events; admit has seen the metadata before.
func (t *table) alive(name string, addr netip.AddrPort, b []byte) {
	m, err := parseMeta(b)
	if err != nil || name == t.self {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if was, ok := t.members[name]; ok && was.GossipAddr != addr {
		t.former[name] = place{was.GossipAddr, t.now()}
		if c, ok := t.conflicts[name]; ok && c.Addr == addr && c.PeerID == m.PeerID {
			delete(t.conflicts, name) // it had moved, and we heard of that before its farewell
		}
	}
	t.members[name] = Member{
		Peer:  Peer{Name: name, PeerID: m.PeerID, Addr: netip.AddrPortFrom(addr.Addr(), m.PeerPort), GossipAddr: addr},
		Alive: true, LastSeen: t.now(), Roster: m.Roster,
	}
	t.kick()
}

func (t *table) dead(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m, ok := t.members[name]; ok {
		m.Alive = false
		t.members[name] = m
		t.kick()
	}
}

// seen notes an answer to our own probe.
func (t *table) seen(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m, ok := t.members[name]; ok {
		m.LastSeen = t.now()
		t.members[name] = m
	}
}

// heard takes a letter for the loop to look at, unless it is old news. Letters are large, so few may wait.
func (t *table) heard(b []byte) {
	l, err := parseLetter(b)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.counts.Malformed++
		return
	}
	if l.Version <= t.version || len(t.inbox) >= maxInbox {
		return
	}
	if at, ok := t.refused[digest(l.Roster)]; ok && t.now().Sub(at) < refusedTTL {
		return
	}
	if slices.ContainsFunc(t.inbox, func(o letter) bool { return digest(o.Roster) == digest(l.Roster) }) {
		return
	}
	t.inbox = append(t.inbox, l)
	t.counts.Rosters++
	t.kick()
}

// mail empties the inbox, the highest claim first.
func (t *table) mail() []letter {
	t.mu.Lock()
	defer t.mu.Unlock()
	in := t.inbox
	t.inbox = nil
	slices.SortFunc(in, func(a, b letter) int { return cmp.Compare(b.Version, a.Version) })
	return in
}

// refuse remembers a roster that the owner did not take, so that it is not verified again at once.
func (t *table) refuse(s trust.Signed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.RostersRefused++
	if len(t.refused) >= maxRefused {
		clear(t.refused)
	}
	t.refused[digest(s)] = t.now()
}

// follow puts a roster in force and reports whether it is another one than before. A roster never goes back.
func (t *table) follow(r *roster.Roster, s trust.Signed) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r == nil || r.Version <= t.version || len(s.Doc) > roster.MaxBytes || len(s.Sig) > trust.MaxSignatureBytes {
		return false
	}
	t.version = r.Version
	t.letter = letter{r.Version, s}.encode()
	t.names = make(map[string]string, len(r.Nodes))
	for _, n := range r.Nodes {
		t.names[n.Name] = n.PeerID
	}
	maps.DeleteFunc(t.members, func(name string, m Member) bool { return !m.Alive && t.names[name] != m.PeerID })
	maps.DeleteFunc(t.conflicts, func(name string, _ Conflict) bool { return t.names[name] == "" })
	maps.DeleteFunc(t.former, func(name string, _ place) bool { return t.names[name] == "" })
	return true
}

// post is the letter that we hand to others; nil while there is no roster.
func (t *table) post() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.letter
}

func (t *table) rosterVersion() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.version
}

// snapshot returns the members that the roster in force names, in the order of their names.
func (t *table) snapshot() []Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Member, 0, len(t.members))
	for name, m := range t.members {
		if t.names[name] == m.PeerID {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// missing reports whether the roster names a node that is not alive.
func (t *table) missing() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, id := range t.names {
		if m := t.members[name]; name != t.self && (!m.Alive || m.PeerID != id) {
			return true
		}
	}
	return false
}

// company reports whether anybody of the roster is alive beside us.
func (t *table) company() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, m := range t.members {
		if m.Alive && t.names[name] == m.PeerID {
			return true
		}
	}
	return false
}

// callers returns everyone who claims a newer roster than ours, by name.
func (t *table) callers() map[string]caller {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[string]caller{}
	maps.DeleteFunc(t.strangers, func(_ string, c caller) bool { return t.now().Sub(c.at) > strangerTTL })
	for name, c := range t.strangers {
		if c.roster > t.version {
			out[name] = c
		}
	}
	for name, m := range t.members {
		if m.Alive && m.Roster > t.version {
			out[name] = caller{m.GossipAddr, m.Roster, m.LastSeen}
		}
	}
	return out
}

// strangerAddrs are worth a call when a roster has just been adopted: it may name them.
func (t *table) strangerAddrs() []netip.AddrPort {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []netip.AddrPort
	for _, c := range t.strangers {
		out = append(out, c.addr)
	}
	return out
}

func (t *table) conflictList() []Conflict {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Values(t.conflicts), func(a, b Conflict) int { return strings.Compare(a.Name, b.Name) })
}

func (t *table) joined(ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ok {
		t.counts.Joins++
	} else {
		t.counts.JoinsFailed++
	}
}

func (t *table) counters() counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts
}

func digest(s trust.Signed) [32]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%d %d ", len(s.Doc), len(s.Sig))
	h.Write(s.Doc)
	h.Write(s.Sig)
	return [32]byte(h.Sum(nil))
}

func allows(nets []netip.Prefix, ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(ip) })
}
