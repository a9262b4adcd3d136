package gossip

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// What the loop decides, as functions of plain values.

// diff returns who is new or changed and who is gone, and the set to compare with next time.
func diff(before map[string]Peer, now []Member) (after map[string]Peer, came []Peer, gone []string) {
	after = make(map[string]Peer, len(now))
	for _, m := range now {
		if !m.Alive {
			continue
		}
		after[m.Name] = m.Peer
		if before[m.Name] != m.Peer {
			came = append(came, m.Peer)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			gone = append(gone, name)
		}
	}
	slices.Sort(gone)
	return after, came, gone
}

const (
	siteBudget = 64 // calls per round that a site makes together to nodes that are not there
	minCalls   = 3
)

// pick chooses whom to call in one round: candidates that are not connected, each once, at random. The nodes of a
// site share a budget, so a node alone calls nearly everyone and a node of many calls a few.
func pick(candidates []netip.AddrPort, connected map[netip.AddrPort]bool, allowed []netip.Prefix, alive int, rng *rand.Rand) []netip.AddrPort {
	set := map[netip.AddrPort]bool{}
	for _, c := range candidates {
		c = netip.AddrPortFrom(c.Addr().Unmap().WithZone(""), c.Port())
		if c.Port() != 0 && !connected[c] && allows(allowed, c.Addr()) {
			set[c] = true
		}
	}
	out := slices.SortedFunc(maps.Keys(set), netip.AddrPort.Compare)
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(len(out), max(minCalls, siteBudget/(alive+1)))]
}

// source chooses whom to ask for the newer roster. Those whose claim came to nothing are not asked for it again.
func source(callers map[string]caller, futile map[string]uint64, rng *rand.Rand) (name string, c caller, ok bool) {
	var names []string
	for name, c := range callers {
		if c.roster > futile[name] {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "", caller{}, false
	}
	slices.Sort(names)
	name = names[rng.IntN(len(names))]
	return name, callers[name], true
}

const (
	firstPause = time.Second
	nearPause  = 2 * time.Second
	maxNear    = 3
)

// pace says when to look for others again.
type pace struct {
	base  time.Duration
	alone int // rounds in a row without company
	near  int // rounds in a row after which more was to be expected
}

// next is the pause before the next round. Alone, it grows from a second to the base. When more is to be expected it
// is short, a few times: a round reached someone who is still not alive here (two sides of a healed split refute
// each other's obituaries in the first exchange and believe each other only in the second), or somebody appeared.
func (p *pace) next(alive int, more bool, rng *rand.Rand) time.Duration {
	d := p.base
	if alive > 0 {
		p.alone = 0
	} else {
		d = min(p.base, firstPause<<min(p.alone, 16))
		p.alone++
	}
	if !more {
		p.near = 0
	} else if p.near++; p.near <= maxNear {
		d = min(d, nearPause)
	}
	return jitter(d, rng)
}

// jitter spreads d evenly between a half and three halves of it.
func jitter(d time.Duration, rng *rand.Rand) time.Duration {
	return d/2 + time.Duration(rng.Int64N(int64(d)+1))
}
