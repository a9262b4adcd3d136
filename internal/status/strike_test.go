package status

import "testing"

// An accusation names its accuser, counts once for each of them, and nobody's own, unknown or overlong list counts.
func TestAccuse(t *testing.T) {
	say := func(node string, kind StrikeKind) Strike {
		return Strike{Node: node, Kind: kind, Count: 1, By: "somebody else"}
	}
	nodes := []Seen{
		{Node: Node{Node: "a", Noted: []Strike{say("c", StrikeFlood), say("c", StrikeStall), say("a", StrikeLie), say("zz", StrikeLie)}}},
		{Node: Node{Node: "b", Noted: []Strike{say("c", StrikeFlood), say("c", "treason")}}},
		{Node: Node{Node: "c"}, Struck: []Strike{say("c", StrikeLie)}},
	}
	for range MaxNoted + 5 {
		nodes[2].Noted = append(nodes[2].Noted, say("b", StrikeLie))
	}
	Accuse(nodes)
	Accuse(nodes) // twice is as once
	if len(nodes[0].Struck) != 0 || len(nodes[1].Struck) != MaxNoted || nodes[1].Accusers() != 1 {
		t.Errorf("a: %+v, b: %d strikes", nodes[0].Struck, len(nodes[1].Struck))
	}
	c := nodes[2]
	if len(c.Struck) != 3 || c.Accusers() != 2 || c.Struck[0].By != "a" || c.Struck[2].By != "b" {
		t.Errorf("c: %+v", c.Struck)
	}
}
