// Package policy holds the desired state: PatchPolicy, patchmgmt.io/v1, the signed envelope it travels in, and the
// choice of the policy that a node follows. A field that this version does not act on is refused by name, never
// ignored. Pure; safe for concurrent use.
package policy

import "github.com/patchmesh/patchmesh/internal/manifest"

// APIVersion and Kind of the document.
const (
	APIVersion = "patchmgmt.io/v1"
	Kind       = "PatchPolicy"
)

// Limits and defaults.
const (
	MaxBytes             = 64 << 10 // of a policy document and of its envelope
	MaxLabels            = 64
	DefaultBundle        = "default"
	DefaultHealthTimeout = 120       // seconds
	MaxHealthTimeout     = 24 * 3600 // seconds
)

// Policy is the part of PatchPolicy that this version acts on.
type Policy struct {
	Name        string
	Namespace   string
	Labels      map[string]string
	Annotations map[string]string
	Bundle      BundleRef
	Match       map[string]string // targets.selector.matchLabels; never empty
	Rollback    Rollback
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

// Matches reports whether a node with these labels is a target of the policy.
func (p *Policy) Matches(labels map[string]string) bool {
	for k, want := range p.Match {
		if have, ok := labels[k]; !ok || have != want {
			return false
		}
	}
	return len(p.Match) > 0
}
