// Package lease decides who may use a site's WAN. At any time one node of a site holds the primary uplink lease; a
// second one exists only beside it when a node states that it cannot reach any holder over its LAN, which is accounted
// as a split; when there are as many as there may be, they take turns. A lease is short and renewed; it ends when it is given back, when its holder's connection ends, and when
// it is not renewed in time, whichever comes first.
//
// The package is pure: a Table takes events with the time they happened and returns what to tell whom. It keeps nothing
// on disk: after a restart of the seeder the sites ask again. A Table belongs to one goroutine.
package lease

import (
	"encoding/binary"
	"hash/fnv"
	"maps"
	"slices"
	"time"
)

// Config holds the terms. The zero value of a field means the default beside it.
type Config struct {
	ActiveTTL   time.Duration // 6 s: of a holder that fetches; what a silent power-off costs
	ActiveRenew time.Duration // 2 s: a third, so that one lost renewal costs nothing
	IdleTTL     time.Duration // 60 s: of a holder that only reports
	IdleRenew   time.Duration // 20 s
	MaxActive   int           // 2048: active leases of all sites together
	MaxSplit    int           // 2: split leases of one site beside the primary
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.ActiveTTL, 6*time.Second)
	def(&c.ActiveRenew, 2*time.Second)
	def(&c.IdleTTL, time.Minute)
	def(&c.IdleRenew, 20*time.Second)
	if c.MaxActive == 0 {
		c.MaxActive = 2048
	}
	if c.MaxSplit == 0 {
		c.MaxSplit = 2
	}
	return c
}

// splitTerm is how long a split lease is safe from a node that reaches none of the site's holders.
const splitTerm = 30 * time.Second

// claimTTL is how long a statement "I cannot reach that holder" counts.
const claimTTL = 30 * time.Second

// Event is something that happened.
type Event interface{ event() }

// Ask is a request for the site's lease.
type Ask struct {
	Site, Peer  string
	Nonce       uint64
	Active      bool   // there is something to fetch
	Unreachable string // peer ID of a holder that an earlier refusal named and that the asker cannot reach
	Never       bool   // the roster says that this node is never the uplink
}

// Renew keeps a lease.
type Renew struct {
	Site, Peer string
	Nonce      uint64
	Lease      uint64
	Active     bool
	SeesHolder bool // the holder of a split lease reaches another holder again
}

// Release gives a lease back.
type Release struct {
	Site, Peer string
	Lease      uint64
}

// Gone says that a peer's connection ended, or that it left the roster.
type Gone struct{ Site, Peer string }

// Tick says that time has passed. Leases of sites from which no other event comes end here.
type Tick struct{}

func (Ask) event()     {}
func (Renew) event()   {}
func (Release) event() {}
func (Gone) event()    {}
func (Tick) event()    {}

// Action is something to tell a peer.
type Action interface{ action() }

// Grant answers Ask and Renew.
type Grant struct {
	Site, Peer string
	Nonce      uint64
	Lease      uint64
	TTL, Renew time.Duration
	Split      bool
	First      bool // a new lease, not a renewal: what the accounting counts
}

// Refuse answers Ask, and Renew of a lease that has ended or ends with it.
type Refuse struct {
	Site, Peer string
	Nonce      uint64
	Holder     string // peer ID of a holder to work with, or to call unreachable; may be empty
	Retry      time.Duration
	Reason     string
}

// Revoke says that a lease ended without its holder asking for it.
type Revoke struct {
	Site, Peer string
	Lease      uint64
	Reason     string
}

func (Grant) action()  {}
func (Refuse) action() {}
func (Revoke) action() {}

// Reasons of Refuse and Revoke.
const (
	ReasonHeld    = "another node of the site is the uplink"
	ReasonSplits  = "the site has as many uplinks as it may"
	ReasonBusy    = "the seeder serves as many sites as it may"
	ReasonNever   = "the roster says that this node is never the uplink"
	ReasonEnded   = "the lease has ended"
	ReasonHealed  = "the site is whole again"
	ReasonExpired = "the lease was not renewed in time"
	ReasonTurn    = "it is the turn of another part of the site"
)

// Lease is one lease in force.
type Lease struct {
	ID      uint64
	Peer    string
	Split   bool
	Active  bool
	Since   time.Time
	Expires time.Time
}

type site struct {
	leases []Lease                         // the primary first, where there is one; then splits, oldest first
	claims map[string]map[uint64]time.Time // asker -> lease it cannot reach -> when it said so
}

// Table holds the leases of all sites.
type Table struct {
	cfg    Config
	sites  map[string]*site
	last   uint64
	active int
}

