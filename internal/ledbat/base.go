package ledbat

import "time"

// How long a path's base is remembered: RFC 6817 keeps ten minutes, we an hour, because a flow that fills the link may
// last longer than ten minutes, and because a base that has become too low is found out (see Controller).
const (
	buckets = 30
	bucket  = 2 * time.Minute
)

// Base is the history of the smallest round trips of one path: what is left of one when no queue is in the way. The zero
// value knows nothing. Several controllers of one path share a Base, and what idle connections measure belongs in it too: a
// base that is learnt only while others fill the link is too high.
type Base struct {
	least [buckets]time.Duration // 0: nothing measured
	last  int64                  // number of the newest bucket
}

// Observe takes a round trip; 0 is none.
func (b *Base) Observe(now time.Time, rtt time.Duration) {
	if rtt <= 0 {
		return
	}
	b.turn(now)
	if x := &b.least[b.last%buckets]; *x == 0 || rtt < *x {
		*x = rtt
	}
}

// Min is the smallest round trip of the last hour, 0 if none was measured.
func (b *Base) Min(now time.Time) (least time.Duration) {
	b.turn(now)
	for _, x := range b.least {
		if x != 0 && (least == 0 || x < least) {
			least = x
		}
	}
	return least
}

// moved forgets all but one round trip: the path has changed.
func (b *Base) moved(now time.Time, rtt time.Duration) {
	*b = Base{last: b.last}
	b.Observe(now, rtt)
}

// turn empties the buckets that have become too old. A clock that goes backwards empties nothing.
func (b *Base) turn(now time.Time) {
	n := now.UnixNano() / int64(bucket)
	if n < 0 || n <= b.last {
		return
	}
	for i := max(b.last+1, n-buckets+1); i <= n; i++ {
		b.least[i%buckets] = 0
	}
	b.last = n
}
