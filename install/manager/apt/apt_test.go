package apt_test

import (
	"testing"

	"github.com/patchmesh/patchmesh/install/manager/managertest"
)

func TestConformance(t *testing.T) { managertest.Run(t, managertest.Deb()) }
