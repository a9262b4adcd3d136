package policy

// PatchPolicy is the document as it is written, and the one place that says which fields it has: the strict reader, the
// JSON Schema and the Kubernetes resource are all made from these types (FieldsOf). Policy is what the reader makes of it.
//
// The tags: json is the field's name, and a field without omitempty has to be there; about says what it does; enum is
// the words allowed, of which the first is the default; default is the value when nothing is written; range and unit
// are of numbers; pattern of texts, for editors.
type PatchPolicy struct {
	APIVersion string   `json:"apiVersion" enum:"patchmgmt.io/v1" about:"Version of this format."`
	Kind       string   `json:"kind" enum:"PatchPolicy" about:"Kind of document."`
	Metadata   Metadata `json:"metadata" about:"Who the policy is."`
	Spec       Spec     `json:"spec" about:"What is wanted, where and when."`
}

// Metadata is who the policy is.
type Metadata struct {
	Name        string            `json:"name" pattern:"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$" about:"Name of the policy, one of its kind."`
	Namespace   string            `json:"namespace,omitempty" pattern:"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$" about:"Kept and shown, not acted on."`
	Labels      map[string]string `json:"labels,omitempty" about:"Of the policy, not of nodes."`
	Annotations map[string]string `json:"annotations,omitempty" about:"Notes, such as the number of the change: patchmgmt.io/change."`
}

// Spec is what is wanted.
type Spec struct {
	BundleRef       BundleRefSpec `json:"bundleRef" about:"The bundle, pinned by version and checksum."`
	Targets         Targets       `json:"targets" about:"The nodes."`
	Priority        int           `json:"priority,omitempty" range:"-1000000..1000000" default:"0" about:"Of two policies that select a node for the same bundle name the higher wins; with equal ones the node keeps what it has and reports a conflict."`
	Suspend         bool          `json:"suspend,omitempty" default:"false" about:"No new starts; what has started finishes."`
	AllowDowngrade  bool          `json:"allowDowngrade,omitempty" default:"false" about:"An older bundle may replace a newer one. A reverted commit does not need it."`
	Schedule        ScheduleSpec  `json:"schedule,omitempty" about:"When an install may start. Without it: as soon as the bundle is staged."`
	Staging         StagingSpec   `json:"staging,omitempty" about:"When the bundle has to be at the sites."`
	RolloutStrategy RolloutSpec   `json:"rolloutStrategy,omitempty" about:"In which order and how fast. Stands here or in schedule, not in both. Without it each node starts when its schedule lets it."`
	FastTrack       FastTrackSpec `json:"fastTrack,omitempty" about:"Lets this revision go without a canary."`
	Reboot          string        `json:"reboot,omitempty" enum:"Never|IfRequired" about:"Whether a node may start itself again when what it installed needs that."`
	Rollback        RollbackSpec  `json:"rollback,omitempty" about:"How a node decides that an install was good, and what it keeps to go back."`
}

// BundleRefSpec pins a bundle.
type BundleRefSpec struct {
	Name     string `json:"name,omitempty" default:"default" pattern:"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$" about:"Name of the bundle; a node has one version of each name."`
	Version  string `json:"version" pattern:"^[A-Za-z0-9]([A-Za-z0-9.+~_:-]{0,62}[A-Za-z0-9])?$" about:"Version, in quotes if it looks like a number."`
	Checksum string `json:"checksum" pattern:"^sha256:[0-9a-f]{64}$" about:"sha256 of the signed manifest, as meshctl bundle build prints it."`
}

// Targets says which nodes.
type Targets struct {
	Selector TargetSelector `json:"selector" about:"Nodes that all of this holds for."`
	Exclude  LabelSelector  `json:"exclude,omitempty" about:"Of them those that nobody touches: no policy for this bundle name selects them, whatever its priority."`
}

// TargetSelector is a LabelSelector that can also say: all.
type TargetSelector struct {
	LabelSelector
	MatchAll bool `json:"matchAll,omitempty" default:"false" about:"Every node. An empty selector without it is an error."`
}

