package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// Config is meshd.yaml. Flags of meshd win over it.
type Config struct {
	State  string `yaml:"state"`  // directory, see the package documentation
	Socket string `yaml:"socket"` // local API; members of its directory's group may use it

	ListenPeer   string   `yaml:"listenPeer"`   // host:port of the chunk exchange (TCP)
	ListenGossip string   `yaml:"listenGossip"` // host:port of gossip (TCP and UDP)
	Static       []string `yaml:"static"`       // host:port of neighbours' gossip, beside what roster and memory know
	Networks     []string `yaml:"networks"`     // CIDRs of the site; empty: the networks of the listening address
	MDNS         bool     `yaml:"mdns"`         // look for neighbours by multicast, as a hint

	QuotaBytes int64 `yaml:"quotaBytes"` // of the chunk store; 0: half of its file system
	FreeBytes  int64 `yaml:"freeBytes"`  // of that file system stay free; 0: a twentieth of it, at most 1 GiB

	// Installer is the command that starts mesh-install with the rights it needs; "apply --json --request FILE"
	// is appended. Empty: bundles are staged and not installed.
	Installer     []string `yaml:"installer"`
	InstallConfig string   `yaml:"installConfig"` // its configuration file; empty: its default
	// Handoff is the state directory of an executor that the service manager starts when STATE/request.json changes. Its
	// answers are found there. With it Installer is not used.
	Handoff string `yaml:"handoff"`

	Facts *manifest.Facts `yaml:"facts"` // instead of os-release and the program's architecture

	// LeaveTimeout is how long the node may stay, when it is asked to end, while a neighbour wants chunks that it alone
	// holds; 0: not at all. "meshd leave" brings its own.
	LeaveTimeout time.Duration `yaml:"leaveTimeout"`

	// MemoryBytes is what the daemon may use of the machine's memory, its program included; see LimitMemory. 0: no limit.
	MemoryBytes int64 `yaml:"memoryBytes"`
	// Priority is background or normal: background gives way to every other program, for the processor and for the disk.
	Priority string `yaml:"priority"`

	// Now is the clock; nil is time.Now. It decides nothing about trust, see trust.Floor.
	Now func() time.Time `yaml:"-"`
	// Space is the file system of the chunk store; nil asks the kernel.
	Space func() (Space, error) `yaml:"-"`

	off      map[status.StrikeKind]bool // defences that a test has switched off, to see what they are for
	trusting bool                       // another of them: the node has no quarantine
}

// DefaultConfig is the file as it is shipped.
func DefaultConfig() Config {
	return Config{
		State:        "/var/lib/meshd",
		Socket:       "/run/meshd/meshd.sock",
		ListenPeer:   "0.0.0.0:7680", // the port Delivery Optimization made known to firewalls
		ListenGossip: "0.0.0.0:7946", // memberlist's usual one
		MDNS:         true,
		LeaveTimeout: 30 * time.Second,
		MemoryBytes:  DefaultMemoryBytes,
		Priority:     PriorityBackground,
		Installer:    []string{"mesh-install"},
	}
}

// MaxConfigBytes bounds the file.
const MaxConfigBytes = 64 << 10

// ParseConfig reads the file strictly: a field that is not known is an error, a field left out has its default.
func ParseConfig(b []byte) (Config, error) {
	c := DefaultConfig()
	if len(b) > MaxConfigBytes {
		return c, problem.New(problem.InvalidFile, "the configuration has %d bytes: at most %d", len(b), MaxConfigBytes)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, problem.New(problem.InvalidFile, "the configuration cannot be read").Because(err)
	}
	return c, nil
}

// Validate names everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	bad := func(f string, a ...any) { errs = append(errs, fmt.Errorf(f, a...)) }
	if !filepath.IsAbs(c.State) {
		bad("state: %q is not an absolute path", c.State)
	}
	for field, v := range map[string]string{"listenPeer": c.ListenPeer, "listenGossip": c.ListenGossip} {
		if _, err := netip.ParseAddrPort(v); err != nil {
			bad("%s: %w", field, err)
		}
	}
	for _, s := range c.Static {
		if _, err := netip.ParseAddrPort(s); err != nil {
			bad("static: %w", err)
		}
	}
	for _, s := range c.Networks {
		if _, err := netip.ParsePrefix(s); err != nil {
			bad("networks: %w", err)
		}
	}
	if c.Handoff != "" && !filepath.IsAbs(c.Handoff) {
		bad("handoff: %q is not an absolute path", c.Handoff)
	}
	if c.LeaveTimeout < 0 {
		bad("leaveTimeout: %v is negative", c.LeaveTimeout)
	}
	if c.MemoryBytes != 0 && c.MemoryBytes < leastMemoryBytes {
		bad("memoryBytes: %d is less than %d", c.MemoryBytes, leastMemoryBytes)
	}
	if c.Priority != "" && c.Priority != PriorityBackground && c.Priority != PriorityNormal {
		bad("priority: %q is neither %s nor %s", c.Priority, PriorityBackground, PriorityNormal)
	}
	if c.FreeBytes < 0 {
		bad("freeBytes: %d is negative", c.FreeBytes)
	}
	if c.QuotaBytes < 0 {
		bad("quotaBytes: %d is negative", c.QuotaBytes)
	}
	if err := errors.Join(errs...); err != nil {
		return problem.New(problem.InvalidFile, "the configuration is not valid").Because(err)
	}
	return nil
}

func (c Config) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}