// NewTable returns an empty table. Lease numbers begin after first, which should differ between runs of the seeder, so
// that a renewal of an earlier run's lease is refused.
func NewTable(cfg Config, first uint64) *Table {
	return &Table{cfg: cfg.withDefaults(), sites: map[string]*site{}, last: first}
}

// Holder returns the lease that a peer holds at now.
func (t *Table) Holder(now time.Time, siteName, peer string) (Lease, bool) {
	if s := t.sites[siteName]; s != nil {
		if i := s.find(peer); i >= 0 && now.Before(s.leases[i].Expires) {
			return s.leases[i], true
		}
	}
	return Lease{}, false
}

// Leases returns the leases of a site, the primary first.
func (t *Table) Leases(siteName string) []Lease {
	if s := t.sites[siteName]; s != nil {
		return append([]Lease(nil), s.leases...)
	}
	return nil
}

// Active returns how many leases are active in all sites together.
func (t *Table) Active() int { return t.active }

// Step takes one event.
func (t *Table) Step(now time.Time, ev Event) []Action {
	switch e := ev.(type) {
	case Ask:
		return append(t.expire(now, e.Site), t.ask(now, e)...)
	case Renew:
		return append(t.expire(now, e.Site), t.renew(now, e))
	case Release:
		out := t.expire(now, e.Site)
		t.end(e.Site, e.Peer, e.Lease)
		return out
	case Gone:
		out := t.expire(now, e.Site)
		t.end(e.Site, e.Peer, 0)
		return out
	case Tick:
		var out []Action
		for _, name := range slices.Sorted(maps.Keys(t.sites)) {
			out = append(out, t.expire(now, name)...)
		}
		return out
	}
	return nil
}

func (t *Table) ask(now time.Time, e Ask) (out []Action) {
	s := t.sites[e.Site]
	if s == nil {
		s = &site{claims: map[string]map[uint64]time.Time{}}
		t.sites[e.Site] = s
	}
	defer t.forget(e.Site)
	// A holder that asks has lost its own state, or its connection before we saw it end: begin anew.
	if i := s.find(e.Peer); i >= 0 {
		t.drop(s, i)
	}

	refuse := func(holder, reason string, lo, hi time.Duration) []Action {
		return append(out, Refuse{e.Site, e.Peer, e.Nonce, holder, jitter(now, e.Site, e.Peer, lo, hi), reason})
	}
	if e.Never {
		return refuse(s.holder(), ReasonNever, time.Minute, 2*time.Minute)
	}
	if i := s.find(e.Unreachable); i >= 0 {
		s.claim(now, e.Peer, s.leases[i].ID)
	}
	if l, ok := s.unclaimed(now, e.Peer); ok {
		// Who has something to fetch comes back soon though the holder has not: it may be gone, or out of reach.
		lo, hi := t.cfg.ActiveRenew/2, t.cfg.ActiveRenew*3/2
		if !l.Active && !e.Active {
			lo, hi = t.cfg.IdleRenew/2, t.cfg.IdleRenew*3/2
		}
		return refuse(l.Peer, ReasonHeld, lo, hi)
	}
	if e.Active && t.active >= t.cfg.MaxActive {
		return refuse("", ReasonBusy, t.cfg.ActiveTTL, 5*t.cfg.ActiveTTL)
	}
	if len(s.leases) > t.cfg.MaxSplit {
		// A site in many pieces takes turns; so does a node among neighbours that keep all leases to themselves.
		i := s.eldest()
		if l := s.leases[i]; now.Sub(l.Since) >= splitTerm {
			t.drop(s, i)
			out = append(out, Revoke{e.Site, l.Peer, l.ID, ReasonTurn})
		} else {
			return refuse(s.holder(), ReasonSplits, t.cfg.ActiveTTL, 2*t.cfg.ActiveTTL)
		}
	}
	delete(s.claims, e.Peer)
	t.last++
	s.leases = append(s.leases, Lease{ID: t.last, Peer: e.Peer, Split: len(s.leases) > 0, Since: now})
	g := t.extend(now, e.Site, len(s.leases)-1, e.Active)
	g.Nonce, g.First = e.Nonce, true
	return append(out, g)
}

