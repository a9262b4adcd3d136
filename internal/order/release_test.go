package order

import (
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/trust"
)

func releasing() *Order {
	o := sample()
	o.Kind, o.Quarantine, o.Targets.Nodes = Release, "00112233445566ff", []string{"pos-07"}
	return o
}

// A release is for one node and one quarantine; no other order names one.
func TestRelease(t *testing.T) {
	got, err := Parse(encoded(t, releasing()))
	if err != nil || got.String() != "release from quarantine 00112233445566ff" {
		t.Fatalf("%v, %v", got, err)
	}
	for name, change := range map[string]func(*Order){
		"no quarantine":       func(o *Order) { o.Quarantine = "" },
		"a short one":         func(o *Order) { o.Quarantine = "0011" },
		"upper case":          func(o *Order) { o.Quarantine = strings.ToUpper(o.Quarantine) },
		"a whole site":        func(o *Order) { o.Targets.Nodes = []string{} },
		"two nodes":           func(o *Order) { o.Targets.Nodes = []string{"pos-07", "pos-08"} },
		"a rollback with one": func(o *Order) { o.Kind = Rollback },
	} {
		o := releasing()
		change(o)
		if b, err := o.Encode(); err == nil {
			t.Errorf("%s: %s", name, b)
		}
	}
	// What was signed before there were releases has the bytes that it had.
	if b := encoded(t, sample()); strings.Contains(string(b), "quarantine") {
		t.Errorf("%s", b)
	}
}

// The seeder, which may send nodes back where the policy says so, ends no quarantine.
func TestReleaseIsNotDelegated(t *testing.T) {
	operator, seeder := key(t, "operator"), key(t, "roster")
	set := &trust.Set{Policy: role(t, operator), Release: role(t, operator), Roster: role(t, seeder)}
	doc := encoded(t, releasing())
	if o, err := OpenDelegated(set, sign(t, seeder, doc), epoch); err == nil {
		t.Errorf("%v", o)
	}
	if _, err := Open(set, sign(t, seeder, doc), epoch); err == nil {
		t.Error("the roster's key counts as an operator's")
	}
	if _, err := Open(set, sign(t, operator, doc), epoch); err != nil { // the positive control
		t.Error(err)
	}
}
