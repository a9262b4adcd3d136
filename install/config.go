package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/patchmesh/patchmesh/install/health"
	"github.com/patchmesh/patchmesh/install/preflight"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Config is the file /etc/meshd/mesh-install.yaml. It belongs to root: it says where to write, whom to trust and
// which command to run.
type Config struct {
	Root         string            `yaml:"root"`         // NAME/releases/… and NAME/current live here
	State        string            `yaml:"state"`        // lock, installed.json, journal.json, evidence/
	Trust        string            `yaml:"trust"`        // trust.json: the keys that this machine pins
	Keep         int               `yaml:"keep"`         // releases kept for going back, beside the one in force
	ReserveBytes int64             `yaml:"reserveBytes"` // stay free on the file system of Root
	Health       HealthConfig      `yaml:"health"`
	Machine      string            `yaml:"machine"`  // root of the machine whose packages are installed
	Timezone     string            `yaml:"timezone"` // of the site, an IANA name: what "site" means in a policy's schedule; empty: by the site's roster
	Hooks        string            `yaml:"hooks"`    // directory of the programs that have a say, see preflight.Hooks
	Reboot       RebootConfig      `yaml:"reboot"`
	Snapshot     SnapshotConfig    `yaml:"snapshot"`
	Packages     PackagesConfig    `yaml:"packages"`
	Isolation    string            `yaml:"isolation"` // auto: run without a namespace if the kernel refuses; required: do not
	Facts        *manifest.Facts   `yaml:"facts"`     // instead of os-release and the program's architecture
	Labels       map[string]string `yaml:"labels"`    // if set, a policy or an order that does not select them is refused
	Site         string            `yaml:"site"`      // if set, an order or a grant that is not for this site is refused
	Node         string            `yaml:"node"`      // if set, an order or a grant that names other nodes is refused
}

// HealthConfig is the local health command. It must end with status 0 for a release to stay.
type HealthConfig struct {
	Command        []string `yaml:"command"`        // absolute path and arguments; no shell
	TimeoutSeconds int      `yaml:"timeoutSeconds"` // when the policy brings no health check of its own
}

// RebootConfig says how the machine is started again, when a policy allows it.
type RebootConfig struct {
	Command []string `yaml:"command"` // absolute path and arguments; no shell
}

// SnapshotConfig says what of the machine is not kept before a transaction, and so not put back after one that failed.
type SnapshotConfig struct {
	Exclude []string `yaml:"exclude"` // absolute paths as the machine sees them, beside DefaultExclude
}

// PackagesConfig bounds transactions of packages.
type PackagesConfig struct {
	TimeoutMinutes int `yaml:"timeoutMinutes"` // of one run of the package manager, which is killed then and taken back
	BatteryPercent int `yaml:"batteryPercent"` // on battery: charge below which nothing is begun
}

// DefaultExclude is what changes on a machine for other reasons than packages: what people and applications keep there,
// logs, and what does not outlive the run of a machine. A package's own state, below /var/lib and /var/cache, is kept.
func DefaultExclude() []string {
	return []string{
		"/dev", "/proc", "/run", "/sys", "/tmp", "/var/tmp", "/home", "/root", "/srv", "/media", "/mnt", "/var/log", "/var/mail", "/var/spool",
		"/var/cache/apt", "/var/cache/dnf", "/var/lib/apt/lists", "/var/lib/meshd", "/var/www", "/var/crash",
		// Servers that work go on working while files are put back: theirs must not be.
		"/var/lib/mysql", "/var/lib/mariadb", "/var/lib/postgresql", "/var/lib/pgsql", "/var/opt/mssql", "/var/lib/mongodb", "/var/lib/mongo",
		"/var/lib/redis", "/var/lib/valkey", "/var/lib/influxdb", "/var/lib/elasticsearch", "/var/lib/opensearch", "/var/lib/clickhouse",
		"/var/lib/cassandra", "/var/lib/couchdb", "/var/lib/etcd", "/var/lib/rabbitmq", "/var/lib/mosquitto", "/var/lib/grafana", "/var/lib/prometheus",
		"/var/lib/ldap", "/var/lib/dirsrv", "/var/lib/samba", "/var/lib/sss/db",
		"/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet", "/var/lib/rancher", "/var/lib/libvirt",
		"/var/lib/machines", "/var/lib/lxc", "/var/lib/NetworkManager", "/var/lib/dhcp", "/var/lib/dhclient",
		// Not all of it: which units packages have enabled stands in deb-systemd-helper-enabled.
		"/var/lib/systemd/backlight", "/var/lib/systemd/coredump", "/var/lib/systemd/linger", "/var/lib/systemd/pstore", "/var/lib/systemd/random-seed",
		"/var/lib/systemd/rfkill", "/var/lib/systemd/timers", "/var/lib/systemd/timesync",
	}
}

// Values of Config.Isolation.
const (
	IsolationAuto     = "auto"
	IsolationRequired = "required"
)

