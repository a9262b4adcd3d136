// Package status holds what nodes, sites and the fleet say about themselves: the JSON contract of "meshctl status
// --json", of the local socket, of the seeder's API and of reports. Fields may be added, never renamed or removed.
package status

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// APIVersion of the documents.
const APIVersion = "meshctl.io/v1"

// Phase is where a node stands with its bundle. Transitions are in package node.
type Phase string

// The phases. Installed, RolledBack, InstallFailed and Quarantined are final for one bundle.
const (
	Pending       Phase = "Pending"
	Staging       Phase = "Staging"
	Staged        Phase = "Staged"
	Scheduled     Phase = "Scheduled"
	Installing    Phase = "Installing"
	Installed     Phase = "Installed"
	RolledBack    Phase = "RolledBack"
	InstallFailed Phase = "InstallFailed"
	Quarantined   Phase = "Quarantined"
	Deferred      Phase = "Deferred"
)

// Node is one node's statement about itself. Seq grows with every statement of one node, across restarts.
type Node struct {
	APIVersion  string          `json:"apiVersion"`
	Kind        string          `json:"kind"` // NodeStatus
	Site        string          `json:"site"`
	Node        string          `json:"node"`
	PeerID      string          `json:"peerId"`
	Software    string          `json:"software"`
	Seq         uint64          `json:"seq"`
	At          time.Time       `json:"at"` // the node's own clock
	Uplink      bool            `json:"uplink"`
	Phase       Phase           `json:"phase"`
	Reason      string          `json:"reason"` // one word or short phrase; always set in a non-final phase
	Code        string          `json:"code,omitempty"`
	Detail      string          `json:"detail,omitempty"`      // what the installer said, at most 1 KiB
	NextAttempt *time.Time      `json:"nextAttempt,omitempty"` // when the node tries again by itself, at the latest; not after the document's time: it is at it. Always set in a non-final phase: see Explain
	Snapshot    string          `json:"snapshot,omitempty"`    // of the machine before the last install, in the provider's words
	Reboot      string          `json:"reboot,omitempty"`      // why the machine has to be started again, at most MaxReboot bytes
	Order       string          `json:"order,omitempty"`       // an operator's order that is not carried out yet, and why it waits
	Missed      int             `json:"missed,omitempty"`      // maintenance windows that have passed without an install of Desired
	Batch       int             `json:"batch,omitempty"`       // of the rollout, by the grant that the node holds; counted from 1
	Grant       uint64          `json:"grant,omitempty"`       // the serial of that grant
	Quarantine  string          `json:"quarantine,omitempty"`  // why the node trusts itself with nothing new
	Quarantined *Quarantine     `json:"quarantined,omitempty"` // the same with all that is known, if the node itself has come to it
	Desired     *Desired        `json:"desired,omitempty"`
	Beside      []Standing      `json:"beside,omitempty"` // where it stands with the other bundles that policies ask for
	Installed   []InstalledItem `json:"installed"`
	Transfer    Transfer        `json:"transfer"`
	Alarms      []Alarm         `json:"alarms"`
	Traffic     Traffic         `json:"traffic,omitzero"`
	SkewSeconds int64           `json:"skewSeconds,omitempty"` // how far the site's clocks are ahead of its own
	Outbox      int             `json:"outbox"`                // reports not yet acknowledged by the seeder
	Noted       []Strike        `json:"noted,omitempty"`       // what it has seen its neighbours do wrong, at most MaxNoted
}

// Desired is what the policies in force ask of the node.
type Desired struct {
	Policy   string          `json:"policy"`
	Revision uint64          `json:"revision"`
	Commit   string          `json:"commit,omitempty"` // of the Git repository that the revision came from
	Bundle   string          `json:"bundle"`
	Version  string          `json:"version"`
	Checksum manifest.Digest `json:"checksum"`
}

// Standing is where a node stands with a bundle that is not the one its statement is about.
type Standing struct {
	Bundle      string          `json:"bundle"`
	Checksum    manifest.Digest `json:"checksum"`
	Phase       Phase           `json:"phase"`
	Reason      string          `json:"reason"`
	NextAttempt *time.Time      `json:"nextAttempt,omitempty"`
}

// InstalledItem is an installed bundle.
type InstalledItem struct {
	Bundle   string          `json:"bundle"`
	Version  string          `json:"version"`
	Sequence uint64          `json:"sequence"`
	Checksum manifest.Digest `json:"checksum"`
	Since    time.Time       `json:"since"`
	Receipt  string          `json:"receipt,omitempty"` // sha256:… of the receipt that says so
	Revoked  string          `json:"revoked,omitempty"` // why it was revoked; empty: it was not
}

