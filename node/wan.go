package node

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/patchmesh/patchmesh/internal/status"
)

// reasonPaused begins the reason of a node that waits until the seeder may send.
const reasonPaused = "WANPaused"

// maxWhy bounds the seeder's words in bytes.
const maxWhy = 160

// wanWord is what the seeder last said about the site's use of the WAN.
type wanWord struct {
	at    time.Time // zero: nothing yet
	until time.Time // of a pause
	rate  int64     // bytes per second; 0: no limit, or not said
	why   string
}

// heard takes what came with a grant or a refusal.
func (w *wanWord) heard(rate, pauseMillis int64, why string) {
	now := time.Now()
	*w = wanWord{at: now, rate: max(rate, 0), why: strings.ToValidUTF8(why[:min(len(why), maxWhy)], "")}
	w.why = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, w.why)
	if pauseMillis > 0 {
		w.until = now.Add(time.Duration(min(pauseMillis, maxPause.Milliseconds())) * time.Millisecond)
	}
}

// maxPause is longer than any pause that ends.
const maxPause = 10 * 24 * time.Hour

// explain says in a statement that a node waits for the end of a pause, and until when.
func (w *wanWord) explain(st *status.Node, paused bool, now time.Time) {
	if paused && st.Phase == status.Staging && now.Before(w.until) {
		at := w.until.UTC().Round(time.Minute)
		st.Reason, st.NextAttempt = reasonPaused+": "+w.why, &at
	}
}

// wait says of a node that has all that its neighbours have that it waits for the uplink's pause to end.
func wait(st *status.Node, uplink *statement) {
	if st.Phase == status.Staging && uplink != nil && strings.HasPrefix(uplink.st.Reason, reasonPaused+": ") && st.Transfer.BytesHave >= uplink.st.Transfer.BytesHave {
		st.Reason, st.NextAttempt = uplink.st.Reason, uplink.st.NextAttempt
	}
}

// show says what a node knows of its site's WAN without asking anybody.
func (w *wanWord) show(out *status.WAN, uplink string, leads bool, now time.Time) {
	said := ""
	if !w.at.IsZero() {
		said = fmt.Sprintf("the data centre said %s ago: %s", now.Sub(w.at).Round(time.Second), w.why)
	}
	switch {
	case leads:
		out.Allowed, out.Why = w.rate, said
		if out.Paused = now.Before(w.until); out.Paused {
			until := w.until.UTC().Round(time.Minute)
			out.Until, out.Why = &until, w.why
		}
	case uplink == "":
		out.Why = "no node that is known here reaches the data centre"
		if said != "" {
			out.Why += "; " + said
		}
	default:
		out.Why = "the uplink is " + uplink
	}
}
