package node

import (
	"os"
	"strings"
)

// bootID identifies the present run of the machine, see random(4); "" when it is not known.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// rebooted forgets that the machine has to be started again, when it has been since that was said.
func (r *record) rebooted(boot string) {
	if boot == "" || boot == r.Boot {
		return
	}
	if r.Boot != "" {
		for _, l := range r.Lives {
			l.Reboot = ""
		}
	}
	r.Boot = boot
}
