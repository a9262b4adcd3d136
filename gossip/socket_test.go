package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

var loopbackNet = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}

// onLoopback runs a member on real sockets, on a port that the kernel chooses, with quick timing.
func onLoopback(t *testing.T, m *member, change func(*Config)) *member {
	t.Helper()
	m.start(t, nil, func(c *Config) {
		c.BindAddr, c.CIDRs = "127.0.0.1:0", loopbackNet
		c.Timing = Timing{Rejoin: 200 * time.Millisecond, Probe: 200 * time.Millisecond, Gossip: 20 * time.Millisecond, Leave: 200 * time.Millisecond}
		if change != nil {
			change(c)
		}
	})
	t.Cleanup(m.stop)
	return m
}

// soon polls for what happens on real sockets.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: did not happen", what)
		}
	}
}

// TestLoopback: real UDP and TCP, and the positive control of the test below.
func TestLoopback(t *testing.T) {
	a := onLoopback(t, newMember(0, 1, 2), nil)
	b := onLoopback(t, newMember(1, 1, 2, a.mesh.Addr().String()), nil)
	soon(t, "both see each other", func() bool { return len(a.sees()) == 1 && len(b.sees()) == 1 })
	for name, n := range a.mesh.Counters() {
		if strings.HasPrefix(name, "guard_") && name != "guard_passed" && n > 0 {
			t.Errorf("an honest peer's frames met %s %d times", name, n)
		}
	}
}

// TestStrangersDoNotMerge: a node with another site's label, one with another key, one with both, one that does
// not encrypt.
func TestStrangersDoNotMerge(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		count  string
	}{
		"another site":        {func(c *Config) { c.Site = "store-0043" }, "guard_label"},
		"another key":         {func(c *Config) { c.Key = bytes.Repeat([]byte{8}, 32) }, "guard_key"},
		"another site's node": {func(c *Config) { c.Site, c.Key = "store-0043", bytes.Repeat([]byte{8}, 32) }, "guard_label"},
	} {
		t.Run(name, func(t *testing.T) {
			a := onLoopback(t, newMember(0, 1, 2), nil)
			b := onLoopback(t, newMember(1, 9, 2, a.mesh.Addr().String()), c.change)
			soon(t, "refusals", func() bool {
				return a.mesh.Counters()[c.count] >= 3 && b.mesh.Counters()["joins_failed"] >= 3
			})
			ca := a.mesh.Counters()
			if ca["guard_passed"]+ca["rosters_heard"]+ca["rejected_unknown"] > 0 || len(a.mesh.Members()) > 0 || a.rosterVersion() != 1 {
				t.Errorf("something came through: %v", ca)
			}
			if cb := b.mesh.Counters(); cb["joins"] > 0 || len(b.mesh.Members()) > 0 {
				t.Errorf("the stranger joined: %v", cb)
			}
		})
	}
}

// TestOutsideTheNetworks: memberlist takes an empty list of networks for all of them; here it is an error, and so
// is an address outside. A peer whose address is outside is not heard.
func TestOutsideTheNetworks(t *testing.T) {
	base := newMember(0, 1, 2).config()
	base.BindAddr = "127.0.0.1:0"
	for name, change := range map[string]func(*Config){
		"none":          func(c *Config) { c.CIDRs = []netip.Prefix{} },
		"nil":           func(c *Config) { c.CIDRs = nil },
		"host bits set": func(c *Config) { c.CIDRs = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")} },
		"not ours":      func(c *Config) { c.CIDRs = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")} },
		"any, not ours": func(c *Config) {
			c.CIDRs, c.BindAddr = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, "0.0.0.0:0"
		},
		"no port":      func(c *Config) { c.CIDRs, c.BindAddr = loopbackNet, "127.0.0.1" },
		"short key":    func(c *Config) { c.CIDRs, c.Key = loopbackNet, c.Key[1:] },
		"no peer port": func(c *Config) { c.CIDRs, c.PeerPort = loopbackNet, 0 },
		"bad name":     func(c *Config) { c.CIDRs, c.Node = loopbackNet, "../x" },
		"no Roster":    func(c *Config) { c.CIDRs, c.Roster = loopbackNet, nil },
	} {
		c := base
		change(&c)
		if m, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
			_ = m.Close()
		}
	}

	c := base
	c.CIDRs, c.BindAddr = loopbackNet, ":0"
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if m.Addr().Addr() != loopbackNet[0].Addr() || m.Addr().Port() == 0 {
		t.Errorf("listens on %v", m.Addr())
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}

	a := onLoopback(t, newMember(0, 1, 2), nil)
	dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := dialer.Dial("udp", a.mesh.Addr().String())
	if err != nil {
		t.Skip("needs 127.0.0.2 on the loopback interface: run on Linux")
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{244}); err != nil {
		t.Fatal(err)
	}
	soon(t, "refusal by address", func() bool { return a.mesh.Counters()["guard_source"] == 1 })
}

// TestFlood: bad packets are counted, not logged; a second node still joins during the flood.
func TestFlood(t *testing.T) {
	var log lines
	a := onLoopback(t, newMember(0, 1, 2), func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	conn, err := net.Dial("udp", a.mesh.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	bad := append([]byte{244, byte(len(siteName))}, siteName+"\x01 this is not sealed with the site's key at all"...)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = conn.Write(bad)
			}
		}
	}()
	soon(t, "flood", func() bool { return a.mesh.Counters()["guard_key"] > 1000 })
	b := onLoopback(t, newMember(1, 1, 2, a.mesh.Addr().String()), nil)
	soon(t, "a node joins", func() bool { return len(b.sees()) == 1 })
	close(stop)
	<-stopped
	if got := log.count(); got > 30 {
		t.Errorf("%d log lines for %d bad packets", got, a.mesh.Counters()["guard_key"])
	}
}

// TestBridge: the level is one lower than the library's, and a flood becomes a burst.
func TestBridge(t *testing.T) {
	var log lines
	b, logger := newBridge(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo})), "memberlist")
	logger.Printf("[DEBUG] memberlist: not wanted")
	logger.Printf("[INFO] memberlist: not wanted")
	logger.Printf("[WARN] memberlist: a warning")
	if got := log.String(); strings.Contains(got, "not wanted") || !strings.Contains(got, "level=INFO") || !strings.Contains(got, "memberlist: a warning") {
		t.Errorf("logged %q", got)
	}
	for i := range 1000 {
		logger.Printf("[ERR] memberlist: bad packet %d", i)
	}
	if got := log.count(); got > linesBurst+2 || uint64(got)+b.suppressed.Load() != 1001 {
		t.Errorf("%d lines, %d suppressed", got, b.suppressed.Load())
	}
	if !strings.Contains(log.String(), "level=WARN") {
		t.Error(log.String())
	}
}

// lines is a log in memory.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }
func (l *lines) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }
func (l *lines) count() int                  { return strings.Count(l.String(), "\n") }

// TestManyOnLoopback: a whole site of real sockets that starts at once, as in the demo.
func TestManyOnLoopback(t *testing.T) {
	const n = 8
	first := onLoopback(t, newMember(0, 1, n), nil)
	all := []*member{first}
	for i := 1; i < n; i++ {
		all = append(all, onLoopback(t, newMember(i, 1, n, first.mesh.Addr().String()), nil))
	}
	soon(t, fmt.Sprintf("%d nodes see each other", n), func() bool {
		for _, m := range all {
			if len(m.sees()) != n-1 {
				return false
			}
		}
		return true
	})
}
