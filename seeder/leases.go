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
	cap     func(site string) int64
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
			l.tell(a.Peer, h.Active, &wire.LeaseGrant{Nonce: a.Nonce, Lease: a.Lease, TTLMillis: a.TTL.Milliseconds(),
				RenewMillis: a.Renew.Milliseconds(), Split: a.Split, CapBytesPerSecond: l.cap(a.Site)})
		case lease.Refuse:
			l.log.Debug("lease refused", "site", a.Site, "peer", a.Peer, "holder", a.Holder, "reason", a.Reason)
			l.tell(a.Peer, false, &wire.LeaseRefuse{Nonce: a.Nonce, Holder: a.Holder, RetryMillis: a.Retry.Milliseconds(), Reason: a.Reason})
		case lease.Revoke:
			l.log.Warn("lease ended", "site", a.Site, "peer", a.Peer, "lease", a.Lease, "reason", a.Reason)
			l.tell(a.Peer, false, &wire.LeaseRefuse{Reason: a.Reason})
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
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			l.step(lease.Tick{})
		case <-ctx.Done():
			return nil
		}
	}
}
