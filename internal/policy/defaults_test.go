package policy_test

import (
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/policy"
)

// What stands for nothing written in the tags of PatchPolicy, and what others take for it, is the same.
func TestDefaults(t *testing.T) {
	p, err := policy.Parse([]byte(`apiVersion: patchmgmt.io/v1
kind: PatchPolicy
metadata: {name: a}
spec:
  bundleRef: {version: "1", checksum: "sha256:0000000000000000000000000000000000000000000000000000000000000000"}
  targets: {selector: {matchAll: true}}
  rolloutStrategy: {type: RollingUpdate}
`))
	if err != nil {
		t.Fatal(err)
	}
	r, s := p.Rollout, p.Rollback.Snapshot
	if r.MaxUnavailable != (policy.Size{Percent: policy.DefaultMaxUnavailable}) || r.ProgressDeadline != policy.DefaultProgressDeadline ||
		r.Budget.Max != (policy.Size{Percent: policy.DefaultBudget}) || r.Budget.MinSamples != policy.DefaultMinSamples {
		t.Errorf("%+v", r)
	}
	if s.Keep != policy.DefaultSnapshots || s.MaxAgeDays != policy.DefaultSnapshotDays {
		t.Errorf("%+v", s)
	}
	// The design's: on by default (F6), at least one place and one failure of a site, an hour, two minutes, in and back.
	if r.Budget.MaxPerSite != 1 || r.Budget.Rollback || r.Strict || r.FromStarted || r.BySite || !r.Batch.IsZero() || r.ProgressDeadline != time.Hour ||
		!p.Rollback.Enabled || p.Rollback.HealthTimeoutSeconds != 120 || p.Bundle.Name != "default" || p.Downgrade || p.Suspend {
		t.Errorf("%+v %+v", p, r)
	}
}
