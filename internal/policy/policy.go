// Package policy holds the desired state: PatchPolicy, patchmgmt.io/v1, and the signed envelope it travels in. A
// field that this version does not act on is refused by name, never ignored. Pure; safe for concurrent use.
package policy

import "github.com/patchmesh/patchmesh/internal/manifest"

// APIVersion and Kind of the document.
const (
	APIVersion = "patchmgmt.io/v1"
	Kind       = "PatchPolicy"
)

// MaxBytes bounds a policy document and its envelope.
const MaxBytes = 64 << 10

// Policy is the part of PatchPolicy that this version acts on.
type Policy struct {
	Name      string
	Namespace string
	Labels    map[string]string
	Bundle    BundleRef
	Match     map[string]string // targets.selector.matchLabels; never empty
	Rollback  Rollback
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
}

// Document is the signed envelope: canonical JSON whose Policy field is the YAML text exactly as written. The
// revision orders documents of one policy name; a node never accepts a lower one than it has seen.
type Document struct {
	Schema   string `json:"schema"`
	Name     string `json:"name"`
	Revision uint64 `json:"revision"`
	Created  string `json:"created"` // RFC 3339, UTC, whole seconds
	Deleted  bool   `json:"deleted"` // the policy is withdrawn: no new starts, software stays
	Policy   string `json:"policy"`
}

// Schema identifies the envelope inside the signed bytes.
const Schema = "patchmesh.io/policy/v1"
