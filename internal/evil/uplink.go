package evil

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/wire"
)

// askLease asks the seeder for the site's lease.
func (t *talk) askLease() error {
	if err := t.say(&wire.LeaseAsk{Nonce: 1, Active: true}); err != nil {
		return err
	}
	<-t.ctx.Done()
	return t.ctx.Err()
}

// later sends a message after a while, unless the conversation has ended.
func (t *talk) later(d time.Duration, m wire.Message) {
	time.AfterFunc(d, func() {
		if t.ctx.Err() == nil {
			_ = t.say(m) // a conversation that has ended is begun anew
		}
	})
}

// granted: we are the uplink. Everybody hears it; nobody has anything of it.
func (t *talk) granted(m *wire.LeaseGrant) error {
	p := t.p
	first := m.Nonce == 1
	if first {
		p.n.Leases.Add(1)
	}
	t.later(time.Duration(m.RenewMillis)*time.Millisecond, &wire.LeaseRenew{Nonce: 2, Lease: m.Lease, Active: true})
	p.mu.Lock()
	var all []*talk
	for _, x := range p.talks {
		if !x.seeder && x.ready.Load() {
			all = append(all, x)
		}
	}
	p.mu.Unlock()
	for _, x := range all {
		_ = x.say(&wire.Uplink{Holder: p.ID().String(), Split: m.Split}) // not everybody is there
	}
	if first && p.plays(Greedy) {
		return t.fetch()
	}
	return nil
}

// fetch asks the seeder for a window of chunks, the next ones each time. hear asks for more as they come.
func (t *talk) fetch() error {
	var ms []wire.Message
	for range 16 {
		ms = append(ms, t.next())
	}
	return t.say(ms...)
}

func (t *talk) next() *wire.Get {
	n := t.p.n.Sent.Add(1)
	return &wire.Get{Req: uint32(n), ID: t.p.cfg.Chunks[int(n)%len(t.p.cfg.Chunks)]}
}

// refusedLease: ask again.
func (t *talk) refusedLease(m *wire.LeaseRefuse) error {
	t.later(max(time.Duration(m.RetryMillis)*time.Millisecond, again), &wire.LeaseAsk{Nonce: 1, Active: true, Unreachable: m.Holder})
	return nil
}

// refused: the seeder does not serve us, or not any more.
func (t *talk) refused(m *wire.Refuse) error {
	if t.seeder && m.Reason == wire.ReasonNoLease {
		t.later(time.Second, &wire.LeaseAsk{Nonce: 1, Active: true})
	}
	return nil
}
