package preflight

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// PowerDir is where the kernel says what feeds the machine, see Documentation/ABI/testing/sysfs-class-power.
const PowerDir = "/sys/class/power_supply"

// Power is what feeds the machine.
type Power struct {
	OnBattery bool
	Percent   int // of all its batteries together; only with OnBattery
}

// LookPower reads a directory of power supplies. A machine without a battery of its own is not on battery: what hangs
// on a UPS is for a hook to know. Batteries of mice and the like do not count. A battery that does not say how full it
// is, is empty.
func LookPower(dir string) (Power, error) {
	es, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Power{}, nil
	}
	if err != nil {
		return Power{}, err
	}
	var plug, fed, draining bool
	var percent, batteries int
	for _, e := range es {
		value := func(name string) string { return attribute(filepath.Join(dir, e.Name(), name)) }
		switch kind := value("type"); kind {
		case "Mains", "USB", "Wireless":
			plug = plug || kind == "Mains"                                // USB ports that could feed the machine are there with nothing in them
			fed = fed || value("online") == "1" || value("online") == "2" // 2: at a voltage of several
		case "Battery":
			if value("scope") == "Device" || value("present") == "0" {
				continue
			}
			n, err := strconv.Atoi(value("capacity"))
			if err != nil || n < 0 {
				n = 0
			}
			batteries, percent = batteries+1, percent+min(n, 100)
			draining = draining || value("status") == "Discharging"
		}
	}
	if fed || batteries == 0 || !plug && !draining { // the last: fed by what is no supply of its own, as a dock
		return Power{}, nil
	}
	return Power{OnBattery: true, Percent: percent / batteries}, nil
}

// attribute reads one value of sysfs; empty when it is not there.
func attribute(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
