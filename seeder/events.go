package seeder

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
)

// keepEvents is how many events are kept for those who follow them: more than nodes, so that all of a fleet may change at
// once between two looks of a webhook. Who is further behind is told so.
const keepEvents = 16 << 10

// events is what happened of late, in one ring: who follows has a place in it and nothing else, so that a slow reader costs
// nothing. Numbers come from the clock's microseconds, so that those of this run are above those of the last.
type events struct {
	now func() time.Time

	mu    sync.Mutex
	ring  []api.Event // ascending
	last  int64
	floor int64         // of the events up to this number some are no longer kept, or were never ours
	more  chan struct{} // closed and replaced with every event
}

func newEvents(now func() time.Time) *events {
	start := now().UnixMicro()
	return &events{now: now, last: start, floor: start, more: make(chan struct{})}
}

// publish tells who follows that something happened. It gives the event its number, and its time if it has none. It never
// waits, and may be called with locks held.
func (e *events) publish(x api.Event) {
	now := e.now().UTC()
	if x.At.IsZero() {
		x.At = now
	}
	if x.Severity == "" {
		x.Severity = "info"
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last = max(e.last+1, now.UnixMicro())
	x.ID = e.last
	if len(e.ring) == keepEvents {
		e.floor = e.ring[keepEvents/4-1].ID
		e.ring = slices.Delete(e.ring, 0, keepEvents/4) // moved once in a thousand events, not with each
	}
	e.ring = append(e.ring, x)
	close(e.more)
	e.more = make(chan struct{})
}

// newest is the number of the last event.
func (e *events) newest() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last
}

// since returns at most limit events after a number, and whether it is known that none is missing between. more is closed
// when there are others.
func (e *events) since(after int64, limit int) (out []api.Event, whole bool, more <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, _ := slices.BinarySearchFunc(e.ring, after+1, func(x api.Event, id int64) int { return cmp.Compare(x.ID, id) })
	out = slices.Clone(e.ring[i:min(len(e.ring), i+limit)])
	return out, after >= e.floor && after <= e.last, e.more
}

// coalesce leaves of the events of one batch the last of each thing that says the same kind of thing again: a node that
// went through three phases in a second is told of once.
func coalesce(batch []api.Event) []api.Event {
	type thing struct{ kind, subject string }
	last := map[thing]int{}
	for i, x := range batch {
		if x.Kind == "node" && x.Severity == "info" {
			last[thing{x.Kind, x.Subject}] = i
		}
	}
	out := batch[:0:0]
	for i, x := range batch {
		if j, ok := last[thing{x.Kind, x.Subject}]; !ok || j == i || x.Severity != "info" {
			out = append(out, x)
		}
	}
	return out
}