// Transfer counts, in bytes of plain chunks unless said otherwise, for the desired bundle.
type Transfer struct {
	Chunks     int   `json:"chunks"`     // in the catalog as far as known
	ChunksHave int   `json:"chunksHave"` // verified on disk
	Bytes      int64 `json:"bytes"`
	BytesHave  int64 `json:"bytesHave"`
	FromWAN    int64 `json:"fromWan"`
	WANPayload int64 `json:"wanPayload"` // bytes as encoded on the WAN
	FromLAN    int64 `json:"fromLan"`
	Reused     int64 `json:"reused"` // on disk before the transfer began: earlier bundles, resume after restart
	ToLAN      int64 `json:"toLan"`
	Wasted     int64 `json:"wasted"` // received and dropped: corrupt or duplicate
	Peers      int   `json:"peers"`
	Rarest     int   `json:"rarest,omitempty"` // nodes of the site, as the uplink sees it, that hold the chunk that fewest hold
}

// Alarm is something an operator should look at; it never blocks a forward step by itself.
type Alarm struct {
	Code    string    `json:"code"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
}

// Seen is a node's statement and when the speaker last heard from the node.
type Seen struct {
	Node
	LastSeen time.Time         `json:"lastSeen"` // zero: never
	Silent   bool              `json:"silent"`
	Strikes  int               `json:"strikes,omitempty"` // how often the speaker caught it misbehaving
	Struck   []Strike          `json:"struck,omitempty"`  // what the nodes of the site have noted against it: see Accuse
	Labels   map[string]string `json:"labels,omitempty"`  // by the site's roster
}

// Site is a site as one of its nodes or the seeder sees it.
type Site struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"` // SiteStatus
	Site       string     `json:"site"`
	Timezone   string     `json:"timezone"`
	AsOf       time.Time  `json:"asOf"`
	Source     string     `json:"source"` // "seeder", or the name of the node that answers
	Roster     uint64     `json:"rosterVersion"`
	Uplink     string     `json:"uplink"` // node name, empty when none is known
	WAN        WAN        `json:"wan"`
	Nodes      []Seen     `json:"nodes"`
	Bundles    []SiteWant `json:"bundles"`
}

// SiteWant is a bundle that nodes of the site hold or want.
type SiteWant struct {
	Bundle   string          `json:"bundle"`
	Version  string          `json:"version"`
	Checksum manifest.Digest `json:"checksum"`
	Bytes    int64           `json:"bytes"` // distinct chunks
	Holders  int             `json:"holders"`
	Wanted   int             `json:"wanted"`
}

// WAN accounts a site's link. The seeder counts what it sent; a node knows only its site's sum of reports.
type WAN struct {
	CapBytesPerSecond int64 `json:"capBytesPerSecond"` // 0: no cap
	Payload           int64 `json:"payload"`           // bytes of chunks as encoded, sent to the site
	Plain             int64 `json:"plain"`             // the same, decoded
	Needed            int64 `json:"needed"`            // distinct plain bytes sent
	Duplicate         int64 `json:"duplicate"`         // plain bytes sent more than once
	LeaseSplit        int   `json:"leaseSplit"`        // leases granted beside the first because the LAN was split
	Unsure            int64 `json:"unsure,omitempty"`  // bytes that may have been sent and are not counted: the seeder was killed. Not 0: the others are lower bounds

	// What the site may use now and what it does use, as the seeder sees it.
	Allowed  int64      `json:"allowed"`         // bytes per second by profile, cap and day's total together; 0: no limit. Not valid while Paused
	Paused   bool       `json:"paused"`          // nothing may be sent: blackout, or the day's total is used up
	Rate     int64      `json:"rate"`            // bytes per second sent of late
	Why      string     `json:"why"`             // why the rate is what it is: one line for people
	Until    *time.Time `json:"until,omitempty"` // when Allowed or Paused change next
	Today    int64      `json:"today"`           // bytes sent since midnight in the site's time zone
	DayLimit int64      `json:"dayLimit"`        // of Today; 0: none
	BaseRTT  float64    `json:"baseRttMillis"`   // smallest round trip to the uplink; 0: unknown
	Queue    float64    `json:"queueMillis"`     // how much longer it is now: what waits in the link's queue
	Yielding bool       `json:"yielding"`        // the rate is held down because others use the link
}

// Fleet is all sites as the seeder sees them.
type Fleet struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"` // FleetStatus
	AsOf       time.Time     `json:"asOf"`
	Nodes      int           `json:"nodes"`
	Silent     int           `json:"silent"`
	Phases     map[Phase]int `json:"phases"`
	WAN        WAN           `json:"wan"`
	Sites      []Site        `json:"sites"`

	// Reasons counts the nodes of each phase that waits or has failed by why it does.
	Reasons map[Phase]map[string]int `json:"reasons,omitempty"`
}

// Explained reports whether the reasons of a phase are worth counting.
func Explained(p Phase) bool {
	switch p {
	case Deferred, Scheduled, RolledBack, InstallFailed, Quarantined:
		return true
	case Pending, Staging, Staged, Installing, Installed:
	}
	return false
}
