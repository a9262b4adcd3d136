package guard

import (
	"errors"
	"io"
	"log" //nolint:depguard // memberlist takes nothing else
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func newInner(t testing.TB) *memberlist.NetTransport {
	t.Helper()
	inner, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{"127.0.0.1"}, Logger: log.New(io.Discard, "", 0)})
	if err != nil {
		t.Fatal(err)
	}
	return inner
}

func newGuard(t testing.TB, change func(*Config)) (*Transport, string) {
	t.Helper()
	inner := newInner(t)
	c := testConfig()
	if change != nil {
		change(&c)
	}
	g, err := New(inner, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Shutdown() })
	return g, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(inner.GetAutoBindPort())).String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// closedByPeer waits until the other side closes.
func closedByPeer(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Fatalf("read %d bytes, %v", n, err)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("still open")
	}
}

// TestSlots: streams that say nothing fill their address's slots and no more, are closed when their time is up,
// and then the slots are free.
func TestSlots(t *testing.T) {
	g, addr := newGuard(t, func(c *Config) { c.Timeout = 300 * time.Millisecond })
	var silent []net.Conn
	for range 4 {
		silent = append(silent, dial(t, addr))
	}
	for range 3 {
		closedByPeer(t, dial(t, addr))
	}
	for _, c := range silent {
		closedByPeer(t, c)
	}
	if got := g.Count(Busy); got != 3 {
		t.Errorf("%d streams refused, want 3", got)
	}
	if got := g.Count(Slow); got != 4 {
		t.Errorf("%d streams ran out of time, want 4", got)
	}
	c := dial(t, addr)
	if _, err := c.Write(requestOf(1, encode(msgPushPull, header{}))); err != nil {
		t.Fatal(err)
	}
	got := <-g.StreamCh()
	if _, err := io.ReadAll(got); err != nil { // one message, then the end, whatever else the peer sends
		t.Error(err)
	}
	_ = got.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total != 0 || len(g.perIP) != 0 || len(g.open) != 0 {
		t.Errorf("%d streams, %d addresses, %d connections are still counted", g.total, len(g.perIP), len(g.open))
	}
}

// TestShutdownClosesEverything: with a silent stream, one that nobody takes, and one that we opened.
func TestShutdownClosesEverything(t *testing.T) {
	g, addr := newGuard(t, func(c *Config) { c.Timeout = time.Hour })
	silent, ready := dial(t, addr), dial(t, addr)
	if _, err := ready.Write(requestOf(1, encode(msgPushPull, header{}))); err != nil {
		t.Fatal(err)
	}
	out, err := g.DialTimeout(addr, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Shutdown(); err != nil {
		t.Fatal(err)
	}
	closedByPeer(t, silent)
	closedByPeer(t, ready)
	if _, err := out.Write([]byte{1}); err == nil {
		t.Error("a stream that we opened is still open")
	}
	if _, err := g.DialTimeout(addr, time.Second); err == nil {
		t.Error("dialled after the shutdown")
	}
}

func TestSource(t *testing.T) {
	g, addr := newGuard(t, func(c *Config) { c.Allowed = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	closedByPeer(t, dial(t, addr))
	if got := g.Count(Source); got != 1 {
		t.Errorf("%d streams refused by address, want 1", got)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no network":  func(c *Config) { c.Allowed = []netip.Prefix{} },
		"short key":   func(c *Config) { c.Key = c.Key[:16] },
		"no label":    func(c *Config) { c.Label = "" },
		"no slots":    func(c *Config) { c.Streams = 0 },
		"no deadline": func(c *Config) { c.Timeout = 0 },
	} {
		c := testConfig()
		change(&c)
		if g, err := New(nil, c); err == nil {
			t.Errorf("%s: accepted", name)
			_ = g
		}
	}
}

// TestReflection: a ping that names a third party as its sender makes memberlist alone send there, although its
// CIDRsAllowed forbids that address; behind the guard nothing leaves.
func TestReflection(t *testing.T) {
	for _, guarded := range []bool{false, true} {
		third, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)})
		if err != nil {
			t.Skip("needs 127.0.0.2 on the loopback interface: run on Linux")
		}
		defer third.Close()
		inner := newInner(t)
		c := victimConfig(inner)
		var g *Transport
		if guarded {
			if g, err = New(inner, testConfig()); err != nil {
				t.Fatal(err)
			}
			c.Transport = g
		}
		m, err := memberlist.Create(c)
		if err != nil {
			t.Fatal(err)
		}
		port := third.LocalAddr().(*net.UDPAddr).Port
		in := packetOf(1, encode(msgPing, ping{SeqNo: 1, SourceAddr: []byte{127, 0, 0, 2}, SourcePort: uint16(port), SourceNode: "x"}))
		p := &process{addr: m.LocalNode().Address()}
		p.sendPacket(t, in)
		if guarded {
			for end := time.Now().Add(10 * time.Second); g.Count(Egress) == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
			}
			if got := g.Count(Egress); got != 1 {
				t.Errorf("%d packets stopped on their way out, want 1", got)
			}
		}
		wait := 10 * time.Second
		if guarded {
			wait = 50 * time.Millisecond // the attempt was already counted
		}
		_ = third.SetReadDeadline(time.Now().Add(wait))
		if n, err := third.Read(make([]byte, 2000)); guarded == (n > 0) {
			t.Errorf("guarded %v: the third party received %d bytes, %v", guarded, n, err)
		}
		if err := m.Shutdown(); err != nil {
			t.Error(err)
		}
	}
}
