package swarm

import "time"

// evil is a node of the roster that means harm. It runs a Swarm like the others, and lies where it can.
type evil interface {
	claims(n *simNode, chunk int) bool   // says that it holds a chunk that it does not hold
	serves(n, to *simNode, a Fetch) bool // answers a request its own way
	acts(n *simNode, a Action) bool      // does with what its swarm decides as it likes
}

// honestBut is the part of the others' behaviour that an evil node keeps.
type honestBut struct{}

func (honestBut) claims(*simNode, int) bool             { return false }
func (honestBut) serves(*simNode, *simNode, Fetch) bool { return false }
func (honestBut) acts(*simNode, Action) bool            { return false }

// hasAll says that it holds everything.
type hasAll struct{ honestBut }

func (hasAll) claims(*simNode, int) bool { return true }

type (
	poisoner struct{ hasAll }    // sends wrong bytes
	staller  struct{ hasAll }    // takes requests and sends nothing
	dripper  struct{ hasAll }    // sends a chunk a minute
	shirker  struct{ hasAll }    // is busy for ever
	liar     struct{ hasAll }    // does not hold it when asked, and says again that it does
	quitter  struct{ hasAll }    // hangs up when asked
	choosy   struct{ hasAll }    // serves all but every seventh chunk
	hoarder  struct{ honestBut } // fetches over the WAN, and neither says so nor serves
	squatter struct{ honestBut } // takes the lease and fetches nothing
)

func (poisoner) serves(n, to *simNode, a Fetch) bool {
	x := n.sess[to.i]
	n.s.send(x, n, to, a.Number, func() { to.run(func() { to.arrived(a, false) }) })
	return true
}

func (staller) serves(*simNode, *simNode, Fetch) bool { return true }

func (dripper) serves(n, to *simNode, a Fetch) bool {
	n.soon(time.Minute, func() {
		if n.have[a.Number] && n.sess[to.i] != nil {
			honestBut{}.send(n, to, a)
		}
	})
	return true
}

func (honestBut) send(n, to *simNode, a Fetch) {
	x := n.sess[to.i]
	n.s.send(x, n, to, a.Number, func() { to.run(func() { to.arrived(a, true) }) })
}

func (shirker) serves(n, to *simNode, a Fetch) bool { n.refuse(to, a, WhyBusy); return true }

func (liar) serves(n, to *simNode, a Fetch) bool {
	n.refuse(to, a, WhyNotHeld)
	n.tellHave(to)
	return true
}

func (quitter) serves(n, to *simNode, _ Fetch) bool {
	if x := n.sess[to.i]; x != nil {
		n.s.sever(x, time.Millisecond)
	}
	return true
}

func (choosy) serves(n, to *simNode, a Fetch) bool {
	return a.Number%7 == 3 || !n.have[a.Number]
}

func (hoarder) serves(*simNode, *simNode, Fetch) bool { return true }

func (hoarder) acts(_ *simNode, a Action) bool { _, ok := a.(Announce); return ok }

func (squatter) serves(*simNode, *simNode, Fetch) bool { return true }

func (squatter) acts(_ *simNode, a Action) bool {
	switch a := a.(type) {
	case Fetch:
		return a.From == WAN
	case ReleaseLease, Announce:
		return true
	}
	return false
}

// mob is one of each kind, in turn.
func mob(i int) evil {
	return []evil{poisoner{}, staller{}, squatter{}, liar{}, dripper{}, shirker{}, hoarder{}, choosy{}, quitter{}}[i%9]
}
