package seeder

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// What the ledger promises a site at a time, in bytes of its link: what is used in two seconds, within these bounds. It
// is what a kill of the seeder may cost a site of its day's total, and the doubt that it leaves in the account.
const (
	leastPromise = 1 << 20
	mostPromise  = 64 << 20
)

// errDayFull says that a chunk does not fit in what is left of the day's total.
var errDayFull = errors.New("the day's total does not hold the chunk")

// ledger counts what is sent over each site's WAN. What may be sent is on disk before it is sent, as a promise: after a
// kill the day's total counts all of it as used, so that the total holds whatever happens, and the account says how much
// it is in doubt of. Promises and counts are written together, every second and whenever a promise runs low.
type ledger struct {
	db  *fleet.Store
	log *slog.Logger
	low chan struct{} // a promise runs low

	mu      sync.Mutex
	sites   map[string]*account
	written chan struct{} // closed with each attempt to write
	broken  bool          // the last one failed
}

type account struct {
	fleet.Account // Today is what is counted, Promised what is left of the promise on disk
	dirty         bool
	dirtyPages    map[uint32]bool
	lately        int64 // taken since the last write
	want          int64 // somebody waits for so much of a promise
	open          int64 // taken and not settled
	limit         int64 // of the day, as the last take said
}

// parcel is a chunk's share of the link while it is on its way.
type parcel struct {
	site, day string
	bytes     int64
}

func loadLedger(ctx context.Context, db *fleet.Store, log *slog.Logger) (*ledger, error) {
	have, err := db.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	l := &ledger{db: db, log: log, low: make(chan struct{}, 1), sites: map[string]*account{}, written: make(chan struct{})}
	for name, a := range have {
		x := &account{Account: *a, dirtyPages: map[uint32]bool{}}
		if a.Promised > 0 {
			log.Warn("the seeder was killed while it sent: the account of the site is a lower bound", "site", name, "bytes", a.Promised)
			x.Unsure, x.Promised, x.dirty = a.Unsure+a.Promised, 0, true
		}
		l.sites[name] = x
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

// take books bytes of a site's link on a local day of at most limit bytes (0: no limit), and waits until the disk knows.
// What is taken is settled by sent or by partial.
func (l *ledger) take(ctx context.Context, site, day string, bytes, limit int64) (parcel, error) {
	for {
		l.mu.Lock()
		a := l.of(site)
		if a.Day != day { // what was promised was promised of another day
			if day > a.Day { // a clock that is set back gives nothing back
				a.Today = 0
			}
			a.Day, a.Promised = day, 0
		}
		a.limit = limit
		if limit > 0 && a.Today+bytes > limit {
			l.mu.Unlock()
			return parcel{}, errDayFull
		}
		if a.Promised >= bytes || l.broken && limit == 0 { // without a limit a full disk of ours does not stop a site
			a.Promised -= min(bytes, a.Promised)
			a.Today += bytes
			a.lately += bytes
			a.open += bytes
			if a.low() {
				l.hurry()
			}
			l.mu.Unlock()
			return parcel{site, day, bytes}, nil
		}
		a.want = max(a.want, bytes)
		written := l.written
		l.hurry()
		l.mu.Unlock()
		select {
		case <-written:
		case <-ctx.Done():
			return parcel{}, ctx.Err()
		}
	}
}

func (l *ledger) hurry() {
	select {
	case l.low <- struct{}{}:
	default:
	}
}

// partial settles a chunk that did not arrive whole: payload bytes of it were sent, and so many of the link.
func (l *ledger) partial(p parcel, payload, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.of(p.site)
	a.open -= p.bytes
	a.Payload += payload
	if a.Day == p.day {
		a.Today -= max(0, p.bytes-bytes)
	}
}

// sent settles a chunk.
func (l *ledger) sent(p parcel, number uint32, payload, plain int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.of(p.site)
	a.open -= p.bytes
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

// today is what was used on a site's local day.
func (l *ledger) today(site, day string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.sites[site]
	if a == nil || a.Day < day {
		return 0
	}
	if a.Day > day { // the clock was ahead: what was used counts today, and no longer
		a.Day, a.Promised, a.dirty = day, 0, true
	}
	return a.Today
}

// run writes every second and when a promise runs low. After an error only the clock tries again.
func (l *ledger) run(ctx context.Context) error {
	t := time.NewTicker(flushEvery)
	defer t.Stop()
	for {
		which := (*account).changed
		select {
		case <-t.C:
		case <-l.low:
			l.mu.Lock()
			broken := l.broken
			l.mu.Unlock()
			if broken {
				continue
			}
			which = (*account).low
		case <-ctx.Done():
			return nil
		}
		if err := l.flush(ctx, which, false); err != nil && ctx.Err() == nil {
			l.log.Error("accounts not written; trying again", "in", flushEvery.String(), "err", err)
		}
	}
}

// entry is an account on its way to disk.
type entry struct {
	fleet.Account
	promise, rest int64 // the new promise, and what was left of the old one
}

// changed: there is something to write.
func (a *account) changed() bool { return a.dirty || a.Promised > 0 }

// low: there is something to promise.
func (a *account) low() bool { return a.want > 0 || a.Promised < a.lately/2 }

// flush writes those accounts, with new promises to those who use them; the last one takes all promises back. On an
// error it is tried again with the next. It is called by one goroutine at a time.
func (l *ledger) flush(ctx context.Context, which func(*account) bool, last bool) error {
	l.mu.Lock()
	var entries []entry
	var list []fleet.Account
	for _, a := range l.sites {
		if which(a) {
			e := a.entry(last)
			entries, list = append(entries, e), append(list, e.Account)
		}
	}
	l.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	err := l.db.PutAccounts(ctx, list)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = err != nil
	for _, e := range entries {
		a := l.sites[e.Site]
		switch {
		case err != nil:
			a.dirty = true
			for p := range e.Pages {
				a.dirtyPages[p] = true
			}
		case a.Day == e.Day:
			a.Promised += e.promise - e.rest
		}
	}
	close(l.written)
	l.written = make(chan struct{})
	return err
}

// entry makes what is to be written of an account. Until that is done no more may be used than both what stands on disk and
// what is about to allow.
func (a *account) entry(last bool) entry {
	e := entry{Account: a.Account}
	if !last && (a.lately > 0 || a.want > 0) {
		e.promise = max(a.want, min(max(2*a.lately, leastPromise), mostPromise))
		if a.limit > 0 {
			e.promise = max(0, min(e.promise, a.limit-a.Today))
		}
	}
	a.Promised = min(a.Promised, e.promise)
	e.rest = a.Promised
	e.Today, e.Promised = a.Today+e.promise, e.promise+a.open
	e.Pages = map[uint32][]byte{}
	for p := range a.dirtyPages {
		e.Pages[p] = slices.Clone(a.Pages[p])
	}
	a.dirty, a.dirtyPages, a.lately, a.want = false, map[uint32]bool{}, 0, 0
	return e
}
