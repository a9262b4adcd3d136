package swarm

// leave is this node's way out of the site.
type leave struct {
	asked bool
	may   bool // said
}

// startLeaving: from here on nothing new is asked for, over the WAN or the LAN, and neighbours hear that this node
// wants nothing. What is on its way over the WAN still comes, and is shared.
func (s *Swarm) startLeaving() {
	if s.leave.asked {
		return
	}
	s.leave.asked = true
	for _, r := range s.byAge() {
		if r.from != nil {
			s.drop(r)
			s.do(Cancel{r.id})
		}
	}
	s.do(Withdraw{})
}

// mayLeave says so once, when the time has come; not before the neighbours had time to say what they lack.
func (s *Swarm) mayLeave() {
	if !s.leave.asked || s.leave.may || !s.settled || s.uplink.held || s.Sole() > 0 {
		return
	}
	s.leave.may = true
	s.do(MayLeave{})
}

// Sole is the number of bytes that a connected neighbour wants and that, of all the nodes within reach, this one
// alone holds.
func (s *Swarm) Sole() (n int64) {
	for _, b := range s.list {
		for i, mine := range b.mine {
			if !mine || b.holders[i] > 0 {
				continue
			}
			for p := range s.trusted {
				if p.have[b.id].lacks(i) {
					n += b.sizes[i]
					break
				}
			}
		}
	}
	return n
}
