package installtest

import (
	"context"

	"github.com/patchmesh/patchmesh/install/health"
	"github.com/patchmesh/patchmesh/install/preflight"
)

// Host stands outside of the executor: whether the machine is well, what its hooks say, and what comes of asking for a
// start. What is not set says yes.
type Host struct {
	Well  func(context.Context, health.Check) error
	Hook  func(preflight.Call) *preflight.Deferral
	Start func() error
}

// Probe asks Well.
func (h Host) Probe(ctx context.Context, c health.Check) error {
	if h.Well == nil {
		return nil
	}
	return h.Well(ctx, c)
}

// Hooks asks Hook.
func (h Host) Hooks(_ context.Context, c preflight.Call) (*preflight.Deferral, error) {
	if h.Hook == nil {
		return nil, nil
	}
	return h.Hook(c), nil
}

// Reboot asks Start.
func (h Host) Reboot(context.Context) error {
	if h.Start == nil {
		return nil
	}
	return h.Start()
}
