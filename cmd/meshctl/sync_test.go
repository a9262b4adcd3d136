package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Why a commit is not in force is said once, with its code.
func TestSyncProblem(t *testing.T) {
	err := problem.New(problem.BundleRevoked, "bundle app 1.0 was revoked")
	var b bytes.Buffer
	printSync(&b, api.SyncState{Repository: "file:///repo", Branch: "main", Problem: err.Error(), Code: string(problem.BundleRevoked), Refused: "3f9c1ab", Failures: 1}, time.Now())
	if !strings.Contains(b.String(), "! E2113: bundle app 1.0 was revoked\n") {
		t.Error(b.String())
	}
}
