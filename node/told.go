package node

import (
	"fmt"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// told is what was last reported of a bundle name: it says what is news. A node that waits tries again and again, for
// months if need be, and the line of its site is to stay idle. Pure; kept in state.json, so that a daemon that is started
// again and again does not repeat itself either.
type told struct {
	Checksum manifest.Digest `json:"checksum"`
	Policy   string          `json:"policy,omitempty"`
	Revision uint64          `json:"revision,omitempty"`
	Phase    status.Phase    `json:"phase"`
	Reason   string          `json:"reason"`
	Code     problem.Code    `json:"code,omitempty"`
	At       time.Time       `json:"at"`
	Hour     time.Time       `json:"hour"`  // when the count began
	Count    int             `json:"count"` // deferrals reported since
}

// How often a deferral is reported: at once when its reason is another one, the same one each hour, and no more than so
// many in an hour, should two reasons take turns.
const (
	repeatAfter  = time.Hour
	mostDeferred = 8
)

// news says whether the life is to be reported, and notes it as reported.
func (t *told) news(now time.Time, l *Life) bool {
	next := told{Phase: l.Phase, Reason: l.Reason, Code: l.Code, At: now, Hour: t.Hour, Count: t.Count}
	if l.Target != nil {
		next.Checksum, next.Policy, next.Revision = l.Target.Checksum, l.Target.Policy, l.Target.Revision
	}
	same := t.Checksum == next.Checksum && t.Policy == next.Policy && t.Revision == next.Revision
	repeats := t.Reason == next.Reason && t.Code == next.Code
	switch {
	case Final(l.Phase):
	case l.Phase == status.Deferred:
		if same && t.Phase == status.Deferred && repeats && t.recent(now) {
			return false
		}
		if now.Sub(next.Hour) >= repeatAfter || now.Before(next.Hour) {
			next.Hour, next.Count = now, 0
		}
		if next.Count++; next.Count > mostDeferred {
			return false
		}
	case same && t.Phase == status.Deferred: // it tries again: what comes of it is news, or nothing is
		return false
	case same && t.Phase == next.Phase && repeats && t.recent(now):
		return false
	}
	*t = next
	return true
}

// recent reports whether it is not an hour since the last report. A clock that was set back counts as an hour.
func (t *told) recent(now time.Time) bool {
	return now.Sub(t.At) < repeatAfter && !now.Before(t.At)
}

// note keeps what the executor said for the statement of the node, and all of it for the next report.
func (l *Life) note(r install.Result) {
	l.answer = &r
	l.Detail = status.Clip(detailOf(r), maxDetail)
	if r.Snapshot != "" {
		l.Snapshot = status.Clip(r.Snapshot, status.MaxReboot)
	}
	if len(r.Reboot) > 0 || r.Phase == status.Installed && r.Reason != install.ReasonNothingToDo {
		l.Reboot = status.Clip(strings.Join(r.Reboot, ", "), status.MaxReboot)
	}
}

// detailOf is what the executor said, in words: its own detail, packages that were left alone, what was not as it
// should be, and what became of a transaction that was cut off.
func detailOf(r install.Result) string {
	var parts []string
	if r.Detail != "" {
		parts = append(parts, r.Detail)
	}
	if len(r.Kept) > 0 {
		var kept []string
		for _, k := range r.Kept {
			kept = append(kept, fmt.Sprintf("%s %s", k.Name, k.Why))
		}
		parts = append(parts, "kept: "+strings.Join(kept, ", "))
	}
	if len(r.Findings) > 0 {
		parts = append(parts, "found: "+strings.Join(r.Findings, "; "))
	}
	if r.Recovered != "" {
		parts = append(parts, "recovered: "+r.Recovered)
	}
	return strings.Join(parts, "\n")
}
