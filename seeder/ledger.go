package seeder

import (
	"context"
	"slices"
	"sync"

	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// ledger counts what is sent over each site's WAN. It is written every second and when the seeder stops; what a
// kill loses is the count of that second.
type ledger struct {
	db *fleet.Store

	mu    sync.Mutex
	sites map[string]*account
}

type account struct {
	fleet.Account
	dirty      bool
	dirtyPages map[uint32]bool
}

func loadLedger(ctx context.Context, db *fleet.Store) (*ledger, error) {
	have, err := db.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	l := &ledger{db: db, sites: map[string]*account{}}
	for name, a := range have {
		l.sites[name] = &account{Account: *a, dirtyPages: map[uint32]bool{}}
	}
	return l, nil
}

// of returns a site's account. The lock is held.
func (l *ledger) of(site string) *account {
	a := l.sites[site]
	if a == nil {
		a = &account{Account: fleet.Account{Site: site, Pages: map[uint32][]byte{}}, dirtyPages: map[uint32]bool{}}
		l.sites[site] = a
	}
	a.dirty = true
	return a
}

// partial counts payload bytes of a chunk that did not arrive whole.
func (l *ledger) partial(site string, payload int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(site).Payload += payload
}

// sent counts a chunk.
func (l *ledger) sent(site string, number uint32, payload, plain int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.of(site)
	a.Payload += payload
	a.Plain += plain
	page, bit := number/fleet.PageBits, number%fleet.PageBits
	bits := a.Pages[page]
	if bits == nil {
		bits = make([]byte, fleet.PageBits/8)
		a.Pages[page] = bits
	}
	if mask := byte(1) << (bit % 8); bits[bit/8]&mask != 0 {
		a.Duplicate += plain
	} else {
		bits[bit/8] |= mask
		a.Needed += plain
		a.dirtyPages[page] = true
	}
}

// split counts a lease granted beside another.
func (l *ledger) split(site string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(site).Splits++
}

func (l *ledger) site(name string) fleet.Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.sites[name]; a != nil {
		return a.Account
	}
	return fleet.Account{Site: name}
}

// flush writes what changed. On an error it is tried again with the next flush.
func (l *ledger) flush(ctx context.Context) error {
	l.mu.Lock()
	var list []fleet.Account
	for _, a := range l.sites {
		if !a.dirty {
			continue
		}
		out := a.Account
		out.Pages = map[uint32][]byte{}
		for p := range a.dirtyPages {
			out.Pages[p] = slices.Clone(a.Pages[p])
		}
		a.dirty, a.dirtyPages = false, map[uint32]bool{}
		list = append(list, out)
	}
	l.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	err := l.db.PutAccounts(ctx, list)
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, out := range list {
			a := l.of(out.Site)
			for p := range out.Pages {
				a.dirtyPages[p] = true
			}
		}
	}
	return err
}
