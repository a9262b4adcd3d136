package main

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/node"
)

const configFile = "/etc/meshd/meshd.yaml"

// settings are the flags that say where and as what a node runs.
type settings struct {
	file          string
	state         string
	socket        string
	listenPeer    string
	listenGossip  string
	static        []string
	networks      []string
	noMDNS        bool
	quota         int64
	installer     string
	installConfig string
	handoff       string
	noInstall     bool
	memory        int64
	priority      string
	leaveTimeout  time.Duration
}

func (s *settings) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.file, "config", "", "configuration file (default "+configFile+" if it exists)")
	f.StringVar(&s.state, "state", "", "state directory")
	f.StringVar(&s.listenPeer, "listen-peer", "", "host:port of the chunk exchange; port 0: any")
	f.StringVar(&s.listenGossip, "listen-gossip", "", "host:port of gossip; port 0: any")
}

func (s *settings) addRunFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.socket, "socket", "", "path of the local socket")
	f.StringSliceVar(&s.static, "static", nil, "host:port of neighbours' gossip, beside what roster and memory know")
	f.StringSliceVar(&s.networks, "network", nil, "CIDR of the site's network (default: that of the listening address)")
	f.BoolVar(&s.noMDNS, "no-mdns", false, "do not look for neighbours by multicast")
	f.Int64Var(&s.quota, "quota", 0, "bytes the chunk store may use; 0: half of its file system")
	f.Int64Var(&s.memory, "memory", 0, "bytes of memory that the daemon may use; -1: no limit (default 67108864)")
	f.StringVar(&s.priority, "priority", "", "background (give way to every other program) or normal (default background)")
	f.DurationVar(&s.leaveTimeout, "leave-timeout", 0, "how long to stay, when stopped, while neighbours want what only this node has (default 30s; -1s: not at all)")
	f.StringVar(&s.installer, "installer", "", "the mesh-install program, with the rights it needs")
	f.StringVar(&s.installConfig, "install-config", "", "its configuration file")
	f.StringVar(&s.handoff, "handoff", "", "state directory of a mesh-install that the service manager starts, instead of --installer")
	f.BoolVar(&s.noInstall, "no-install", false, "stage bundles and do not install them")
}

// load reads the file and lets the flags win.
func (s *settings) load() (node.Config, error) {
	cfg := node.DefaultConfig()
	name := s.file
	if name == "" {
		name = configFile
	}
	f, err := os.Open(name)
	switch {
	case err == nil:
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, node.MaxConfigBytes+1))
		if err != nil {
			return cfg, problem.New(problem.InvalidFile, "%s cannot be read", name).Because(err)
		}
		if cfg, err = node.ParseConfig(b); err != nil {
			return cfg, err
		}
	case s.file != "" || !errors.Is(err, os.ErrNotExist):
		return cfg, problem.New(problem.InvalidFile, "%s cannot be read", name).Because(err)
	}
	set := func(to *string, v string) {
		if v != "" {
			*to = v
		}
	}
	set(&cfg.State, s.state)
	set(&cfg.Socket, s.socket)
	set(&cfg.ListenPeer, s.listenPeer)
	set(&cfg.ListenGossip, s.listenGossip)
	if len(s.static) > 0 {
		cfg.Static = s.static
	}
	if len(s.networks) > 0 {
		cfg.Networks = s.networks
	}
	if s.noMDNS {
		cfg.MDNS = false
	}
	if s.quota != 0 {
		cfg.QuotaBytes = s.quota
	}
	if s.memory != 0 {
		cfg.MemoryBytes = max(0, s.memory)
	}
	set(&cfg.Priority, s.priority)
	if s.leaveTimeout != 0 {
		cfg.LeaveTimeout = max(0, s.leaveTimeout)
	}
	if s.installer != "" {
		cfg.Installer = []string{s.installer}
	}
	set(&cfg.InstallConfig, s.installConfig)
	set(&cfg.Handoff, s.handoff)
	if s.noInstall {
		cfg.Installer, cfg.Handoff = nil, ""
	}
	return cfg, cfg.Validate()
}
