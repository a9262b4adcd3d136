package node

import (
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/xfer"
	"github.com/patchmesh/patchmesh/node/swarm"
)

// The alarm comes after two minutes without an uplink, says since when, stays one alarm, and goes with the first session.
func TestSeederUnreachable(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	now := start
	n := &Node{cfg: Config{Now: func() time.Time { return now }}, alarms: map[problem.Code]alarm{},
		sw: swarm.New(swarm.Config{Self: "self"}, start)}
	at := func(d time.Duration) (string, bool) {
		now = start.Add(d)
		n.watchSeeder(now)
		a, ok := n.alarms[problem.SeederUnreachable]
		return a.Message, ok
	}
	if _, ok := at(0); ok {
		t.Error("at once")
	}
	if _, ok := at(unreachedAfter - time.Second); ok {
		t.Error("too soon")
	}
	for _, d := range []time.Duration{unreachedAfter, time.Hour} {
		if msg, ok := at(d); !ok || msg != "no node of the site has reached the seeder since 2026-11-01T12:00:00Z" {
			t.Errorf("after %v: %q", d, msg)
		}
	}
	n.seederS = &xfer.Session{}
	if _, ok := at(2 * time.Hour); ok {
		t.Error("the alarm outlives the trouble")
	}
	n.seederS = nil
	if _, ok := at(2*time.Hour + time.Second); ok {
		t.Error("the time counts from the last session")
	}
}
