package swarm

import "time"

// minRate is what a neighbour must send at least, in bytes a second: no LAN is that slow, shared by whom it may be.
const minRate = 64 << 10

// A neighbour that was below dripRate for dripAfter, with requests waiting all the time, drips: a port of 2 Mbit/s that
// 60 nodes share is still above it.
const (
	dripRate  = minRate / 16
	dripAfter = 30 * time.Second
)

// pace is how fast a neighbour serves us.
type pace struct {
	wait  time.Duration // from request to chunk, smoothed; 0: not known
	last  time.Time     // when it last sent a chunk, or was first asked after it had nothing to do
	since time.Time     // of the measurement
	bytes int64         // since then
	in    int64         // bytes it has sent, see Progress
	from  int64         // in, at
	mark  time.Time     // the first time that we heard after last
}

// ask notes a request of so many bytes.
func (p *neighbour) ask(now time.Time, size int64) {
	if p.inFlight == 0 {
		p.pace.last, p.pace.since, p.pace.bytes = now, now, 0
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
	return busy && d >= dripAfter && p.bytes < dripRate*int64(d/time.Second) && !p.crawls(now)
}

// waited notes how long a chunk was in coming, from request to disk.
func (p *pace) waited(d time.Duration) {
	if p.wait == 0 {
		p.wait = d
	}
	p.wait += (d - p.wait) / 4
}
