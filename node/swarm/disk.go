package swarm

import "time"

// disk is our own: while it refuses chunks nothing is asked for, or the same bytes would come again and again.
type disk struct {
	til  time.Time // not before
	wait time.Duration
}

// Waits after a chunk that could not be stored.
const (
	diskLeast = 5 * time.Second
	diskMost  = time.Minute
)

func (d *disk) failed(now time.Time) {
	if now.Before(d.til) {
		return // asked for before the last failure
	}
	d.wait = min(max(2*d.wait, diskLeast), diskMost)
	d.til = now.Add(d.wait)
}

func (d *disk) bad(now time.Time) bool { return now.Before(d.til) }
