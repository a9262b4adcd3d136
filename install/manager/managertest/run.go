package managertest

import "testing"

// Run holds a back end to every case.
func Run(t *testing.T, bed Bed) {
	t.Helper()
	bed.Needs(t)
}
