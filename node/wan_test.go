package node

import (
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/status"
)

// What the seeder said is shown by whom it was said to, with its age, and never as something newer than it is.
func TestWANWord(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		what   string
		said   func(*wanWord)
		uplink string
		leads  bool
		after  time.Duration
		want   status.WAN
	}{
		{"nothing heard, nobody there", func(*wanWord) {}, "", false, 0, status.WAN{Why: "no node that is known here reaches the data centre"}},
		{"another is the uplink", func(w *wanWord) { w.heard(750_000, 0, "cap of 6Mbit") }, "pos-2", false, 0, status.WAN{Why: "the uplink is pos-2"}},
		{"the uplink", func(w *wanWord) { w.heard(750_000, 0, "cap of 6Mbit") }, "pos-1", true, 2 * time.Second,
			status.WAN{Allowed: 750_000, Why: "the data centre said 2s ago: cap of 6Mbit"}},
		{"the WAN went down since", func(w *wanWord) { w.heard(0, 3_600_000, "blackout until 20:00 UTC") }, "", false, 5 * time.Minute,
			status.WAN{Why: "no node that is known here reaches the data centre; the data centre said 5m0s ago: blackout until 20:00 UTC"}},
	} {
		var w wanWord
		c.said(&w)
		var got status.WAN
		w.show(&got, c.uplink, c.leads, now.Add(c.after))
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
	var w wanWord
	w.heard(-5, 1<<62, "black\nout\x1b[31m "+strings.Repeat("é", 200))
	if w.rate != 0 || len(w.why) > maxWhy || strings.ContainsAny(w.why, "\n\x1b") || w.until.After(now.Add(maxPause+time.Minute)) {
		t.Errorf("%+v", w)
	}
	var got status.WAN
	if w.show(&got, "pos-1", true, now); !got.Paused || got.Until == nil || got.Why != w.why {
		t.Errorf("paused: %+v", got)
	}
}

// A node in a pause says so and until when; a neighbour says it too, once it has all that there is.
func TestWaitingForTheEndOfAPause(t *testing.T) {
	now := time.Now()
	var w wanWord
	w.heard(0, 3_600_000, "blackout until 20:00 UTC")
	up := status.Node{Phase: status.Staging, Reason: "Downloading", Transfer: status.Transfer{BytesHave: 10}}
	w.explain(&up, true, now)
	if up.Reason != "WANPaused: blackout until 20:00 UTC" || up.NextAttempt == nil || up.NextAttempt.Sub(now) > 61*time.Minute {
		t.Fatalf("%+v", up)
	}
	for have, want := range map[int64]string{9: "Downloading", 10: up.Reason} {
		st := status.Node{Phase: status.Staging, Reason: "Downloading", Transfer: status.Transfer{BytesHave: have}}
		if wait(&st, &statement{st: up}); st.Reason != want {
			t.Errorf("with %d of 10 bytes: %s", have, st.Reason)
		}
	}
	for _, st := range []status.Node{{Phase: status.Installed, Reason: "Installed"}, {Phase: status.Staging, Reason: "Downloading"}} {
		before := st.Reason
		if w.explain(&st, st.Phase == status.Installed, now); st.Reason != before {
			t.Errorf("%s: %s", st.Phase, st.Reason)
		}
	}
}
