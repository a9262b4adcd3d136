package ledbat

import "math"

// Loss is looked at in periods of so many bytes, a few hundred packets, and compared with the best of the last periods:
// what a line loses whether or not it is full. More than bearable is never taken for that.
const (
	period   = 400 * MSS
	periods  = 8
	excess   = 0.02
	bearable = 0.10
)

// noise knows what share of the bytes a path loses in any case.
type noise struct {
	from   Sample
	shares [periods]float64
	n      int
}

// observe says, once a period, whether more was lost than the path loses in any case.
func (x *noise) observe(s Sample) bool {
	sent := s.Sent - x.from.Sent
	if sent < period {
		return false
	}
	share := min(1, float64(s.Resent-x.from.Resent)/float64(sent))
	x.from = s
	usual := bearable
	for _, old := range x.shares[:min(x.n, periods)] {
		usual = min(usual, old)
	}
	if x.n == 0 {
		usual = min(usual, share)
	}
	x.shares[x.n%periods] = share
	x.n++
	// Three standard deviations of the share that a period shows of what the path always loses.
	chance := 3 * math.Sqrt(usual*(1-usual)*MSS/float64(sent))
	return share > usual+max(excess, chance)
}
