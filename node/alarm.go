package node

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// alarm is something an operator should see.
type alarm struct {
	status.Alarm
	until time.Time // zero: until it is cleared
}

// Bounds of what a statement says: it must fit a frame.
const (
	maxMessage = 400
	maxDetail  = 1024
	eventLasts = 24 * time.Hour
)

// alarm raises or refreshes a condition: it lasts until clearAlarm.
func (n *Node) alarm(code problem.Code, format string, args ...any) {
	a, ok := n.alarms[code]
	if !ok {
		a.Alarm = status.Alarm{Code: string(code), Since: n.cfg.now().UTC()}
	}
	a.Message, a.until = clip(fmt.Sprintf(format, args...), maxMessage), time.Time{}
	n.alarms[code] = a
}

// event raises something that happened: it is shown for a day after the last time.
func (n *Node) event(code problem.Code, format string, args ...any) {
	old, ok := n.alarms[code]
	if ok && old.until.IsZero() {
		return // a condition says more
	}
	n.alarm(code, format, args...)
	a := n.alarms[code]
	a.until = time.Now().Add(eventLasts)
	n.alarms[code] = a
}

func (n *Node) clearAlarm(code problem.Code) { delete(n.alarms, code) }

// fade drops the events of yesterday.
func (n *Node) fade(now time.Time) {
	for code, a := range n.alarms {
		if !a.until.IsZero() && now.After(a.until) {
			delete(n.alarms, code)
		}
	}
}

// trouble is a condition of something done again and again: it is over when it works again.
type trouble struct{ code problem.Code }

func (t *trouble) failed(n *Node, err error, what string) {
	t.worked(n)
	t.code = diskCode(err)
	n.alarm(t.code, "%s: %v", what, err)
}

func (t *trouble) worked(n *Node) {
	if t.code != "" {
		n.clearAlarm(t.code)
		t.code = ""
	}
}

// diskCode names what a disk refused.
func diskCode(err error) problem.Code {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return problem.DiskFull
	}
	return problem.CodeOf(err)
}

// clip shortens text to a number of bytes.
func clip(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "?")
}
