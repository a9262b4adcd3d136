package apt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/patchmesh/patchmesh/internal/packages"
)

// needReboot are packages whose new version runs only after a start: the kernel, what every process is linked with,
// process 1, and the bus, which must not be restarted under a session. An entry that ends in "-" is a prefix.
func needReboot() []string {
	return []string{"linux-image-", "libc6", "systemd", "dbus", "dbus-broker", "intel-microcode", "amd64-microcode"}
}

// Reboot looks for the mark that Debian's packages leave for this purpose, and at what was changed.
func (m *Manager) Reboot(_ context.Context, done []packages.Change) ([]string, error) {
	var why []string
	if _, err := os.Stat(m.path("run/reboot-required")); err == nil {
		why = append(why, "/run/reboot-required is there"+m.askedBy())
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reboot mark: %w", err)
	}
	for _, c := range done {
		if c.To != "" && forReboot(c.Name) {
			why = append(why, c.Name+" "+c.To)
		}
	}
	return why, nil
}

// askedBy names the packages that left the mark, where they said so.
func (m *Manager) askedBy() string {
	b, err := readFile(m.path("run/reboot-required.pkgs"), 64<<10)
	names := strings.Fields(string(b))
	if err != nil || len(names) == 0 {
		return ""
	}
	return ", for " + strings.Join(names, ", ")
}

func forReboot(name string) bool {
	for _, n := range needReboot() {
		if name == n || strings.HasSuffix(n, "-") && strings.HasPrefix(name, n) {
			return true
		}
	}
	return false
}
