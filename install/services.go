package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
)

// Where systemd runs, the scripts of a package ask it over its socket to start a service, and it does so outside of the
// executor's namespace. Where none runs, invoke-rc.d would run the script in /etc/init.d itself, and the service would
// live on without a network. So there it is told not to: see invoke-rc.d(8) and its policy-rc.d.
const (
	policyFile = "usr/sbin/policy-rc.d"
	invokeFile = "usr/sbin/invoke-rc.d"
	policyText = "#!/bin/sh\n# Put here by mesh-install for the time of one transaction.\nexit 101\n"
	deniedText = "policy-rc.d denied execution"
)

// denyServices has scripts start no service where nobody but themselves could, until lift is called. What the machine
// has of its own stays.
func denyServices(machine string, format manifest.Format) (lift func() error, err error) {
	nothing := func() error { return nil }
	if format != manifest.FormatDeb || exists(filepath.Join(machine, "run/systemd/system")) || !exists(filepath.Join(machine, invokeFile)) {
		return nothing, nil
	}
	name := filepath.Join(machine, policyFile)
	b, err := os.ReadFile(name)
	switch {
	case err == nil && string(b) != policyText:
		return nothing, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nothing, err
	}
	if err := durable.WriteFile(name, []byte(policyText), 0o755); err != nil {
		return nothing, err
	}
	return func() error { return durable.Remove(name) }, nil
}

// rereadUnits has the machine's systemd read its units again after files were put back: in its memory are still those that
// were taken back, and a restart would start these. What runs goes on running.
func rereadUnits(ctx context.Context, machine, id string) error {
	if machine != "/" || !exists("/run/systemd/system") {
		return nil
	}
	res, err := tool.Runner{ID: id, Max: time.Minute}.Run(ctx, tool.Command{Path: "systemctl", Args: []string{"daemon-reload"}})
	if err == nil && res.Exit != 0 {
		err = fmt.Errorf("systemctl daemon-reload ended with status %d", res.Exit)
	}
	return err
}

// denied reports whether a script was told not to start a service.
func denied(log *transcript) bool { return log.has(deniedText) }

func exists(name string) bool { _, err := os.Stat(name); return err == nil }