// LabelSelector picks nodes by their labels, as in Kubernetes.
type LabelSelector struct {
	MatchLabels      map[string]string `json:"matchLabels,omitempty" about:"Labels the node has."`
	MatchExpressions []ExpressionSpec  `json:"matchExpressions,omitempty" about:"Conditions, of which all must hold."`
}

// ExpressionSpec is one condition.
type ExpressionSpec struct {
	Key      string   `json:"key" about:"Name of the label."`
	Operator string   `json:"operator" enum:"In|NotIn|Exists|DoesNotExist" about:"NotIn and DoesNotExist also hold for a node without the label."`
	Values   []string `json:"values,omitempty" about:"Of In and NotIn."`
}

// ScheduleSpec says when.
type ScheduleSpec struct {
	MaintenanceWindow  string         `json:"maintenanceWindow,omitempty" about:"DAYS HH:MM-HH:MM, such as Tue 02:00-04:00; several joined by a semicolon. It limits when installs start."`
	MaintenanceWindows []string       `json:"maintenanceWindows,omitempty" about:"More windows of the same form; an install may start in any of them."`
	Timezone           string         `json:"timezone,omitempty" about:"IANA name such as America/Chicago, UTC, or site for each site's own."`
	Blackouts          []BlackoutSpec `json:"blackouts,omitempty" about:"Dates on which nothing starts."`
	NotBefore          Instant        `json:"notBefore,omitempty" about:"Nothing starts before, such as 2026-11-20T02:00:00Z."`
	StartCutoffMinutes int            `json:"startCutoffMinutes,omitempty" range:"1..1440" unit:"minutes" about:"Nothing starts with less than this left of a window."`
	Deadline           DeadlineSpec   `json:"deadline,omitempty" about:"When a node that has not started is overdue."`
	MaxDeferrals       int            `json:"maxDeferrals,omitempty" range:"1..1000" unit:"windows" about:"Windows missed before a node is overdue."`
	RolloutStrategy    RolloutSpec    `json:"rolloutStrategy,omitempty" about:"The same as spec.rolloutStrategy."`
}

// BlackoutSpec is dates on which nothing starts.
type BlackoutSpec struct {
	From   Date   `json:"from" about:"First date, such as 2026-11-20."`
	To     Date   `json:"to" about:"Last date, included."`
	Reason string `json:"reason,omitempty" about:"Shown with the deferral."`
}

// DeadlineSpec says when a node is overdue.
type DeadlineSpec struct {
	After  Length `json:"after,omitempty" about:"After the bundle was first asked for, such as 30d."`
	Action string `json:"action,omitempty" enum:"Alert|RunAnytime" about:"Only tell, or start outside the windows too, though in no blackout."`
}

// StagingSpec says when the bundle has to be there.
type StagingSpec struct {
	StartBefore         Length  `json:"startBefore,omitempty" about:"How long before the window staging begins, such as 72h. Without it: at once."`
	RequireBeforeWindow bool    `json:"requireBeforeWindow,omitempty" default:"false" about:"A site that is not staged when its window opens waits for the next one."`
	WAN                 WANSpec `json:"wan,omitempty" about:"How the WAN is used."`
}

// WANSpec is here for the word only: caps live with the site.
type WANSpec struct {
	Profile string `json:"profile,omitempty" enum:"site" about:"The site's own profile; caps are set with meshctl site wan."`
}

// RolloutSpec is the order among the nodes.
type RolloutSpec struct {
	Type                    string       `json:"type,omitempty" enum:"RollingUpdate" about:"Batch after batch."`
	BatchSize               CountOrShare `json:"batchSize,omitempty" about:"Nodes, or sites, of a batch: a number, or a share such as 5%. Windows that open at other times have a clock of their own, and of each batch their share. Without it all are one batch."`
	BatchDelayMinutes       int          `json:"batchDelayMinutes,omitempty" range:"0..525600" default:"0" unit:"minutes" about:"Between two batches."`
	DelayFrom               string       `json:"delayFrom,omitempty" enum:"Settled|Started" about:"Whether the delay counts from the end or from the start of the batch before."`
	BatchBy                 string       `json:"batchBy,omitempty" enum:"Node|Site" about:"Whether a batch is nodes or whole sites."`
	MaxUnavailablePerSite   CountOrShare `json:"maxUnavailablePerSite,omitempty" default:"25%" about:"Nodes of one site that may be out of service at once; at least 1."`
	Canary                  CanarySpec   `json:"canary,omitempty" about:"Nodes that go first."`
	FailureBudget           BudgetSpec   `json:"failureBudget,omitempty" about:"How many may fail before the rollout stops."`
	ProgressDeadlineMinutes int          `json:"progressDeadlineMinutes,omitempty" range:"1..10080" default:"60" unit:"minutes" about:"A node that is not done by then no longer holds up its batch. More than the health check may take, less than the window."`
	Gating                  string       `json:"gating,omitempty" enum:"Lease|Strict" about:"Lease lets a staged site patch with the WAN cut; Strict asks for a permission younger than 5 minutes."`
}

