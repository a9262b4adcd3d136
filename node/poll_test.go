package node

import (
	"testing"
	"time"
)

// A node asks within six hours of its start and each six hours, another one at another time; reports that wait make it
// ask each half hour; and a clock that is set makes it ask neither always nor never.
func TestPollDue(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	asked := func(id string, first uint64, hours int) (at []time.Duration) {
		var p poll
		for now := begin; now.Before(begin.Add(time.Duration(hours) * time.Hour)); now = now.Add(time.Second) {
			if p.due(now, id, first) {
				at = append(at, now.Sub(begin))
			}
		}
		return at
	}
	a, b := asked("a", 0, 24), asked("b", 0, 24)
	if len(a) < 3 || len(a) > 4 || a[0] > pollEvery || a[0] < pollEvery/8 || a[1]-a[0] != pollEvery || a[0] == b[0] {
		t.Errorf("a asks at %v, b at %v", a, b)
	}
	if r := asked("a", 7, 6); len(r) < 11 || len(r) > 13 || r[0] != pollReports {
		t.Errorf("with a report that waits: %v", r)
	}
	var p poll
	now := begin
	p.due(now, "a", 0)
	for _, clock := range []time.Time{time.Unix(0, 0), time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), begin} {
		n := 0
		for i := range 24 * 60 {
			if p.due(clock.Add(time.Duration(i)*time.Minute), "a", 0) {
				n++
			}
		}
		if n < 3 || n > 5 {
			t.Errorf("%d times in the day after the clock was set to %v", n, clock)
		}
	}
}
