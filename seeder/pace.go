package seeder

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/patchmesh/patchmesh/internal/wall"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// onWire is how many bytes of a link so many bytes of a data lane take: 4.5 % more, for the frames of yamux, the records
// of TLS and the headers of TCP and IP. 1500 bytes of a full packet carry 1448 (3.6 %), and on the interface of a site
// 1.040 to 1.042 bytes were counted for each of payload, all control messages among them. Caps, rules and the day's total
// are held in these bytes. What TCP has to send again on a line that loses packets is not in them.
func onWire(n int) int64 { return int64(n) + (45*int64(n)+999)/1000 }

// Bounds of a site's pace.
const (
	paceEvery = 250 * time.Millisecond // how soon a border of a rule is noticed
	catchUp   = 20 * time.Millisecond  // of the rate: what may be made up for after a pause of ours
)

// pace holds what each site is sent to its WAN profile, and all sites together to one cap.
type pace struct {
	now     func() time.Time // what the profiles go by
	today   func(site, day string) int64
	changed func(site string) // what a site may use has changed; called without a lock
	total   *rate.Limiter     // nil: no cap

	mu    sync.Mutex
	sites map[string]*tap
	sum   meter // of all sites
}

// tap is one site's.
type tap struct {
	profile wanprofile.Profile
	zone    *time.Location

	at    time.Time // when the following was found
	day   wall.Date
	end   time.Time // of the day
	full  bool      // a chunk did not fit in what was left of the day's total
	allow wanprofile.Allowance
	last  int64                // rate before a pause
	told  wanprofile.Allowance // what changed was last called for

	debt  float64   // bytes sent ahead of the rate; below 0: what may be made up for
	paid  time.Time // debt is of then
	waits chan struct{}
	meter meter
}

func newPace(now func() time.Time, total int64, today func(site, day string) int64) *pace {
	p := &pace{now: now, today: today, changed: func(string) {}, sites: map[string]*tap{}}
	if total > 0 {
		p.total = rate.NewLimiter(rate.Limit(total), int(onWire(2*xfer.SliceBytes)))
	}
	return p
}

// set gives a site its profile.
func (p *pace) set(site string, profile wanprofile.Profile, zone *time.Location) {
	p.mu.Lock()
	t := p.sites[site]
	if t == nil {
		t = &tap{waits: make(chan struct{})}
		p.sites[site] = t
	}
	t.profile, t.zone, t.full = profile, zone, false
	p.renew(site, t, p.now())
	p.mu.Unlock()
	p.tell(site)
}

// terms is what a site may use at this moment.
type terms struct {
	wanprofile.Allowance
	day    string
	perDay int64
}

func (p *pace) terms(site string) terms {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.sites[site]
	if t == nil { // it is being created
		return terms{}
	}
	if now := p.now(); p.due(site, t, now) {
		p.renew(site, t, now)
	}
	return terms{t.allow, t.day.String(), t.profile.PerDay}
}

// due: what was found no longer holds. The lock is held.
func (p *pace) due(site string, t *tap, now time.Time) bool {
	return !now.Before(t.end) || !t.allow.Until.IsZero() && !now.Before(t.allow.Until) || now.Before(t.at) ||
		t.profile.PerDay > 0 && !t.full && p.today(site, t.day.String()) >= t.profile.PerDay
}

// renew finds what holds now. The lock is held.
func (p *pace) renew(site string, t *tap, now time.Time) {
	local := now.In(t.zone)
	if day := wanprofile.Day(local); day != t.day {
		t.day, t.full = day, false
	}
	t.at, t.end = now, wanprofile.DayEnd(local)
	used := p.today(site, t.day.String())
	if t.full = t.full || t.profile.PerDay > 0 && used >= t.profile.PerDay; t.full {
		used = max(used, t.profile.PerDay)
	}
	if t.allow = t.profile.Allow(local, used); !t.allow.Paused {
		t.last = t.allow.BytesPerSecond
	}
	close(t.waits) // who waits by the old rate looks at the new one
	t.waits = make(chan struct{})
}

// fill notes that a chunk did not fit in what is left of a day's total.
func (p *pace) fill(site, day string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.sites[site]; t != nil && t.day.String() == day && !t.full {
		t.full = true
		p.renew(site, t, p.now())
	}
}

