package swarm

import "time"

// minRate is what a neighbour must send at least, in bytes a second: no LAN is that slow, shared by whom it may be.
const minRate = 64 << 10

// A neighbour that was below a quarter of minRate for dripAfter, with requests waiting all the time, drips.
const (
	dripRate  = minRate / 4
	dripAfter = 30 * time.Second
)

// pace is how fast a neighbour serves us.
type pace struct {
	last  time.Time // when it last sent a chunk, or was first asked after it had nothing to do
	since time.Time // of the measurement
	bytes int64     // since then
}

// ask notes a request of so many bytes.
func (p *neighbour) ask(now time.Time, size int64) {
	if p.inFlight == 0 {
		p.pace = pace{last: now, since: now}
	}
	p.inFlight++
	p.queued += size
}

// served notes a chunk that came; busy: others are still to come.
func (p *pace) served(now time.Time, size int64, busy bool) {
	p.last = now
	p.bytes += size
	if now.Sub(p.since) >= dripAfter && !p.drips(now, busy) {
		p.since, p.bytes = now, 0
	}
}

// drips: it sent too little for too long.
func (p *pace) drips(now time.Time, busy bool) bool {
	d := now.Sub(p.since)
	return busy && d >= dripAfter && p.bytes < dripRate*int64(d/time.Second)
}
