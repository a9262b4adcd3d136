package status_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/status"
)

// lacks names what a statement fails to say.
func lacks(n status.Node) (out []string) {
	check := func(p status.Phase, reason string, next *time.Time) {
		switch {
		case status.Final(p):
		case reason == "":
			out = append(out, string(p)+" without a reason")
		case next == nil || next.IsZero():
			out = append(out, string(p)+" without a next attempt")
		}
	}
	check(n.Phase, n.Reason, n.NextAttempt)
	for _, b := range n.Beside {
		check(b.Phase, b.Reason, b.NextAttempt)
	}
	return out
}

// Whatever a node says, of this version or of another: no phase that is not final is shown without a reason and the time
// of the next attempt, what it did say stands, and what others hold of the statement is not changed.
func TestExplain(t *testing.T) {
	phases := append(status.Order(), "", "OfANewerNode")
	controls := 0
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(1, 1<<33).Draw(t, "at"), 0).UTC()
		next := func(name string) *time.Time {
			if rapid.Bool().Draw(t, name) {
				return nil
			}
			x := at.Add(time.Duration(rapid.Int32().Draw(t, name+" in")) * time.Second)
			return &x
		}
		reason := rapid.SampledFrom([]string{"", "Downloading", "NoPolicy", "WindowClosed"})
		n := status.Node{Phase: rapid.SampledFrom(phases).Draw(t, "phase"), Reason: reason.Draw(t, "reason"), NextAttempt: next("next")}
		for range rapid.IntRange(0, 4).Draw(t, "beside") {
			n.Beside = append(n.Beside, status.Standing{Phase: rapid.SampledFrom(phases).Draw(t, "phase"), Reason: reason.Draw(t, "reason"), NextAttempt: next("next")})
		}
		was, shared := n, append([]status.Standing(nil), n.Beside...)
		if len(lacks(n)) > 0 {
			controls++
		}
		n.Explain(at)
		if l := lacks(n); len(l) > 0 {
			t.Fatal(l)
		}
		if was.Reason != "" && n.Reason != was.Reason || was.NextAttempt != nil && n.NextAttempt != was.NextAttempt {
			t.Fatalf("what was said does not stand: %+v, was %+v", n, was)
		}
		if status.Final(n.Phase) && n.NextAttempt != was.NextAttempt {
			t.Fatalf("%s is final and has a next attempt", n.Phase)
		}
		if d := cmp.Diff(shared, was.Beside); d != "" {
			t.Fatalf("what others hold was changed: %s", d)
		}
	})
	if controls == 0 {
		t.Error("no statement lacked anything: the check was never put to the test")
	}
}