// DefaultConfig is the file as it is shipped.
func DefaultConfig() Config {
	return Config{
		Root:  "/opt/patchmesh",
		State: "/var/lib/mesh-install",
		Trust: "/etc/meshd/trust.json",
		Keep:  2, // a release and its predecessor both bad happens; three bad ones in a row is another problem
		// Enough for journal, ledger and the logs of whoever has to repair the machine.
		ReserveBytes: 64 << 20,
		Health:       HealthConfig{TimeoutSeconds: int(health.DefaultTimeout / time.Second)},
		Machine:      "/",
		Hooks:        preflight.HooksDir,
		Reboot:       RebootConfig{Command: []string{"/usr/bin/systemctl", "reboot"}},
		// Hundreds of packages on the slowest disk take less than an hour; a script that waits for an answer takes for ever.
		Packages:  PackagesConfig{TimeoutMinutes: 120, BatteryPercent: preflight.DefaultLimits().BatteryPercent},
		Isolation: IsolationAuto,
	}
}

const maxConfigBytes = 64 << 10

// ParseConfig reads the file strictly: a field that is not known is an error, a field left out has its default.
func ParseConfig(b []byte) (Config, error) {
	c := DefaultConfig()
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, problem.New(problem.InvalidFile, "the configuration cannot be read").Because(err)
	}
	if err := c.Validate(); err != nil {
		return Config{}, problem.New(problem.InvalidFile, "the configuration is not valid").Because(err)
	}
	return c, nil
}

// ReadConfig reads and checks the file, and that nobody else may write it.
func ReadConfig(name string) (Config, error) {
	b, err := readOwn(name, maxConfigBytes)
	if err != nil {
		return Config{}, problem.New(problem.InvalidFile, "the configuration cannot be read").Because(err)
	}
	return ParseConfig(b)
}

// Validate names everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	bad := func(f string, a ...any) { errs = append(errs, fmt.Errorf(f, a...)) }
	for field, p := range map[string]string{"root": c.Root, "state": c.State, "trust": c.Trust, "machine": c.Machine, "hooks": c.Hooks} {
		// apt and dnf read Root's path in their configuration, where a blank would end it.
		if !filepath.IsAbs(p) || filepath.Clean(p) != p || strings.ContainsAny(p, " \t\r\n%[]#\"'\\") {
			bad("%s: %q is not a clean absolute path without blanks", field, p)
		}
	}
	if c.Keep < 1 || c.Keep > 100 {
		bad("keep: %d: want 1 to 100", c.Keep)
	}
	if c.ReserveBytes < 0 {
		bad("reserveBytes: %d is negative", c.ReserveBytes)
	}
	if t := time.Duration(c.Health.TimeoutSeconds) * time.Second; t < time.Second || t > health.MaxTimeout {
		bad("health.timeoutSeconds: %d: want 1 to %d", c.Health.TimeoutSeconds, health.MaxTimeout/time.Second)
	}
	if len(c.Health.Command) > 0 && !filepath.IsAbs(c.Health.Command[0]) {
		bad("health.command: %q is not an absolute path", c.Health.Command[0])
	}
	for _, p := range c.Snapshot.Exclude {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" {
			bad("snapshot.exclude: %q is not a clean absolute path below /", p)
		}
	}
	if len(c.Reboot.Command) == 0 || !filepath.IsAbs(c.Reboot.Command[0]) {
		bad("reboot.command: want an absolute path and arguments")
	}
	if m := c.Packages.TimeoutMinutes; m < 1 || m > 24*60 {
		bad("packages.timeoutMinutes: %d: want 1 to %d", m, 24*60)
	}
	if p := c.Packages.BatteryPercent; p < 0 || p > 100 {
		bad("packages.batteryPercent: %d: want 0 to 100", p)
	}
	if c.Timezone != "" {
		if _, err := policy.LoadZone(c.Timezone); err != nil {
			bad("timezone: %w", err)
		}
	}
	if c.Isolation != IsolationAuto && c.Isolation != IsolationRequired {
		bad("isolation: %q is not auto or required", c.Isolation)
	}
	return errors.Join(errs...)
}

// readOwn reads a file that only root or this user may write.
func readOwn(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkOwner(name, fi); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return b, err
}

func checkOwner(name string, fi os.FileInfo) error {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || (st.Uid != 0 && int(st.Uid) != os.Geteuid()) {
		return fmt.Errorf("%s belongs to neither root nor this user", name)
	}
	if fi.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("%s may be written by anybody", name)
	}
	return nil
}

// ParseOSRelease reads ID and VERSION_ID from os-release(5).
func ParseOSRelease(b []byte) manifest.Facts {
	f := manifest.Facts{Arch: runtime.GOARCH}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		v = strings.Trim(v, `"'`)
		switch k {
		case "ID":
			f.OS = v
		case "VERSION_ID":
			f.Release = v
		}
	}
	return f
}

// facts are the machine's own, or what the configuration says instead.
func (c Config) facts() (manifest.Facts, error) {
	if c.Facts != nil {
		return *c.Facts, nil
	}
	b, err := os.ReadFile("/etc/os-release")
	if errors.Is(err, os.ErrNotExist) {
		b, err = os.ReadFile("/usr/lib/os-release")
	}
	if err != nil {
		return manifest.Facts{}, err
	}
	return ParseOSRelease(b), nil
}
