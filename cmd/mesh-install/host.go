package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/health"
	"github.com/patchmesh/patchmesh/install/preflight"
	"github.com/patchmesh/patchmesh/install/tool"
)

// rebootTime bounds the command that starts the machine again, which only has to ask for it.
const rebootTime = time.Minute

// host is what the parent does for its worker.
type host struct {
	health.Runner
	hooks  preflight.Hooks
	reboot []string
	log    *slog.Logger
}

func newHost(c install.Config, log *slog.Logger) host {
	return host{
		Runner: health.Runner{Command: c.Health.Command},
		hooks:  preflight.Hooks{Dir: c.Hooks, Runner: tool.Runner{ID: "mesh-hooks"}},
		reboot: c.Reboot.Command, log: log,
	}
}

// Hooks asks the hooks, or tells them.
func (h host) Hooks(ctx context.Context, c preflight.Call) (*preflight.Deferral, error) {
	if c.Phase == preflight.BeforeInstall {
		return h.hooks.Ask(ctx, c.Bundle, c.Version)
	}
	for _, note := range h.hooks.Tell(ctx, c) {
		h.log.Warn("hooks", "note", note)
	}
	return nil, nil
}

// Reboot runs the command of the configuration.
func (h host) Reboot(ctx context.Context) error {
	r := tool.Runner{ID: "mesh-reboot", Max: rebootTime}
	res, err := r.Run(ctx, tool.Command{Path: h.reboot[0], Args: h.reboot[1:]})
	if err == nil && res.Exit != 0 {
		err = fmt.Errorf("%s ended with status %d: %s", h.reboot[0], res.Exit, strings.TrimSpace(string(res.Both)))
	}
	return err
}