// tell calls changed when a site may use more or less than it was last called for.
func (p *pace) tell(site string) {
	p.mu.Lock()
	t := p.sites[site]
	news := t != nil && (t.told.Paused != t.allow.Paused || t.told.BytesPerSecond != t.allow.BytesPerSecond)
	if news {
		t.told = t.allow
	}
	p.mu.Unlock()
	if news {
		p.changed(site)
	}
}

// wait returns when n bytes of a data lane, at most a slice and its header, may be sent to the site. It goes by the
// rate: a chunk that was begun before a pause is finished at the rate there was.
func (p *pace) wait(ctx context.Context, site string, n int) error {
	bytes := onWire(n)
	for {
		p.mu.Lock()
		t, now := p.sites[site], time.Now()
		if t == nil {
			p.mu.Unlock()
			return nil
		}
		d := t.delay(now)
		if d <= 0 {
			t.debt += float64(bytes)
			t.meter.add(now, bytes)
			p.sum.add(now, bytes)
			p.mu.Unlock()
			break
		}
		waits := t.waits
		p.mu.Unlock()
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-waits:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
	if p.total != nil {
		return p.total.WaitN(ctx, int(bytes))
	}
	return nil
}

// delay is how long to wait before anything may be sent. Time passed pays for what was sent; a pause of ours is made up
// for by at most catchUp.
func (t *tap) delay(now time.Time) time.Duration {
	r := float64(t.rate())
	if r == 0 {
		t.debt, t.paid = 0, now
		return 0
	}
	if !t.paid.IsZero() {
		t.debt = max(t.debt-now.Sub(t.paid).Seconds()*r, -r*catchUp.Seconds())
	}
	t.paid = now
	return time.Duration(t.debt / r * float64(time.Second))
}

// rate in bytes per second; 0: no limit.
func (t *tap) rate() int64 {
	switch limit := t.profile.Cap; {
	case !t.allow.Paused:
		return t.allow.BytesPerSecond
	case limit > 0 && (t.last == 0 || t.last > limit):
		return limit
	default: // what was begun before is still sent
		return t.last
	}
}

// rate is how many bytes a second of its link the site was sent of late.
func (p *pace) rate(site string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.sites[site]; t != nil {
		return t.meter.rate(time.Now())
	}
	return 0
}

// crowded: all sites together are at their cap.
func (p *pace) crowded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total != nil && 10*p.sum.rate(time.Now()) >= 9*int64(p.total.Limit())
}

// run notices borders of rules, ends of days and totals that are used up.
func (p *pace) run(ctx context.Context) error {
	return every(ctx, paceEvery, p.look)
}

func (p *pace) look() {
	var names []string
	p.mu.Lock()
	now := p.now()
	for name, t := range p.sites {
		if p.due(name, t, now) || t.told.Paused != t.allow.Paused || t.told.BytesPerSecond != t.allow.BytesPerSecond {
			names = append(names, name)
		}
	}
	p.mu.Unlock()
	for _, name := range names { // a thousand sites may have the same border: the lock is not held for all of them
		p.terms(name)
		p.tell(name)
	}
}

// meterSlots are seconds over which a slow rate is measured, and quickSlots those for one of many slices a second.
const (
	meterSlots = 16
	quickSlots = 4
)

// meter counts bytes by second.
type meter struct {
	slots [meterSlots]int64
	last  int64 // second of the newest slot
}

func (m *meter) turn(now time.Time) {
	s := now.Unix()
	for n := min(s-m.last, meterSlots); n > 0; n-- {
		m.slots[(s-n+1)%meterSlots] = 0
	}
	m.last = max(s, m.last)
}

func (m *meter) add(now time.Time, n int64) {
	m.turn(now)
	m.slots[m.last%meterSlots] += n
}

// rate is the mean over some seconds that have passed and the one that passes: few where they saw slices enough to tell.
func (m *meter) rate(now time.Time) int64 {
	m.turn(now)
	part := float64(now.Nanosecond()) / 1e9
	if n := m.sum(quickSlots); n == 0 || n >= 8*onWire(xfer.SliceBytes) {
		return int64(float64(n) / (quickSlots - 1 + part))
	}
	return int64(float64(m.sum(meterSlots)) / (meterSlots - 1 + part))
}

func (m *meter) sum(slots int64) (n int64) {
	for i := range slots {
		n += m.slots[(m.last-i+meterSlots)%meterSlots]
	}
	return n
}
