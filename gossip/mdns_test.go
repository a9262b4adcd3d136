package gossip

import (
	"bufio"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// mdnsEnv makes the test binary a node with multicast DNS and no seeds. It prints whom it sees, once it does.
const mdnsEnv = "PATCHMESH_MDNS_NODE"

func TestMain(m *testing.M) {
	if arg := os.Getenv(mdnsEnv); arg != "" {
		mdnsNode(arg)
		return
	}
	// A probe of memberlist's outlives Shutdown until its own timer, up to eight seconds on a busy machine.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

func mdnsNode(arg string) {
	i, err := strconv.Atoi(arg)
	if err != nil {
		panic(err)
	}
	t := new(testing.T)
	m := newMember(i, 1, 2).start(t, nil, func(c *Config) {
		c.BindAddr, c.CIDRs = ":0", []netip.Prefix{netip.MustParsePrefix("10.97.0.0/24")}
		c.MDNS, c.Logger = true, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.Timing = Timing{Discover: 5 * time.Second}
	})
	go func() {
		for len(m.sees()) == 0 {
			time.Sleep(20 * time.Millisecond)
		}
		fmt.Println(m.sees()[0])
	}()
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until the test closes stdin
	m.stop()
}

// netns makes two namespaces joined by a cable and returns how to run a program in each.
func netns(t *testing.T) [2]string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for network namespaces: run the tests as root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip: apt-get install iproute2")
	}
	var names [2]string
	for i := range names {
		names[i] = fmt.Sprintf("pmg%d-%d", os.Getpid(), i)
	}
	ip := func(args string) error {
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
		return nil
	}
	for _, n := range names {
		if err := ip("netns add " + n); err != nil {
			t.Skip("needs the right to make network namespaces: run as root with CAP_SYS_ADMIN")
		}
		t.Cleanup(func() { _ = ip("netns del " + n) })
	}
	if err := ip(fmt.Sprintf("link add e0 netns %s type veth peer name e0 netns %s", names[0], names[1])); err != nil {
		t.Skip("needs veth interfaces: a kernel with CONFIG_VETH")
	}
	for i, n := range names {
		for _, args := range []string{
			fmt.Sprintf("-n %s addr add 10.97.0.%d/24 dev e0", n, i+1), fmt.Sprintf("-n %s link set e0 up", n),
			fmt.Sprintf("-n %s link set lo up", n),
			fmt.Sprintf("-n %s route add 224.0.0.0/4 dev e0", n), // as a default route would
		} {
			if err := ip(args); err != nil {
				t.Fatal(err)
			}
		}
	}
	return names
}

// pair runs a node in each namespace.
func pair(t *testing.T, names [2]string) (out [2]*bufio.Scanner, end func()) {
	t.Helper()
	var stops [2]func()
	for i, n := range names {
		cmd := exec.Command("ip", "netns", "exec", n, os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", mdnsEnv, i))
		var log lines
		cmd.Stderr = &log
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out[i] = bufio.NewScanner(stdout)
		stops[i] = func() {
			_ = in.Close()
			if err := cmd.Wait(); err != nil {
				t.Errorf("node %d: %v", i, err)
			}
			if log.count() > 60 {
				t.Errorf("node %d wrote %d log lines: %s", i, log.count(), log.String())
			}
			if t.Failed() {
				t.Log(log.String())
			}
		}
	}
	return out, func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// TestMDNS: two nodes that know no address find each other over a cable.
func TestMDNS(t *testing.T) {
	names := netns(t)
	out, end := pair(t, names)
	end = sync.OnceFunc(end)
	timeout := time.AfterFunc(40*time.Second, end) // ends the Scans below
	defer timeout.Stop()
	for i, o := range out {
		if !o.Scan() || o.Text() != nodeName(1-i) {
			t.Errorf("node %d found %q", i, o.Text())
		}
	}
	end()
}

// TestBeaconTellsNoNames: the tags depend on the key, the site and the node, and hold none of them.
func TestBeaconTellsNoNames(t *testing.T) {
	c := newMember(0, 1, 1).config()
	b := newBeacon(c, nodeAddr(0), nil, nil)
	if s := b.site + b.instance; strings.Contains(s, siteName) || strings.Contains(s, c.Node) {
		t.Errorf("beacon tells %q", s)
	}
	for name, change := range map[string]func(*Config){
		"site": func(c *Config) { c.Site = "store-0043" },
		"key":  func(c *Config) { c.Key = make([]byte, 32) },
	} {
		other := c
		change(&other)
		if newBeacon(other, nodeAddr(0), nil, nil).site == b.site {
			t.Errorf("another %s has the same tag", name)
		}
	}
	other := c
	other.Node = nodeName(1)
	if o := newBeacon(other, nodeAddr(1), nil, nil); o.site != b.site || o.instance == b.instance {
		t.Error("a node of the same site must have the same site tag and its own instance")
	}
}
