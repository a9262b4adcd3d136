package rollout

import "time"

const (
	// lead is how long before its planned time a batch that has not been released is put off: sites must hear of it first.
	lead = time.Minute
	// slip is by how much.
	slip = 5 * time.Minute
)

// interval is the planned time from the release of one batch to that of the next. Where that has to wait for the batch
// before, sites are never told so little that they could start before they hear that it is not yet over.
func (x *stepper) interval(c *Cohort) time.Duration {
	switch {
	case x.r.FromStarted:
		return x.r.BatchDelay
	case c.Of == 0:
		return max(slip, x.r.BatchDelay)
	}
	return max(slip, x.r.BatchDelay+(c.Took/time.Duration(c.Of)).Truncate(time.Second))
}

// clocks lets the next batches go whose time has come.
func (x *stepper) clocks() {
	if !x.Canary.Passed {
		return
	}
	halted := x.halted() != ""
	for i := range x.Cohorts {
		x.clock(i, halted)
	}
}

func (x *stepper) clock(i int, halted bool) {
	c := &x.Cohorts[i]
	left := make([]int, c.Batches+1)    // nodes that have not settled, by batch
	started := make([]int, c.Batches+1) // nodes that have started in this rollout
	for k := range x.Nodes {
		if n := &x.Nodes[k]; n.Cohort == i {
			if n.Settled.IsZero() {
				left[n.Batch]++
			}
			if !n.Started.IsZero() {
				started[n.Batch]++
			}
		}
	}
	for {
		ready := x.now
		if c.Batch > 0 {
			at := c.At[c.Batch-1]
			if c.Settled.IsZero() && left[c.Batch] == 0 {
				c.Settled = x.now
				if started[c.Batch] > 0 {
					c.Took, c.Of = c.Took+min(x.now.Sub(at), x.progress()), c.Of+1
				}
			}
			switch {
			case x.r.FromStarted:
				ready = at.Add(x.r.BatchDelay)
			case c.Settled.IsZero(): // nobody knows when: what sites were told is put off in time
				if !c.Next.After(x.now.Add(lead)) {
					c.Next = x.now.Add(slip)
				}
				return
			case started[c.Batch] > 0:
				ready = c.Settled.Add(x.r.BatchDelay)
			}
		}
		if c.Batch == c.Batches {
			c.Next = time.Time{}
			return
		}
		c.Next = ready
		if x.now.Before(ready) || halted || !x.open[i] {
			if c.Next.Before(x.now.Add(lead)) && (halted || !x.open[i]) {
				c.Next = time.Time{} // when the window opens, or a person lets it go on
			}
			return
		}
		c.Batch++
		c.At = append(c.At, x.now)
		c.Settled = time.Time{}
		c.Next = x.now.Add(x.interval(c))
		if left[c.Batch] > 0 {
			x.tell("batch", "info", "batch %d of %d is released: %d nodes", c.Batch, c.Batches, left[c.Batch])
		}
	}
}

// canary lets the others go when the canary has done well for long enough.
func (x *stepper) canary() {
	s := &x.Canary
	if s.Passed || x.halted() != "" {
		return
	}
	if !x.w.Policy.CanaryFirst() {
		s.Passed = true
		return
	}
	c := x.CanaryTally()
	if c.Failed > s.Accepted {
		x.pause("canary", "a node of the canary failed")
		return
	}
	if s.Settled.IsZero() {
		if c.Settled < c.Nodes || c.Installed == 0 && s.Promoted == "" {
			return
		}
		s.Settled = x.now
	}
	if c.Nodes > 0 && x.now.Before(s.Settled.Add(x.r.Canary.Soak)) || x.r.Canary.Manual && s.Promoted == "" {
		return // a canary of nobody has nothing to soak
	}
	s.Passed = true
	if c.Nodes == 0 {
		x.tell("promoted", "info", "promoted by %s; the canary has no nodes, the batches begin", s.Promoted)
		return
	}
	x.tell("promoted", "info", "the canary has done well: %d nodes; the batches begin", c.Nodes)
}

func (x *stepper) canaryPhase() (Phase, string) {
	c, s := x.CanaryTally(), &x.Canary
	switch {
	case c.Nodes == 0 && s.Promoted == "":
		return InCanary, "the selector of the canary picks no node: promote it, or change the policy"
	case s.Settled.IsZero() && c.Settled == c.Nodes:
		return InCanary, "no node of the canary has the bundle yet"
	case s.Settled.IsZero():
		return InCanary, ""
	case x.now.Before(s.Settled.Add(x.r.Canary.Soak)):
		return Soaking, "until " + s.Settled.Add(x.r.Canary.Soak).UTC().Format(time.RFC3339)
	}
	return Soaking, "it waits for a person to promote it"
}

// CanaryTally is how the canary does.
type CanaryTally struct{ Nodes, Settled, Installed, Failed int }

// CanaryTally counts the nodes of the canary.
func (s *State) CanaryTally() (c CanaryTally) {
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Batch != 0 {
			continue
		}
		c.Nodes++
		if !n.Settled.IsZero() {
			c.Settled++
		}
		if n.Result == Installed {
			c.Installed++
		}
		if n.Result.Failed() && !n.Before {
			c.Failed++
		}
	}
	return c
}
