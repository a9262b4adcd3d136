package turn_test

import (
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/node/turn"
)

var (
	opens = time.Date(2026, 11, 24, 2, 0, 0, 0, time.UTC)
	two   = manifest.DigestOf([]byte("2.0"))
)

// grantOf lets these nodes start, all from the opening of a window of two hours.
func grantOf(names ...string) *grant.Grant {
	g := &grant.Grant{Schema: grant.Schema, Serial: 1, Created: grant.Timestamp(opens), Site: "s1", Policy: "pos", Revision: 1, Bundle: "app", Version: "2.0", Checksum: two,
		Opens: grant.Timestamp(opens), Expires: grant.Timestamp(opens.Add(2 * time.Hour)), First: 1, MaxUnavailable: 1, MaxFailures: 1, Deadline: 3600}
	for i, n := range names {
		g.Starts = append(g.Starts, grant.Start{Node: n, Batch: i, After: g.Opens})
	}
	return g
}

// Node c, the third of four, asks ten minutes after the window has opened; a is the site's canary.
func TestDecide(t *testing.T) {
	said := func(phase status.Phase, reason string, ago time.Duration) turn.Said {
		return turn.Said{Phase: phase, Reason: reason, Checksum: two, For: ago}
	}
	done, waits, begins := said(status.Installed, "Installed", time.Minute), said(status.Scheduled, grant.BatchNotReached, time.Minute), said(status.Scheduled, turn.Starting, time.Second)
	works := said(status.Installing, "InstallerRunning", time.Minute)
	begins.Claims = two
	silent := func(o turn.Said, ago time.Duration) turn.Said {
		o.Silent, o.Quiet = true, ago
		return o
	}
	unheard := turn.Said{Silent: true, Unheard: true, Quiet: time.Hour}
	failed, busy := said(status.RolledBack, "HealthCheck", time.Minute), said(status.Deferred, "AppLock", time.Minute)
	busy.Next = opens.Add(time.Hour)
	again := busy
	again.Next = opens.Add(9 * time.Minute)
	other := done
	other.Checksum = manifest.DigestOf([]byte("1.0"))
	otherFailed := failed
	otherFailed.Checksum = other.Checksum
	for _, c := range []struct {
		name    string
		a, b, d turn.Said
		change  func(*grant.Grant, *turn.View)
		step    turn.Step
		says    string
	}{
		{name: "a place is free", a: done, b: done, d: waits, step: turn.Claim},
		{name: "claimed a moment ago", a: done, b: done, d: waits, change: claimed(turn.Settle - 1), step: turn.Claim},
		{name: "claimed for long enough", a: done, b: done, d: waits, change: claimed(turn.Settle), step: turn.Go},
		{name: "one before us claims it", a: done, b: begins, d: waits, change: claimed(turn.Settle), says: "waits for b"},
		{name: "one after us claims it", a: done, b: done, d: begins, change: claimed(turn.Settle), step: turn.Claim},
		{name: "one after us has it", a: done, b: done, d: works, change: claimed(turn.Settle), says: "waits for d"},
		{name: "one before us has it", a: done, b: works, d: waits, says: "place 3, 1 at a time: waits for b"},
		{name: "two places", a: done, b: works, d: waits, change: func(g *grant.Grant, _ *turn.View) { g.MaxUnavailable = 2 }, step: turn.Claim},
		{name: "one before us waits for its turn", a: done, b: waits, d: done, says: "waits for b"},
		{name: "whose batch comes later", a: done, b: waits, d: done, change: func(g *grant.Grant, _ *turn.View) { g.Starts[1].After = grant.Timestamp(opens.Add(time.Hour)) }, step: turn.Claim},
		{name: "one before us is switched off", a: done, b: silent(waits, time.Second), d: waits, step: turn.Claim},
		{name: "one before us was never heard", a: done, b: unheard, d: waits, step: turn.Claim},
		{name: "and this node is fresh", a: done, b: unheard, d: waits, change: func(_ *grant.Grant, v *turn.View) { v.Settling = true }, says: "not heard of b"},
		{name: "one fell silent while it was at it", a: done, b: silent(works, time.Second), d: waits, says: "waits for b"},
		{name: "one is at it for too long", a: done, b: said(status.Installing, "InstallerRunning", time.Hour), d: waits, step: turn.Claim},
		{name: "one before us is deferred", a: done, b: busy, d: waits, step: turn.Claim},
		{name: "one before us stages still", a: done, b: said(status.Staging, "Downloading", time.Minute), d: waits, step: turn.Claim},
		{name: "the canary is at it", a: works, b: done, d: done, says: "canary goes first: a"},
		{name: "the canary has not begun", a: said(status.Scheduled, "WindowClosed", time.Minute), b: waits, d: waits, says: "canary goes first: a"},
		{name: "the canary has another bundle yet", a: other, b: waits, d: waits, says: "canary goes first: a"},
		{name: "the canary is deferred", a: busy, b: done, d: done, step: turn.Claim},
		{name: "the canary is about to try again", a: again, b: done, d: done, says: "canary goes first: a"},
		{name: "the canary has had its time", a: said(status.Staging, "Downloading", time.Hour), b: done, d: done, change: func(g *grant.Grant, _ *turn.View) { g.Deadline = 600 }, step: turn.Claim},
		{name: "the canary fell silent just now", a: silent(waits, turn.Silence-1), b: done, d: done, says: "canary goes first: a"},
		{name: "the canary is silent", a: silent(waits, turn.Silence), b: done, d: done, step: turn.Claim},
		{name: "the canary is silent since yesterday, and the window has just opened", a: silent(waits, 24*time.Hour), b: done, d: done,
			change: func(_ *grant.Grant, v *turn.View) { v.Now = opens.Add(time.Minute) }, says: "canary goes first: a"},
		{name: "the canary failed, which the budget allows", a: failed, b: done, d: done, step: turn.Claim},
		{name: "two failed", a: failed, b: failed, d: waits, says: "budget of 1 failures is used up by a, b"},
		{name: "two failed, one of them silent now", a: silent(failed, time.Hour), b: failed, d: waits, says: "used up by a, b"},
		{name: "another bundle had failed", a: failed, b: otherFailed, d: waits, step: turn.Claim},
		{name: "none may fail", a: failed, b: done, d: waits, change: func(g *grant.Grant, _ *turn.View) { g.MaxFailures = 0 }, says: "used up by a"},
		{name: "halted", a: done, b: done, d: done, change: func(g *grant.Grant, _ *turn.View) { g.Halted = "paused by alice" }, says: "paused by alice"},
		{name: "expired", a: done, b: done, d: done, change: func(_ *grant.Grant, v *turn.View) { v.Now = opens.Add(2 * time.Hour) }, says: "was until"},
		{name: "one of another grant is at it", a: done, b: done, d: done, change: beside(elsewhere(works, 1)), says: "1 at a time: waits for x"},
		{name: "one of another grant claims it and goes first", a: done, b: done, d: done, change: beside(elsewhere(begins, 0)), says: "waits for x"},
		{name: "one of another grant claims it and we go first", a: done, b: done, d: done, change: beside(elsewhere(begins, 255)), step: turn.Claim},
		{name: "one of another grant waits", a: done, b: done, d: done, change: beside(elsewhere(waits, 0)), step: turn.Go},
		{name: "two places, and the other grant has one", a: done, b: done, d: done, change: func(g *grant.Grant, v *turn.View) {
			g.MaxUnavailable, v.Others["x"], v.Caps = 2, elsewhere(works, 1), map[manifest.Digest]int{{1}: 1}
		}, says: "1 at a time: waits for x"},
		{name: "two places, and nobody is at the other grant's", a: done, b: works, d: done, change: func(g *grant.Grant, v *turn.View) {
			g.MaxUnavailable, v.Others["x"], v.Caps = 2, elsewhere(waits, 1), map[manifest.Digest]int{{1}: 1}
		}, step: turn.Claim},
		{name: "alone", change: func(g *grant.Grant, v *turn.View) { g.Starts, g.First, v.Others = g.Starts[2:3], 0, nil }, step: turn.Go},
	} {
		g := grantOf("a", "b", "c", "d")
		v := turn.View{Self: "c", Now: opens.Add(10 * time.Minute), Others: map[string]turn.Said{"a": c.a, "b": c.b, "d": c.d}}
		if c.change != nil {
			c.change(g, &v)
		}
		got := turn.Decide(g, v)
		if got.Step != c.step || c.step == turn.Wait && (c.says == "" || !strings.Contains(got.Text, c.says) || got.Reason == "" || !got.Next.After(v.Now)) {
			t.Errorf("%s: %+v, want step %d and %q", c.name, got, c.step, c.says)
		}
	}
	if v := turn.Decide(nil, turn.View{Self: "c", Now: opens}); v.Step != turn.Wait || v.Reason != grant.LeaseMissing {
		t.Errorf("without a grant: %+v", v)
	}
}

// elsewhere is what a node says of a bundle whose checksum begins with this byte.
func elsewhere(o turn.Said, first byte) turn.Said {
	o.Checksum = manifest.Digest{first}
	if o.Claims != (manifest.Digest{}) {
		o.Claims = o.Checksum
		if first == 0 {
			o.Claims[1] = 1 // none would be no claim
		}
	}
	return o
}

// beside adds a node that the grant does not name, to one that has claimed for long enough.
func beside(o turn.Said) func(*grant.Grant, *turn.View) {
	return func(g *grant.Grant, v *turn.View) {
		claimed(turn.Settle)(g, v)
		v.Others["x"] = o
	}
}

func claimed(since time.Duration) func(*grant.Grant, *turn.View) {
	return func(_ *grant.Grant, v *turn.View) { v.Claimed, v.ClaimFor = true, since }
}
