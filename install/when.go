package install

import (
	"reflect"

	"github.com/patchmesh/patchmesh/internal/policy"
)

// mayStart says whether the policy's schedule lets an install start now.
func (s *session) mayStart(sc policy.Schedule) error {
	if reflect.ValueOf(sc).IsZero() {
		return nil
	}
	return nil
}