func (t *Table) renew(now time.Time, e Renew) Action {
	refuse := func(holder, reason string) Action {
		lo, hi := t.cfg.ActiveRenew/2, t.cfg.ActiveRenew
		if reason == ReasonBusy {
			lo, hi = t.cfg.ActiveTTL, 5*t.cfg.ActiveTTL
		}
		return Refuse{e.Site, e.Peer, e.Nonce, holder, jitter(now, e.Site, e.Peer, lo, hi), reason}
	}
	s := t.sites[e.Site]
	if s == nil {
		return refuse("", ReasonEnded)
	}
	i := s.find(e.Peer)
	switch {
	case i < 0 || s.leases[i].ID != e.Lease:
		return refuse(s.holder(), ReasonEnded)
	case s.leases[i].Split && e.SeesHolder:
		holder := s.holder()
		t.end(e.Site, e.Peer, e.Lease)
		return refuse(holder, ReasonHealed)
	case e.Active && !s.leases[i].Active && t.active >= t.cfg.MaxActive:
		t.end(e.Site, e.Peer, e.Lease)
		return refuse("", ReasonBusy)
	}
	g := t.extend(now, e.Site, i, e.Active)
	g.Nonce = e.Nonce
	return g
}

// extend sets the terms of a lease from now on.
func (t *Table) extend(now time.Time, name string, i int, active bool) Grant {
	l := &t.sites[name].leases[i]
	if active != l.Active {
		if l.Active = active; active {
			t.active++
		} else {
			t.active--
		}
	}
	ttl, renew := t.cfg.IdleTTL, t.cfg.IdleRenew
	if active {
		ttl, renew = t.cfg.ActiveTTL, t.cfg.ActiveRenew
	}
	l.Expires = now.Add(ttl)
	return Grant{Site: name, Peer: l.Peer, Lease: l.ID, TTL: ttl, Renew: renew, Split: l.Split}
}

// end takes a peer's lease away; id 0 is whichever it holds. When that was the primary, the oldest split takes its
// place: its holder learns it with its next renewal, and nobody else gets a primary in between.
func (t *Table) end(name, peer string, id uint64) {
	s := t.sites[name]
	if s == nil {
		return
	}
	if i := s.find(peer); i >= 0 && (id == 0 || s.leases[i].ID == id) {
		t.drop(s, i)
	}
	if id == 0 {
		delete(s.claims, peer)
	}
	t.forget(name)
}

func (t *Table) drop(s *site, i int) {
	if s.leases[i].Active {
		t.active--
	}
	id := s.leases[i].ID
	s.leases = append(s.leases[:i], s.leases[i+1:]...)
	if len(s.leases) > 0 {
		s.leases[0].Split = false
	}
	for peer, c := range s.claims {
		if delete(c, id); len(c) == 0 {
			delete(s.claims, peer)
		}
	}
}

func (t *Table) expire(now time.Time, name string) (out []Action) {
	s := t.sites[name]
	if s == nil {
		return nil
	}
	for i := 0; i < len(s.leases); {
		l := s.leases[i]
		if now.Before(l.Expires) {
			i++
			continue
		}
		t.drop(s, i)
		out = append(out, Revoke{name, l.Peer, l.ID, ReasonExpired})
	}
	t.forget(name)
	return out
}

// forget drops a site without leases: what is left of it is claims about leases that are gone.
func (t *Table) forget(name string) {
	if s := t.sites[name]; s != nil && len(s.leases) == 0 {
		delete(t.sites, name)
	}
}

func (s *site) find(peer string) int {
	for i := range s.leases {
		if s.leases[i].Peer == peer {
			return i
		}
	}
	return -1
}

// eldest is the split lease that was granted first, or the primary where there is none.
func (s *site) eldest() int {
	at := min(1, len(s.leases)-1)
	for i := at + 1; i < len(s.leases); i++ {
		if s.leases[i].Since.Before(s.leases[at].Since) {
			at = i
		}
	}
	return at
}

func (s *site) holder() string {
	if len(s.leases) == 0 {
		return ""
	}
	return s.leases[0].Peer
}

func (s *site) claim(now time.Time, peer string, id uint64) {
	if s.claims[peer] == nil {
		s.claims[peer] = map[uint64]time.Time{}
	}
	s.claims[peer][id] = now
}

// unclaimed returns the first lease whose holder the peer has not called unreachable: it should work with that one.
func (s *site) unclaimed(now time.Time, peer string) (Lease, bool) {
	for _, l := range s.leases {
		if said, ok := s.claims[peer][l.ID]; !ok || now.Sub(said) > claimTTL {
			return l, true
		}
	}
	return Lease{}, false
}

// jitter spreads retries over [lo, hi): not at random, so that a run can be replayed, but differently for every asker
// and instant.
func jitter(now time.Time, site, peer string, lo, hi time.Duration) time.Duration {
	h := fnv.New64a()
	h.Write([]byte(site))
	h.Write([]byte{0})
	h.Write([]byte(peer))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano())))
	// FNV's low bits of near inputs are near: fold the high ones in.
	x := h.Sum64()
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 32
	return lo + time.Duration(x%uint64(max(hi-lo, 1)))
}
