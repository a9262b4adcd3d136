package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// Rate is in bits per second.
type Rate int64

// Units of Rate.
const (
	Kbit Rate = 1e3
	Mbit Rate = 1e6
	Gbit Rate = 1e9
)

// Bytes is how many bytes pass in d.
func (r Rate) Bytes(d time.Duration) int64 { return int64(float64(r) / 8 * d.Seconds()) }

// Config says what to build. The zero value is one site with one node behind a link without limits.
type Config struct {
	Name  string        // of the bed; empty: one that no other bed has
	Sites int           // default 1, at most 50
	Nodes int           // of each site, default 1, at most 200
	WAN   Rate          // of each site's link, both ways; 0: no limit
	RTT   time.Duration // of the WAN
	Queue time.Duration // how much the WAN's drop-tail queue holds, as time at its rate; default 50 ms
	Loss  float64       // share of the packets that the WAN loses each way, 0 to 1
	LAN   Rate          // of each node's port, both ways; 0: no limit
	Seed  uint64        // of the losses
}

func (c *Config) fill() error {
	if c.Sites == 0 {
		c.Sites = 1
	}
	if c.Nodes == 0 {
		c.Nodes = 1
	}
	if c.Queue == 0 {
		c.Queue = 50 * time.Millisecond
	}
	if c.Sites < 0 || c.Sites > 50 || c.Nodes < 0 || c.Nodes > 200 || c.Loss < 0 || c.Loss > 1 || c.WAN < 0 || c.LAN < 0 || c.RTT < 0 || c.Queue < 0 {
		return fmt.Errorf("bed %+v: a number is out of range", *c)
	}
	return nil
}

// Bed is a network that is up. Down ends it.
type Bed struct {
	cfg    Config
	guard  *guard
	relays []*relay // of each site
	tasks  sync.WaitGroup
	once   sync.Once
	down   error
}

// New brings a bed up for a test and takes it down after it. Without the rights and tools it needs it skips the test.
func New(t testing.TB, cfg Config) *Bed {
	t.Helper()
	if missing := Missing(); missing != "" {
		t.Skip("needs " + missing)
	}
	b, err := Up(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Down(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// Missing names the first thing this machine lacks for a bed and how to get it; empty: nothing.
func Missing() string {
	if os.Geteuid() != 0 {
		return "root: run the tests as root"
	}
	for _, tool := range [][2]string{{"ip", "iproute2"}, {"tc", "iproute2"}, {"nft", "nftables"}} {
		if _, err := exec.LookPath(tool[0]); err != nil {
			return fmt.Sprintf("%s: apt-get install %s", tool[0], tool[1])
		}
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return "/dev/net/tun: modprobe tun"
	}
	if err := mayMakeNamespaces(); err != nil {
		return fmt.Sprintf("the right to make network namespaces: run the tests as root with CAP_SYS_ADMIN (%v)", err)
	}
	return ""
}

// Up builds a bed. Beds of tests that no longer live are removed first. It fails if a bed of this name is up.
func Up(cfg Config) (*Bed, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	g, err := watch(cfg.Name)
	if err != nil {
		return nil, err
	}
	b := &Bed{cfg: cfg, guard: g}
	if err := b.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("bed %s: %w", g.name, err), b.Down())
	}
	return b, nil
}

// Down kills what runs in the bed's hosts and removes every trace of it. It may be called again.
func (b *Bed) Down() error {
	b.once.Do(func() {
		for _, r := range b.relays {
			r.stop()
		}
		b.tasks.Wait()
		b.down = b.guard.end()
	})
	return b.down
}

// Name of the bed.
func (b *Bed) Name() string { return b.guard.name }

// Hosts are "dc", "dc2" beside it, "dc-r", and for each site S "siteS-r", "siteS-bystander" and "siteS-nodeN", counted from 1.
const (
	DC       = "dc"
	DC2      = "dc2"
	dcRouter = "dc-r"
)

// Bystander names a host of site s that has nothing to do with the nodes and shares their WAN.
func Bystander(s int) string { return fmt.Sprintf("site%d-bystander", s) }

// Node names a host: node n of site s, both counted from 1.
func Node(s, n int) string { return fmt.Sprintf("site%d-node%d", s, n) }

func router(s int) string { return fmt.Sprintf("site%d-r", s) }

// Addresses of the hosts [DC] and [DC2].
const (
	DCAddr  = "10.200.0.1"
	DC2Addr = "10.200.0.2"
)

// BystanderAddr is the address of the host [Bystander].
func BystanderAddr(s int) string { return fmt.Sprintf("10.%d.0.250", 10+s) }

// NodeAddr is the address of node n of site s.
func NodeAddr(s, n int) string { return fmt.Sprintf("10.%d.0.%d", 10+s, 10+n) }

// SiteNet is the network of site s.
func SiteNet(s int) string { return fmt.Sprintf("10.%d.0.0/24", 10+s) }

func routerAddr(s int) string { return fmt.Sprintf("10.%d.0.1", 10+s) }
func wanAddrs(s int) (a, b string) {
	return fmt.Sprintf("10.201.%d.1", s), fmt.Sprintf("10.201.%d.2", s)
}
func wanPort(s int) string { return fmt.Sprintf("wan%d", s) } // on dc-r
func lanPort(n int) string { return fmt.Sprintf("n%d", n) }   // on the site's router

// command runs a tool to its end.
func command(name string, args ...string) ([]byte, error) { return feed("", name, args...) }

func feed(stdin, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
