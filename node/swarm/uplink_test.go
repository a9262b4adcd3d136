package swarm

import (
	"testing"
	"time"
)

// A node that cannot reach the holder of the lease says so after SplitAfter, however long the seeder asked it to wait
// before it knew; and does not ask all the time before or after.
func TestUnreachableHolderIsNamedInTime(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := New(Config{Self: "a"}, now)
	s.Step(now, BundleAdd{Bundle: Bundle{1}, Sizes: []int64{1, 1}, Index: 1, Have: []bool{false, false}, Wants: true})
	began, plain, named := now, 0, []time.Duration{}
	var refused time.Time
	for ; now.Sub(began) < time.Minute; now = now.Add(100 * time.Millisecond) {
		for _, a := range s.Step(now, Tick{}) {
			switch a := a.(type) {
			case DialWAN:
				s.Step(now, WANUp{})
			case AskLease:
				if a.Unreachable == "b" {
					named = append(named, now.Sub(refused))
				} else if plain++; refused.IsZero() {
					refused = now
				}
				s.Step(now, LeaseRefused{Holder: "b", Retry: 20 * time.Second})
			}
		}
	}
	if plain != 1 || len(named) == 0 || named[0] > DefaultSplitAfter+200*time.Millisecond {
		t.Errorf("asked %d times without saying why, then named the holder %v after the first refusal", plain, named)
	}
	if len(named) > 4 { // 20 s apart, as the seeder wants it, once it knows
		t.Errorf("asked %d times in a minute", len(named))
	}
}
