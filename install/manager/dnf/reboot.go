package dnf

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/packages"
)

// needReboot are the packages after which the running system is not what is on the disk: those of the needs-restarting
// plugin of dnf (NEED_REBOOT in plugins/needs_restarting.py of dnf-plugins-core, after
// https://access.redhat.com/solutions/27943), and the parts into which distributions cut them, and OpenSSL, which
// everything that was started before keeps using.
var needReboot = []string{"kernel", "kernel-core", "kernel-rt", "kernel-rt-core", "kernel-modules", "kernel-modules-core", "glibc", "linux-firmware", "systemd",
	"systemd-libs", "dbus", "dbus-broker", "dbus-daemon", "dbus-libs", "microcode_ctl", "openssl-libs"}

// Reboot knows the list of dnf's own plugin and what the machine's owner added to it.
func (m *Manager) Reboot(_ context.Context, done []packages.Change) ([]string, error) {
	names := slices.Clone(needReboot)
	files, err := filepath.Glob(m.path("etc/dnf/plugins/needs-restarting.d/*.conf"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		b, err := readAtMost(f, maxRules)
		if err != nil {
			return nil, err
		}
		names = append(names, strings.Fields(string(b))...)
	}
	var why []string
	for _, c := range done {
		if c.To != "" && slices.Contains(names, c.Name) {
			why = append(why, fmt.Sprintf("%s %s", c.Name, c.To))
		}
	}
	return why, nil
}
