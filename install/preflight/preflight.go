// Package preflight asks whether this is a good moment to install on this machine: room on every file system, power,
// locks of package managers and of applications, the clock, and the hooks that whoever runs the machine has put into a
// directory. A no is a deferral with a reason of the closed list and a next try; nothing has been touched. Whether the
// window is open is not asked here: the daemon does, see internal/window.
//
// Decide is pure; the rest of the package looks, runs the hooks, and changes nothing. Every function may be called from
// any goroutine.
package preflight

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Reason is why not now, of the closed list of reasons for a deferral.
type Reason string

// The reasons that a machine itself may have.
const (
	LowDisk             Reason = "LowDisk"
	LowPower            Reason = "LowPower"
	AppLock             Reason = "AppLock"
	HookDeferred        Reason = "HookDeferred"
	ManagerBusy         Reason = "Locked"
	ClockUnsure         Reason = "ClockUnsure"
	SnapshotUnavailable Reason = "SnapshotUnavailable"
)

// Deferral is the answer no.
type Deferral struct {
	Reason Reason
	Detail string        // who or what, for a person
	Retry  time.Duration // when it is worth while to ask again
}

// Facts are what was found on a machine.
type Facts struct {
	Now      time.Time
	Space    []Space       // see Disk.Look
	Snapshot string        // why the state of the machine cannot be kept; empty: it can, or need not be
	Skew     time.Duration // of the machine's clock against those of its neighbours, either way
	Power    Power
	Managers []Process // package managers that hold a lock
	Locks    []Lock    // of applications
	Hook     *Deferral // of the hooks, see Hooks.Ask; nil: yes, or not asked yet
}

// Limits are what a machine must have.
type Limits struct {
	BatteryPercent int           // on battery: charge below which nothing is begun
	Skew           time.Duration // see Facts.Skew
}

// DefaultLimits are those of a machine whose configuration says nothing.
func DefaultLimits() Limits { return Limits{BatteryPercent: 40, Skew: 5 * time.Minute} }

// When it is worth while to ask again, where the obstacle itself does not say.
const (
	retryPerson = time.Hour        // somebody has to do something about it
	retryPower  = 15 * time.Minute // somebody has to, and may just have done so
	retryLock   = 5 * time.Minute  // it passes by itself
	retryLeast  = time.Minute
)

// Decide returns nil when nothing speaks against installing now. Otherwise the reason is the first of this order, which
// begins with what somebody has to put right and ends with what passes by itself: LowDisk, SnapshotUnavailable,
// ClockUnsure, LowPower, Locked, AppLock, HookDeferred. Detail names all there is, and Retry waits for the last of it.
func Decide(f Facts, l Limits) *Deferral {
	var all []Deferral
	no := func(r Reason, retry time.Duration, format string, a ...any) {
		all = append(all, Deferral{r, fmt.Sprintf(format, a...), retry})
	}
	for _, s := range f.Space {
		if why := s.lacks(); why != "" {
			no(LowDisk, retryPerson, "%s", why)
		}
	}
	if f.Snapshot != "" {
		no(SnapshotUnavailable, retryPerson, "%s", f.Snapshot)
	}
	if skew := f.Skew.Abs(); l.Skew > 0 && skew > l.Skew {
		no(ClockUnsure, retryPower, "the clock differs by %s from those of its neighbours: at most %s", skew.Round(time.Second), l.Skew)
	}
	if p := f.Power; p.OnBattery && p.Percent < l.BatteryPercent {
		no(LowPower, retryPower, "on battery with %d %%: want %d %% or mains", p.Percent, l.BatteryPercent)
	}
	for _, p := range f.Managers {
		no(ManagerBusy, retryLock, "%s is at work, it holds %s", p, p.File)
	}
	for _, k := range f.Locks {
		no(AppLock, k.retry(f.Now), "%s", k.describe(f.Now))
	}
	if f.Hook != nil {
		all = append(all, *f.Hook)
	}
	if len(all) == 0 {
		return nil
	}
	d := all[0]
	said := make([]string, len(all))
	for i, a := range all {
		said[i] = a.Detail
		if a.Reason != d.Reason {
			said[i] = string(a.Reason) + ": " + a.Detail
		}
	}
	d.Detail = strings.Join(said, "; ")
	d.Retry = slices.MaxFunc(all, func(a, b Deferral) int { return int(a.Retry - b.Retry) }).Retry
	return &d
}
