package api

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// Paths of access, audit, quarantine, the Git repository, webhooks, and of what describes and watches the rest.
const (
	PathOpenAPI         = "/api/v1/openapi.json"
	PathWatch           = "/api/v1/watch"
	PathAccess          = "/api/v1/access"
	PathAccessToken     = "/api/v1/access/{name}"
	PathAudit           = "/api/v1/audit"
	PathQuarantine      = "/api/v1/quarantine"
	PathQuarantineEntry = "/api/v1/quarantine/{id}"
	PathSync            = "/api/v1/sync"
	PathSyncPrune       = "/api/v1/sync/accept-prune"
	PathGitHook         = "/api/v1/hooks/git"
	PathWebhooks        = "/api/v1/webhooks"
	PathWebhook         = "/api/v1/webhooks/{name}"
	PathDeadLetters     = "/api/v1/webhooks/{name}/dead"
	PathPolicy          = "/api/v1/policies/{policy}"
	PathPolicyHistory   = "/api/v1/policies/{policy}/history"
	PathMetrics         = "/metrics"
)

// HeaderIdempotency carries a key that the caller chose: a change that is asked for again with the same key is answered
// as the first time and not made twice. Keys are kept for a day.
const HeaderIdempotency = "Idempotency-Key"

// HeaderSignature of a webhook's request is "t=T,v1=H": T in Unix seconds, H in hex the HMAC-SHA256 with the webhook's
// secret over T, a dot and the body. A receiver refuses what is too old.
const HeaderSignature = "X-Patchmesh-Signature"

// Role says what a token may be used for.
type Role string

// The roles. A node token may do nothing but send reports to PathLegacy.
const (
	RoleNode     Role = "node"
	RoleViewer   Role = "viewer"
	RoleOperator Role = "operator"
	RoleAdmin    Role = "admin"
)

// AccessSpec asks for a token.
type AccessSpec struct {
	Name       string `json:"name"`
	Role       Role   `json:"role"`
	TTLSeconds int64  `json:"ttlSeconds"` // 0: it does not end
}

// AccessInfo is a token without its secret.
type AccessInfo struct {
	Name     string     `json:"name"`
	Role     Role       `json:"role"`
	Created  time.Time  `json:"created"`
	By       string     `json:"createdBy"`
	Expires  *time.Time `json:"expires,omitempty"`
	Revoked  *time.Time `json:"revoked,omitempty"`
	LastUsed *time.Time `json:"lastUsed,omitempty"`
}

// AccessReply carries the secret, once.
type AccessReply struct {
	AccessInfo
	Token string `json:"token"`
}

// AuditEntry is one change, or one that was refused: who, what, from where.
type AuditEntry struct {
	ID      int64     `json:"id"`
	At      time.Time `json:"at"`
	Who     string    `json:"who"` // name of the token; "socket", "git", "rollout"
	Role    Role      `json:"role"`
	From    string    `json:"from"`    // address, or uid of the socket's other end
	Action  string    `json:"action"`  // "POST /api/v1/sites"
	Subject string    `json:"subject"` // what it is about: SITE, SITE/NODE, policy
	Status  int       `json:"status"`  // of the answer
	Detail  string    `json:"detail,omitempty"`
}

// AuditPage is a page of the audit log, in its order.
type AuditPage struct {
	Entries []AuditEntry `json:"entries"`
	Next    int64        `json:"next"`
}

// QuarantineScope says what is under quarantine.
type QuarantineScope string

// The scopes: a node installs nothing new; from a source nobody takes chunks.
const (
	QuarantineNode   QuarantineScope = "node"
	QuarantineSource QuarantineScope = "source"
)

// QuarantineSpec puts a node, or a source, under quarantine.
type QuarantineSpec struct {
	Scope  QuarantineScope `json:"scope"`
	Site   string          `json:"site"`
	Node   string          `json:"node"`
	Reason string          `json:"reason"`
}

