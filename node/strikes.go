package node

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/internal/status"
)

// offence is one kind of misbehaviour of one neighbour, as strikes.json keeps it.
type offence struct {
	Peer  string            `json:"peer"`
	Node  string            `json:"node"` // its name when it was last seen
	Kind  status.StrikeKind `json:"kind"`
	Count int               `json:"count"`
	First time.Time         `json:"first"`
	Last  time.Time         `json:"last"`
	Until time.Time         `json:"until"` // of the ban, zero: none yet
	Bans  int               `json:"bans"`  // that make the next one longer; one less for each quiet day
}

// strikes is what this node has seen its neighbours do wrong, and what follows from it. What it has not seen itself
// counts for nothing. Pure: time is handed in. Owned by the loop.
type strikes []offence

// tariff is what a kind of misbehaviour costs.
type tariff struct {
	first, most time.Duration // of bans; each is twice as long as the one before
	shut        bool          // not spoken with at all: the misbehaviour is in what it sends, asked or not
}

// tariffOf is the table. Of a neighbour that is banned nothing is asked and nothing believed, but it is served: it may
// be a node with a bad disk. One that is shut out gets no session.
func tariffOf(k status.StrikeKind) tariff {
	switch k {
	case status.StrikeWrongBytes, status.StrikeLie:
		return tariff{first: 10 * time.Minute, most: 24 * time.Hour}
	case status.StrikeFlood, status.StrikeUnsolicited:
		return tariff{first: 30 * time.Second, most: time.Hour, shut: true}
	case status.StrikeProtocol: // perhaps only of another version
		return tariff{first: 10 * time.Second, most: 10 * time.Minute, shut: true}
	}
	return tariff{first: time.Minute, most: time.Hour} // stall, drip: perhaps only ill
}

// Bounds of the record.
const (
	maxOffences   = 256
	offenceLasts  = 7 * 24 * time.Hour // without a new one, after which it is forgotten
	quietForgives = 24 * time.Hour     // one ban less to count
)

// add notes one more and says for how long the neighbour is to be avoided from now on.
func (s *strikes) add(id peer.ID, node string, k status.StrikeKind, now time.Time) time.Duration {
	s.clamp(now)
	s.forget(now)
	o := s.find(id.String(), k)
	if o == nil {
		if len(*s) >= maxOffences {
			s.dropOldest()
		}
		*s = append(*s, offence{Peer: id.String(), Kind: k, First: now, Last: now})
		o = &(*s)[len(*s)-1]
	}
	if !now.Before(o.Until) { // what comes while it is avoided was under way
		o.Bans = max(0, o.Bans-int(now.Sub(o.Last)/quietForgives))
		t := tariffOf(k)
		o.Until = now.Add(min(t.first<<min(o.Bans, 20), t.most))
		o.Bans++
	}
	o.Node, o.Last = node, now
	o.Count++
	return o.Until.Sub(now)
}

func (s *strikes) find(id string, k status.StrikeKind) *offence {
	for i := range *s {
		if o := &(*s)[i]; o.Peer == id && o.Kind == k {
			return o
		}
	}
	return nil
}

// forget drops what is long ago.
func (s *strikes) forget(now time.Time) {
	*s = slices.DeleteFunc(*s, func(o offence) bool { return now.Sub(o.Last) >= offenceLasts && !now.Before(o.Until) })
}

// dropOldest makes room for one.
func (s *strikes) dropOldest() {
	at := 0
	for i, o := range *s {
		if o.Last.Before((*s)[at].Last) {
			at = i
		}
	}
	*s = slices.Delete(*s, at, at+1)
}

// restore takes over what was on disk.
func (s *strikes) restore(list []offence, now time.Time) {
	*s = nil
	for _, o := range list {
		if _, err := peer.Decode(o.Peer); err != nil || !slices.Contains(status.StrikeKinds(), o.Kind) || len(*s) >= maxOffences ||
			o.Count < 1 || o.Bans < 0 || s.find(o.Peer, o.Kind) != nil {
			continue
		}
		*s = append(*s, o)
	}
	s.clamp(now)
	s.forget(now)
}

// clamp is for clocks that were set back, also from 2099: no ban is longer than one of its kind can be, and nothing has
// happened in the future.
func (s *strikes) clamp(now time.Time) {
	for i := range *s {
		o := &(*s)[i]
		if o.Last.After(now) {
			o.Last = now
		}
		if o.First.After(o.Last) {
			o.First = o.Last
		}
		if most := now.Add(tariffOf(o.Kind).most); o.Until.After(most) {
			o.Until = most
		}
	}
}

// avoided returns who is banned now, and who of them is shut out, until when.
func (s *strikes) avoided(now time.Time) (banned, shut map[peer.ID]time.Time) {
	s.clamp(now)
	banned, shut = map[peer.ID]time.Time{}, map[peer.ID]time.Time{}
	for _, o := range *s {
		id, err := peer.Decode(o.Peer)
		if err != nil || !now.Before(o.Until) {
			continue
		}
		into := []map[peer.ID]time.Time{banned}
		if tariffOf(o.Kind).shut {
			into = append(into, shut)
		}
		for _, m := range into {
			if o.Until.After(m[id]) {
				m[id] = o.Until
			}
		}
	}
	return banned, shut
}

// against counts what was noted against a node.
func (s *strikes) against(node string) (n int) {
	for _, o := range *s {
		if o.Node == node {
			n += o.Count
		}
	}
	return n
}

// noted is what is said of them: those in force first, then the latest, no more than a statement may have.
func (s *strikes) noted(now time.Time) []status.Strike {
	var out []status.Strike
	for _, o := range *s {
		x := status.Strike{Node: o.Node, Kind: o.Kind, Count: o.Count, First: o.First.UTC().Truncate(time.Second), Last: o.Last.UTC().Truncate(time.Second)}
		if now.Before(o.Until) {
			til := o.Until.UTC().Truncate(time.Second)
			x.Until = &til
		}
		out = append(out, x)
	}
	slices.SortStableFunc(out, func(a, b status.Strike) int {
		if (a.Until != nil) != (b.Until != nil) {
			if a.Until != nil {
				return -1
			}
			return 1
		}
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Kind, b.Kind))
	})
	return out[:min(len(out), status.MaxNoted)]
}
