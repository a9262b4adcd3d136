package xfer

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/wire"
)

// Whoever keeps to the rate is never stopped, whatever silence or burst came before; whoever sends more than burst and
// rate together is, whatever the pattern.
func TestMeter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		due := Due{Rate: rapid.Float64Range(1, 100).Draw(t, "rate"), Burst: rapid.Float64Range(10, 1000).Draw(t, "burst")}
		m := newMeter(Toll{wire.TypePing: due})
		now, units := time.Duration(0), 0.0
		low := 0.0 // the least of rate*time-units, which says how full the bucket is
		for range rapid.IntRange(1, 300).Draw(t, "messages") {
			now += time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "gap"))
			bytes := rapid.IntRange(0, 8<<10).Draw(t, "bytes")
			low = max(low, due.Rate*now.Seconds()-units) // idle time that overflowed
			units += 1 + float64(bytes)/1024
			used := units + low - due.Rate*now.Seconds()
			err := m.charge(now, wire.TypePing, bytes)
			if used < due.Burst-1e-6 && err != nil || used > due.Burst+1e-6 && err == nil {
				t.Fatalf("%.1f units used of %.1f: %v", used, due.Burst, err)
			}
			var f *FaultError
			if err != nil && (!errors.As(err, &f) || f.Fault != FaultFlood) {
				t.Fatalf("%v", err)
			}
		}
		if err := m.charge(now, wire.TypePong, 1<<20); err != nil { // free
			t.Fatal(err)
		}
	})
}

// Every message that a node may get from a neighbour, and a seeder from a node, has its price; but for chunks, which come when they were asked for.
func TestTollsAreComplete(t *testing.T) {
	for _, c := range []struct {
		toll Toll
		last wire.Type
	}{{NodeToll(), wire.TypeUplink}, {SeederToll(), wire.TypeSiteState}} {
		for ty := wire.TypePing; ty <= c.last; ty++ {
			if ty == wire.TypeData || ty == wire.TypeLeaseGrant || ty == wire.TypeLeaseRefuse { // asked for, or the seeder's own
				continue
			}
			if _, ok := c.toll[ty]; !ok {
				t.Errorf("type %d is free", ty)
			}
			// A frame of the largest size fits the bucket.
			if max, _ := wire.Limit(ty); float64(max)/1024 > c.toll[ty].Burst {
				t.Errorf("type %d: a frame of %d bytes does not fit", ty, max)
			}
		}
	}
}
