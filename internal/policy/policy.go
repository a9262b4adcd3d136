// Package policy holds the desired state: PatchPolicy, patchmgmt.io/v1, the signed envelope it travels in, and the
// choice of the policy that a node follows. A field that this version does not know is refused by name, never
// ignored. Pure; safe for concurrent use.
package policy

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// APIVersion and Kind of the document.
const (
	APIVersion = "patchmgmt.io/v1"
	Kind       = "PatchPolicy"
)

// Limits and defaults.
const (
	MaxBytes            = 64 << 10 // of a policy document and of its envelope
	MaxLabels           = 64
	DefaultSnapshots    = 2
	DefaultSnapshotDays = 14
	MaxListed           = 64  // windows, and blackouts
	MaxBlackoutDays     = 366 // of one blackout
	MaxDeadline         = 366 * 24 * time.Hour
)

// Policy is the part of PatchPolicy that this version acts on.
type Policy struct {
	Name        string
	Namespace   string
	Labels      map[string]string
	Annotations map[string]string
	Bundle      BundleRef
	Selector    Selector // targets.selector
	Exclude     Selector // targets.exclude: beats every policy for the bundle name, see Select
	Priority    int      // of two policies for one bundle name the higher wins
	Suspend     bool     // no new starts
	Schedule    Schedule
	Staging     Staging
	Rollout     *Rollout // nil: no order among the nodes
	FastTrack   *FastTrack
	Downgrade   bool // allowDowngrade: an older version or sequence may replace a newer one
	Reboot      Reboot
	Rollback    Rollback
}

// Reboot says whether a node may start itself again when what it installed needs that.
type Reboot string

// What it may do. Without a word in the policy it does not: it reports that it should.
const (
	RebootNever      Reboot = "Never"
	RebootIfRequired Reboot = "IfRequired"
)

// Schedule says when an install may start. The zero value: at any time.
type Schedule struct {
	Windows      string // as written, every window joined by ';'; empty: always open
	Zone         string // an IANA name, UTC, or ZoneSite; empty only without windows and blackouts
	Blackouts    []Blackout
	NotBefore    time.Time     // zero: no limit
	Cutoff       time.Duration // no start with less than this left of a window
	Deadline     time.Duration // after the bundle was first asked for a node that has not started is overdue; 0: never
	RunAnytime   bool          // what is overdue starts outside its window too, in no blackout (deadline.action)
	MaxDeferrals int           // windows missed before a node is overdue; 0: no limit
}

// ZoneSite in Schedule.Zone means the zone of each site.
const ZoneSite = "site"

// Blackout is dates, first and last included, in the schedule's zone, on which nothing starts.
type Blackout struct {
	From, To string // 2006-01-02
	Reason   string
}

// BundleRef pins a bundle. Name defaults to "default".
type BundleRef struct {
	Name     string
	Version  string
	Checksum manifest.Digest
}

// Rollback says how a node decides that an install was good.
type Rollback struct {
	Enabled              bool   // default true
	HealthCheckURL       string // http on the loopback only; empty: no URL check
	HealthTimeoutSeconds int    // default 120
	IntervalSeconds      int    // between two questions; 0: the executor's own
	HealthyForSeconds    int    // must answer well for this long without a break; 0: once is enough
	Snapshot             Snapshot
}

// Snapshot says how the state before an install is kept.
type Snapshot struct {
	Provider   string // auto (default), btrfs, lvm-thin, timeshift, copy, none
	Required   bool   // default true: without a snapshot nothing is installed; provider none needs false
	Keep       int    // snapshots kept, default 2
	MaxAgeDays int    // older ones go; default 14
}

// ProviderNone in Snapshot.Provider: no snapshot is taken.
const ProviderNone = "none"

// Matches reports whether a node with these labels is a target of the policy: the selector picks it and the exclude
// does not.
func (p *Policy) Matches(labels map[string]string) bool {
	return p.Selector.Matches(labels) && !p.Exclude.Matches(labels)
}

// CanaryFirst reports whether the policy has a canary that goes first. A fast track, which needs two approvers, does
// without (rule S1).
func (p *Policy) CanaryFirst() bool {
	return p.Rollout != nil && p.Rollout.Canary != nil && (p.FastTrack == nil || len(p.FastTrack.Approvers) < 2)
}
