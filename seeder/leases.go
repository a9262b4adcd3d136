package seeder

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
	"github.com/patchmesh/patchmesh/seeder/lease"
)

// leases tells the lease table what happens and the peers what it decides. Decision and message leave under one lock, so
// that a peer hears of its lease in the order in which it changed.
type leases struct {
	log     *slog.Logger
	now     func() time.Time
	session func(peer string) *xfer.Session // nil: not connected
	terms   func(site string) terms
	split   func(site string)

	mu    sync.Mutex
	table *lease.Table
}

func (l *leases) step(ev lease.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for _, a := range l.table.Step(now, ev) {
		switch a := a.(type) {
		case lease.Grant:
			if a.First {
				l.log.Info("lease granted", "site", a.Site, "peer", a.Peer, "lease", a.Lease, "split", a.Split)
				if a.Split {
					l.split(a.Site)
				}
			}
			h, _ := l.table.Holder(now, a.Site, a.Peer)
			l.tell(a.Peer, h.Active, l.grant(now, a))
		case lease.Refuse:
			l.log.Debug("lease refused", "site", a.Site, "peer", a.Peer, "holder", a.Holder, "reason", a.Reason)
			l.tell(a.Peer, false, &wire.LeaseRefuse{Nonce: a.Nonce, Holder: a.Holder, RetryMillis: a.Retry.Milliseconds(), Reason: a.Reason,
				PauseMillis: l.terms(a.Site).pause(now), Why: l.terms(a.Site).words(now)})
		case lease.Revoke:
			l.log.Warn("lease ended", "site", a.Site, "peer", a.Peer, "lease", a.Lease, "reason", a.Reason)
			l.tell(a.Peer, false, &wire.LeaseRefuse{Reason: a.Reason})
		}
	}
}

// grant says the terms of a lease and what the site may use of its WAN.
func (l *leases) grant(now time.Time, a lease.Grant) *wire.LeaseGrant {
	t := l.terms(a.Site)
	return &wire.LeaseGrant{Nonce: a.Nonce, Lease: a.Lease, TTLMillis: a.TTL.Milliseconds(), RenewMillis: a.Renew.Milliseconds(), Split: a.Split,
		CapBytesPerSecond: t.BytesPerSecond, PauseMillis: t.pause(now), Why: t.words(now)}
}

// announce tells the holders of a site's leases that what the site may use has changed. They renew at once, which brings
// the lease's terms up to date: quick ones are for who fetches.
func (l *leases) announce(site string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for _, h := range l.table.Leases(site) {
		if s := l.session(h.Peer); s != nil && now.Before(h.Expires) {
			s.Send(l.grant(now, lease.Grant{Site: site, Lease: h.ID, TTL: h.Expires.Sub(now), Split: h.Split}))
		}
	}
}

// tell sends to a peer and lets the liveness probes follow its lease: quick for a holder that fetches.
func (l *leases) tell(peer string, active bool, m wire.Message) {
	if s := l.session(peer); s != nil {
		s.SetActive(active)
		s.Send(m)
	}
}

func (l *leases) holds(site, peer string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.table.Holder(l.now(), site, peer)
	return ok
}

// active: a holder of the site fetches, or would if it might.
func (l *leases) active(site string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.table.Leases(site) {
		if h.Active {
			return true
		}
	}
	return false
}

// primary is the peer ID of the site's uplink, empty when there is none.
func (l *leases) primary(site string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.table.Leases(site) {
		if !h.Split && l.now().Before(h.Expires) {
			return h.Peer
		}
	}
	return ""
}

// run lets leases expire of which nothing more is heard.
func (l *leases) run(ctx context.Context) error {
	return every(ctx, time.Second, func() { l.step(lease.Tick{}) })
}