// CanarySpec is the nodes that go first.
type CanarySpec struct {
	Selector    LabelSelector `json:"selector" about:"Which of the policy's nodes."`
	SoakMinutes int           `json:"soakMinutes,omitempty" range:"0..525600" default:"0" unit:"minutes" about:"How long to watch them after the last has settled."`
	Promote     string        `json:"promote,omitempty" enum:"Auto|Manual" about:"Whether the rollout goes on by itself or by meshctl rollout promote."`
}

// BudgetSpec is how many may fail.
type BudgetSpec struct {
	Max        CountOrShare `json:"max,omitempty" default:"2%" about:"Failures: a number, or a share of the nodes that have started and settled. One more stops the rollout."`
	MinSamples int          `json:"minSamples,omitempty" range:"1..1000000" default:"20" unit:"nodes" about:"Before so many have settled a share says nothing."`
	MaxPerSite int          `json:"maxPerSite,omitempty" range:"1..1000000" default:"1" unit:"failures" about:"Failures of one site; one more stops the site, without the WAN too."`
	OnExceeded string       `json:"onExceeded,omitempty" enum:"Pause|Rollback" about:"Stop, or take this revision back too."`
}

// FastTrackSpec is why a revision needs no canary.
type FastTrackSpec struct {
	CVE       string   `json:"cve" pattern:"^CVE-[0-9]{4}-[0-9]{4,}$" about:"What is being closed, such as CVE-2026-12345."`
	Approvers []string `json:"approvers" about:"At least two people."`
}

// RollbackSpec is how a node goes back.
type RollbackSpec struct {
	Enabled                    bool         `json:"enabled,omitempty" default:"true" about:"Go back by itself when the health check fails."`
	HealthCheckURL             string       `json:"healthCheckUrl,omitempty" about:"http on the node's own loopback, such as http://localhost:8080/health."`
	HealthCheckTimeoutSeconds  int          `json:"healthCheckTimeoutSeconds,omitempty" range:"1..86400" default:"120" unit:"seconds" about:"How long the node may take to be well."`
	HealthCheckIntervalSeconds int          `json:"healthCheckIntervalSeconds,omitempty" range:"1..3600" unit:"seconds" about:"Between two questions."`
	HealthyForSeconds          int          `json:"healthyForSeconds,omitempty" range:"1..86400" unit:"seconds" about:"How long it must stay well. Less than healthCheckTimeoutSeconds."`
	Snapshot                   SnapshotSpec `json:"snapshot,omitempty" about:"How the state before is kept."`
}

// SnapshotSpec is how the state before is kept.
type SnapshotSpec struct {
	Provider   string `json:"provider,omitempty" enum:"auto|btrfs|lvm-thin|timeshift|copy|none" about:"What keeps it; none needs required: false."`
	Required   bool   `json:"required,omitempty" default:"true" about:"Without a snapshot nothing is installed."`
	Keep       int    `json:"keep,omitempty" range:"1..100" default:"2" unit:"snapshots" about:"Snapshots kept."`
	MaxAgeDays int    `json:"maxAgeDays,omitempty" range:"1..3650" default:"14" unit:"days" about:"Older ones go."`
}

// Texts with a form of their own.
type (
	// CountOrShare is a number, or a percentage in quotes: 100, "5%".
	CountOrShare string
	// Length is a length of time: 30d, 36h, 90m, or several together.
	Length string
	// Instant is RFC 3339, or null.
	Instant string
	// Date is 2026-11-20.
	Date string
)
