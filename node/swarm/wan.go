package swarm

import (
	"slices"
	"time"
)

// flow is the traffic over the WAN as this node, being uplink, sees it.
type flow struct {
	inFlight int64     // bytes asked for
	pauseTil time.Time // after a refusal
	paused   time.Time // the seeder wants no request before that
	rtt      time.Duration
	rate     int64 // bytes a second, the best of recent seconds
	bytes    int64 // since mark
	mark     time.Time
	last     time.Time // when something last arrived, or the first chunk of a row was asked for
	in       int64     // bytes of this session, of chunks that are not whole too
}

// moved notes how much has come: a whole chunk may take minutes on a thin line.
func (f *flow) moved(now time.Time, in int64) {
	if in != f.in {
		f.in, f.last = in, now
	}
}

// ask notes a request of so many bytes.
func (f *flow) ask(now time.Time, n int64) {
	if f.inFlight == 0 {
		f.last = now
	}
	f.inFlight += n
}

func (f *flow) stored(now time.Time, n int64) {
	f.last = now
	if f.mark.IsZero() || now.Sub(f.mark) > 5*time.Second {
		f.mark, f.bytes = now, 0
	}
	f.bytes += n
	if d := now.Sub(f.mark); d >= time.Second {
		r := f.bytes * int64(time.Second) / int64(d)
		f.rate = max(r, f.rate*7/8)
		f.mark, f.bytes = now, 0
	}
}

// windowBytes is how much may be asked of the WAN or held by the uplink alone: 4 chunks of the default size, or
// twice the bandwidth-delay product, whichever is larger. It bounds what the uplink's death costs.
func (s *Swarm) windowBytes() int64 {
	return max(s.cfg.Window, 2*s.wan.rate*int64(s.wan.rtt)/int64(time.Second))
}

// planWAN asks the seeder for chunks that nobody here has, as many as fit the window: the first, and while that does
// not fit the largest of those behind it that does. A window that is not full is a line that stands idle.
func (s *Swarm) planWAN() {
	if s.now.Before(s.wan.pauseTil) || s.now.Before(s.wan.paused) {
		return
	}
	room := s.windowBytes() - s.wan.inFlight - s.unshared()
	for _, b := range s.list {
		if len(b.buckets) == 0 || len(b.buckets[0]) == 0 || room < minRoom || !s.siteWants(b) || !s.heardOf(b) {
			continue
		}
		list := s.firstMissing(b)
		for len(list) > 0 {
			at := b.next(list, room, room == s.windowBytes())
			if at < 0 {
				return
			}
			n := list[at]
			list = slices.Delete(list, at, at+1)
			room -= b.sizes[n]
			s.fetch(nil, b, n)
		}
	}
}

// next is the position in the list of the chunk to ask for, -1: none fits. In an empty window any does.
func (b *bundle) next(list []int, room int64, empty bool) int {
	if b.sizes[list[0]] <= room || empty {
		b.passed = 0
		return 0
	}
	at := -1
	for i, n := range list {
		if b.sizes[n] <= room && (at < 0 || b.sizes[n] > b.sizes[list[at]]) {
			at = i
		}
	}
	if at < 0 || b.passed >= maxPassed {
		return -1
	}
	b.passed++
	return at
}

// maxPassed is how many chunks may be asked for before a large one that does not fit: if none might, the window would
// stand half empty, and if all did, the large ones would be left for the end and go one by one.
const maxPassed = 8

// minRoom in the window is not worth looking for a chunk that fits.
const minRoom = 4 << 10

// firstMissing returns chunks that nobody has, more than fill the window, in catalog order: among chunks that nobody
// has none is rarer, and disks like order. The index comes first, alone, since it says what the rest is. The holder of
// a split lease begins at the other end, so that two halves of a site that find each other again have fetched different
// things.
func (s *Swarm) firstMissing(b *bundle) []int {
	const most = 64
	var out []int
	pick := func(n int) {
		if b.place[n] >= 0 && b.holders[n] == 0 && len(out) < most {
			out = append(out, n)
		}
	}
	for n := range b.index {
		pick(n)
	}
	if len(out) > 0 {
		return out
	}
	for i := b.index; i < len(b.sizes) && len(out) < most; i++ {
		if s.uplink.split {
			pick(len(b.sizes) - 1 - (i - b.index))
		} else {
			pick(i)
		}
	}
	return out
}

// heardOf: every neighbour has said what it holds of the bundle, also of chunks that it has from other bundles; or
// they had time enough.
func (s *Swarm) heardOf(b *bundle) bool {
	if s.now.Sub(b.grew) >= s.cfg.Settle/2 {
		return true
	}
	for p := range s.trusted {
		if h := p.have[b.id]; h == nil || h.total < len(b.sizes) {
			return false
		}
	}
	return true
}

// siteWants: this node or a neighbour is to hold the bundle.
func (s *Swarm) siteWants(b *bundle) bool {
	if b.wants {
		return true
	}
	for _, p := range s.order {
		if h := p.have[b.id]; h != nil && h.wants {
			return true
		}
	}
	return false
}

// unshared is the number of bytes that came over the WAN and that no neighbour holds yet although one wants them. A
// neighbour that takes nothing does not hold up the site: a chunk is waited for so long, and if nobody took it, the
// next one less long.
func (s *Swarm) unshared() (n int64) {
	for _, b := range s.list {
		if len(b.alone) == 0 {
			continue
		}
		wanted := false
		for p := range s.trusted {
			h := p.have[b.id]
			wanted = wanted || h != nil && h.wants && !s.now.Before(p.pauseTil)
		}
		for i, at := range b.alone {
			switch {
			case !wanted:
				delete(b.alone, i)
			case s.now.Sub(at) > shareWithin>>min(b.untaken, 4):
				delete(b.alone, i)
				b.untaken++
			default:
				n += b.sizes[i]
			}
		}
	}
	return n
}

// shareWithin is how long the uplink waits at most for a neighbour to take a chunk that it alone holds.
const shareWithin = 5 * time.Second
