package swarm

import "time"

// A neighbour that is slow is no enemy: it is asked for less at a time and waited for longer. What it owes us it should
// be able to send in slowTime, and a chunk may take it so many times as long as the last ones did.
const (
	slowTime   = 4 * time.Second
	slowFactor = 4
	slowMost   = 2 * time.Minute
	crawlRate  = 4 << 10 // bytes a second: who sends that much is waited for
)

// Progress says how many bytes of chunks a neighbour, or the seeder, has sent in this session, of chunks that are not whole too. Send it
// about once a second while something is asked of the neighbour.
type Progress struct {
	Peer  Peer
	Bytes int64
}

func (Progress) event() {}

// progress notes it.
func (s *Swarm) progress(e Progress) {
	if e.Peer == WAN {
		s.wan.moved(s.now, e.Bytes)
		return
	}
	if p := s.peers[e.Peer]; p != nil {
		if p.pace.mark.IsZero() || p.pace.mark.Before(p.pace.last) {
			p.pace.mark, p.pace.from = s.now, e.Bytes
		}
		p.pace.in = e.Bytes
	}
}

// crawls: since its last whole chunk it has sent what is worth waiting for.
func (p *pace) crawls(now time.Time) bool {
	return !p.mark.Before(p.last) && now.Sub(p.mark) > time.Second && p.in-p.from >= crawlRate*int64(now.Sub(p.mark)/time.Second)
}

// Late: a neighbour has answered a request that was given up, with the chunk as it should be.
type Late struct {
	Peer   Peer
	Bundle Bundle
	Number int
}

func (Late) event() {}

// late notes that a neighbour kept its word after all.
func (s *Swarm) late(e Late) {
	p, b := s.peers[e.Peer], s.bundles[e.Bundle]
	if p == nil || b == nil || e.Number >= len(b.sizes) {
		return
	}
	s.served(p, b, e.Number)
	p.conduct.measure(s.now.Sub(p.pace.last), b.sizes[e.Number])
	p.pace.served(s.now, b.sizes[e.Number], p.inFlight > 0)
}

// measure notes how long a chunk took.
func (c *conduct) measure(took time.Duration, size int64) {
	rate := float64(size) / max(took, time.Millisecond).Seconds()
	if c.rate == 0 {
		c.rate = rate
	}
	c.rate += (rate - c.rate) / 4
}

// allowance is how long a chunk may take by what is known of the neighbour; 0: nothing is.
func (c *conduct) allowance(size int64) time.Duration {
	if c.rate == 0 {
		return 0
	}
	return min(slowMost, time.Duration(slowFactor*float64(size)/c.rate*float64(time.Second)))
}

// keepsUp: the neighbour can send what it has been asked for, and this, in good time.
func (p *neighbour) keepsUp(size int64) bool {
	return p.inFlight == 0 || p.conduct.rate == 0 || float64(p.queued+size) <= p.conduct.rate*slowTime.Seconds()
}