// QuarantineEntry is one quarantine.
type QuarantineEntry struct {
	ID int64 `json:"id"`
	QuarantineSpec
	Code       string     `json:"code,omitempty"`
	Since      time.Time  `json:"since"`
	By         string     `json:"by"`       // who put it there; "node" or "site" if it was found out
	Evidence   string     `json:"evidence"` // "3 bad chunks to 2 peers"
	Release    string     `json:"release"`  // what ends it
	Released   *time.Time `json:"released,omitempty"`
	ReleasedBy string     `json:"releasedBy,omitempty"`
	Why        string     `json:"why,omitempty"`
}

// SyncState is how the Git repository is followed.
type SyncState struct {
	Repository string     `json:"repository"` // without credentials; empty: none is followed
	Branch     string     `json:"branch"`
	Commit     string     `json:"commit"` // in force
	Signer     string     `json:"signer"` // fingerprint of who signed it
	Author     string     `json:"author"`
	Subject    string     `json:"subject"`
	Applied    *time.Time `json:"applied,omitempty"`
	Checked    *time.Time `json:"checked,omitempty"` // last time that the repository answered
	Next       *time.Time `json:"next,omitempty"`
	Failures   int        `json:"failures"`          // in a row
	Problem    string     `json:"problem,omitempty"` // why the newest commit is not in force
	Code       string     `json:"code,omitempty"`
	Refused    string     `json:"refused,omitempty"` // the commit that is not
	Held       *SyncHeld  `json:"held,omitempty"`
}

// SyncHeld is a commit that removes much and waits for a person.
type SyncHeld struct {
	Commit  string    `json:"commit"`
	Removes int       `json:"removes"` // (policy, node) pairs
	Of      int       `json:"of"`
	Since   time.Time `json:"since"`
}

// PruneAccept lets a held commit in.
type PruneAccept struct {
	Commit string `json:"commit"`
	Reason string `json:"reason"`
}

// WebhookSpec is where events are sent.
type WebhookSpec struct {
	Name   string   `json:"name"`
	URL    string   `json:"url"`
	Events []string `json:"events"`           // kinds, e.g. "rollout", "quarantine"; empty: all
	Format string   `json:"format"`           // patchmesh (default), alertmanager
	Secret string   `json:"secret,omitempty"` // of the HMAC; empty: one is made
}

// WebhookInfo is a webhook without its secret, which the answer that made it shows once.
type WebhookInfo struct {
	WebhookSpec
	Created   time.Time  `json:"created"`
	Delivered int64      `json:"delivered"`
	Waiting   int        `json:"waiting"`
	Dead      int        `json:"dead"`
	LastError string     `json:"lastError,omitempty"`
	LastTry   *time.Time `json:"lastTry,omitempty"`
}

// DeadLetter is an event that could not be delivered.
type DeadLetter struct {
	ID    int64     `json:"id"`
	At    time.Time `json:"at"`
	Tries int       `json:"tries"`
	Error string    `json:"error"`
	Event Event     `json:"event"`
}

// Event is something that happened in the fleet: what PathWatch and webhooks tell.
type Event struct {
	ID       int64     `json:"id"` // grows; the Last-Event-ID of the watch
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"`     // rollout, site, node, quarantine, bundle, policy, sync
	Name     string    `json:"name"`     // what happened: "paused", "silent", "installed"
	Severity string    `json:"severity"` // info, warning, critical
	Subject  string    `json:"subject"`
	Text     string    `json:"text"`
	Code     string    `json:"code,omitempty"`
	Policy   string    `json:"policy,omitempty"`
	Site     string    `json:"site,omitempty"`
	Node     string    `json:"node,omitempty"`
}

// PolicyRevision is one line of a policy's history.
type PolicyRevision struct {
	Revision uint64          `json:"revision"`
	Recorded time.Time       `json:"recorded"`
	Created  time.Time       `json:"created"`
	Deleted  bool            `json:"deleted"`
	Reverts  uint64          `json:"reverts,omitempty"`
	Commit   string          `json:"commit,omitempty"`
	SignedBy string          `json:"signedBy"` // as in ComplianceRow
	Bundle   string          `json:"bundle"`
	Version  string          `json:"version"`
	Checksum manifest.Digest `json:"checksum"`
	Text     string          `json:"text"`
}
