package status

import (
	"cmp"
	"slices"
	"time"
)

// StrikeKind says how a node misbehaved. The list is closed.
type StrikeKind string

// The kinds.
const (
	StrikeWrongBytes  StrikeKind = "wrong_bytes" // sent bytes that are not the chunk it was asked for
	StrikeStall       StrikeKind = "stall"       // says that it holds chunks, is asked for them and sends nothing
	StrikeDrip        StrikeKind = "drip"        // sends, but so slowly that no chunk becomes whole in its time
	StrikeLie         StrikeKind = "lie"         // says that it holds chunks that it then refuses, or offers documents that are not genuine
	StrikeFlood       StrikeKind = "flood"       // sends more than any honest node has to say
	StrikeUnsolicited StrikeKind = "unsolicited" // sends what nobody asked for
	StrikeProtocol    StrikeKind = "protocol"    // sends what is not of the language
)

// StrikeKinds lists the kinds.
func StrikeKinds() []StrikeKind {
	return []StrikeKind{StrikeWrongBytes, StrikeStall, StrikeDrip, StrikeLie, StrikeFlood, StrikeUnsolicited, StrikeProtocol}
}

// Strike is what one node has seen another one do. It speaks for the node that saw it and for nobody else: each node
// decides by what it saw itself, and an accusation alone makes no other node act.
type Strike struct {
	Node  string     `json:"node"`         // who misbehaved
	By    string     `json:"by,omitempty"` // who saw it; empty in a node's own statement
	Kind  StrikeKind `json:"kind"`
	Count int        `json:"count"`
	First time.Time  `json:"first"`
	Last  time.Time  `json:"last"`
	Until *time.Time `json:"until,omitempty"` // it is avoided so long
}

// MaxNoted bounds the strikes in one node's statement, which has to fit a frame.
const MaxNoted = 16

// Accuse gives to each node of a site the strikes that the others have noted against it, by accuser.
// What a node notes against itself, or against a name that the site does not have, counts for nothing.
func Accuse(nodes []Seen) {
	at := make(map[string]int, len(nodes))
	for i := range nodes {
		at[nodes[i].Node.Node], nodes[i].Struck = i, nil
	}
	for _, by := range nodes {
		for k, s := range by.Noted {
			i, ok := at[s.Node]
			if !ok || s.Node == by.Node.Node || k >= MaxNoted || !slices.Contains(StrikeKinds(), s.Kind) {
				continue
			}
			s.By = by.Node.Node
			nodes[i].Struck = append(nodes[i].Struck, s)
		}
	}
	for i := range nodes {
		slices.SortStableFunc(nodes[i].Struck, func(a, b Strike) int {
			return cmp.Or(cmp.Compare(a.By, b.By), cmp.Compare(a.Kind, b.Kind))
		})
	}
}

// Accusers counts the nodes that have noted something against this one.
func (s *Seen) Accusers() int {
	by := map[string]bool{}
	for _, x := range s.Struck {
		by[x.By] = true
	}
	return len(by)
}
