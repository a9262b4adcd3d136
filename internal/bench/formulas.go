package main

import (
	"math"
	"math/bits"
	"slices"
	"time"
)

// doublings is ceil(log2 n): how many times what one node has must be copied until n have it.
func doublings(n int) int {
	if n <= 1 {
		return 0
	}
	return bits.Len(uint(n - 1))
}

// fillTime is the least time in seconds in which n nodes of a site get f bytes over a WAN of w bytes per second when
// each node's port carries u bytes per second, in chunks of c bytes (Mundinger, Weber, Weiss: Optimal scheduling of
// peer-to-peer file dissemination, 2008; the last chunk has still to reach everybody).
func fillTime(f, w, u, c float64, n int, rtt time.Duration) float64 {
	k := float64(n)
	return max(f/w, f/u, k*f/(w+k*u)) + float64(doublings(n))*c/u + rtt.Seconds()
}

// broadcastTime is the least time in seconds in which n nodes have m chunks of c bytes that one of them had, over
// ports of u bytes per second (Bar-Noy, Kipnis: Designing broadcasting algorithms in the postal model, 1994).
func broadcastTime(m int, c, u float64, n int) float64 {
	if n <= 1 || m == 0 {
		return 0
	}
	return float64(m-1+doublings(n)) * c / u
}

// mostTwice is the published bound on the bytes that are fetched again after the death of an uplink: four chunks of
// 256 KiB, or twice the bandwidth-delay product.
func mostTwice(w float64, rtt time.Duration) float64 { return max(4*256<<10, 2*w*rtt.Seconds()) }

// percentile is the p-th of sorted or unsorted values, 0 to 100, by nearest rank; NaN of none.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return s[min(len(s)-1, max(0, int(math.Ceil(p/100*float64(len(s))))-1))]
}

// median of values; of an even number the mean of the two in the middle.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	k := len(s) / 2
	if len(s)%2 == 0 {
		return (s[k-1] + s[k]) / 2
	}
	return s[k]
}

// tick is a reading of a counter.
type tick struct {
	at    time.Time
	bytes int64
}

// idle is the time between from and the moment when the counter reached until, in which the link moved less than a
// twentieth of its rate (bytes per second).
func idle(ticks []tick, from time.Time, until int64, rate float64) (sum time.Duration) {
	for i := 1; i < len(ticks); i++ {
		a, b := ticks[i-1], ticks[i]
		if a.at.Before(from) {
			continue
		}
		if a.bytes >= until {
			break
		}
		if d := b.at.Sub(a.at); float64(b.bytes-a.bytes) < rate*d.Seconds()/20 {
			sum += d
		}
	}
	return sum
}
