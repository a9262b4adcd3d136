package api

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/plan"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Paths of the rollouts, and of the fleet in a few lines.
const (
	PathFleet          = "/api/v1/fleet"
	PathRollouts       = "/api/v1/rollouts"
	PathRollout        = "/api/v1/rollouts/{policy}"
	PathRolloutPause   = "/api/v1/rollouts/{policy}/pause"
	PathRolloutResume  = "/api/v1/rollouts/{policy}/resume"
	PathRolloutPromote = "/api/v1/rollouts/{policy}/promote"
	PathRolloutRetry   = "/api/v1/rollouts/{policy}/retry"
	PathRolloutHistory = "/api/v1/rollouts/{policy}/history"
	PathPlan           = "/api/v1/plan"
	PathSiteGrants     = "/api/v1/sites/{site}/grants"
)

// RolloutState says where a rollout stands.
type RolloutState string

// The states. Paused needs a person; Done and Superseded are final for one revision.
const (
	RolloutWaiting     RolloutState = "Waiting" // for the window, for sites to be staged
	RolloutCanary      RolloutState = "Canary"
	RolloutSoaking     RolloutState = "Soaking"
	RolloutRunning     RolloutState = "Running"
	RolloutPaused      RolloutState = "Paused"
	RolloutRollingBack RolloutState = "RollingBack"
	RolloutSuspended   RolloutState = "Suspended" // spec.suspend
	RolloutDone        RolloutState = "Done"
	RolloutSuperseded  RolloutState = "Superseded"
	RolloutDeleted     RolloutState = "Deleted"
)

// Rollout is one revision of a policy on its way to its nodes.
type Rollout struct {
	status.RolloutLine
	Checksum manifest.Digest `json:"checksum"`
	Since    time.Time       `json:"since"`
	Phases   map[string]int  `json:"phases"` // of its nodes
	Canary   *CanaryState    `json:"canary,omitempty"`
	Pauses   []RolloutPause  `json:"pauses"` // the oldest first
	Sites    []RolloutSite   `json:"sites"`  // those that are not as they should be
	Cohorts  []RolloutCohort `json:"cohorts"`
}

// CanaryState is how the canary does.
type CanaryState struct {
	Nodes   int        `json:"nodes"`
	Settled int        `json:"settled"`
	Failed  int        `json:"failed"`
	Until   *time.Time `json:"soakUntil,omitempty"`
}

// RolloutPause is one stop, and who let it go on.
type RolloutPause struct {
	At      time.Time  `json:"at"`
	By      string     `json:"by"` // "budget", or who
	Reason  string     `json:"reason"`
	Resumed *time.Time `json:"resumed,omitempty"`
	Who     string     `json:"resumedBy,omitempty"`
	Why     string     `json:"resumedWhy,omitempty"`
}

// RolloutSite is a site that stands out.
type RolloutSite struct {
	Site   string `json:"site"`
	Reason string `json:"reason"` // over its budget, not staged, silent
	Nodes  int    `json:"nodes"`
	Failed int    `json:"failed"`
}

// RolloutCohort is the sites whose windows open at the same instant: each has its own clock of batches.
type RolloutCohort struct {
	Opens   time.Time `json:"opens"`
	Closes  time.Time `json:"closes"`
	Sites   int       `json:"sites"`
	Nodes   int       `json:"nodes"`
	Batch   int       `json:"batch"`
	Batches int       `json:"batches"`
}

// RolloutChange pauses, resumes, promotes or retries. Reason is required: it is kept.
type RolloutChange struct {
	Reason string `json:"reason"`
	By     string `json:"by,omitempty"` // who asks, if the caller's token does not say
}

// SiteGrant is the newest grant that a site has for a policy: see package grant.
type SiteGrant struct {
	Policy   string       `json:"policy"`
	Revision uint64       `json:"revision"`
	Serial   uint64       `json:"serial"`
	Opens    time.Time    `json:"opens"`
	Expires  time.Time    `json:"expires"`
	Halted   string       `json:"halted,omitempty"` // why nothing may start by it
	Nodes    int          `json:"nodes"`            // that it lets start
	Document trust.Signed `json:"document"`
}

// CarryGrants says that bundles are brought to a site by hand: their policies' grants for the next window are made at
// once. Policies without a rollout need none.
type CarryGrants struct {
	Policies []string `json:"policies"` // at most MaxCarried
}

// MaxCarried bounds the policies of one CarryGrants.
const MaxCarried = 64

// PlanRequest asks what policies would change.
type PlanRequest struct {
	Policies []PlanFile `json:"policies"`
	Prune    bool       `json:"prune"` // policies in force that are not among them would go
}

// PlanFile is the text of one policy.
type PlanFile struct {
	File string `json:"file"`
	Text string `json:"text"`
}

// MaxPlanBody bounds a PlanRequest, in bytes.
const MaxPlanBody = 8 << 20

// Plan is what would change, policy by policy.
type Plan = plan.Plan
