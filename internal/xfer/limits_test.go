package xfer

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	ma "github.com/multiformats/go-multiaddr"
)

var update = flag.Bool("update", false, "write testdata/limits.txt anew; every number in it is a decision")

// The limits in force, level by level, as a resource manager answers when it is asked.
func TestLimitsInForce(t *testing.T) {
	const file = "testdata/limits.txt"
	var b strings.Builder
	for _, c := range []struct {
		name string
		l    Limits
	}{{"seeder", SeederLimits()}, {"node", NodeLimits()}} {
		fmt.Fprintf(&b, "%s\n%-22s %17s %20s %6s %8s\n", c.name, "", "conns in/out/all", "streams in/out/all", "fd", "memory")
		dump(t, &b, c.l)
		fmt.Fprintf(&b, "of one address: %d connections, %g new ones a second after %d at once\n\n", c.l.ConnsPerAddress, c.l.NewPerSecond, c.l.NewBurst)
	}
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("limits changed (-update writes them anew):\n%s", d)
	}
}

func dump(t *testing.T, w io.Writer, l Limits) {
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(l.config()), l.options()...)
	if err != nil {
		t.Fatal(err)
	}
	defer rm.Close()
	show := func(name string, s network.ResourceScope) {
		n := func(v int) string {
			if v == math.MaxInt {
				return "-"
			}
			return fmt.Sprint(v)
		}
		all := func(in, out, total int) string { return n(in) + "/" + n(out) + "/" + n(total) }
		x := s.(rcmgr.ResourceScopeLimiter).Limit()
		mem := "-"
		if m := x.GetMemoryLimit(); m != math.MaxInt64 {
			mem = fmt.Sprintf("%dMiB", m>>20)
		}
		fmt.Fprintf(w, "%-22s %17s %20s %6s %8s\n", name,
			all(x.GetConnLimit(network.DirInbound), x.GetConnLimit(network.DirOutbound), x.GetConnTotalLimit()),
			all(x.GetStreamLimit(network.DirInbound), x.GetStreamLimit(network.DirOutbound), x.GetStreamTotalLimit()),
			n(x.GetFDLimit()), mem)
	}
	as := func(name string) func(network.ResourceScope) error {
		return func(s network.ResourceScope) error { show(name, s); return nil }
	}
	p := testPeer(0)
	err = errors.Join(
		rm.ViewSystem(as("system")),
		rm.ViewTransient(as("transient")),
		rm.ViewPeer(p, func(s network.PeerScope) error { return as("peer")(s) }),
		rm.ViewProtocol(ControlProtocol, func(s network.ProtocolScope) error { return as("protocol")(s) }),
		rm.ViewService("libp2p.identify", func(s network.ServiceScope) error { return as("service")(s) }),
	)
	if err != nil {
		t.Error(err)
	}
	conn, err := rm.OpenConnection(network.DirInbound, true, ma.StringCast("/ip4/10.0.0.1/tcp/4001"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Done()
	st, err := rm.OpenStream(p, network.DirInbound)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Done()
	show("connection", conn)
	show("stream", st)
	f := rcmgr.NewFixedLimiter(l.config())
	for _, c := range []struct {
		name  string
		limit rcmgr.Limit
	}{
		{"protocol of a peer", f.GetProtocolPeerLimits(ControlProtocol)}, {"service of a peer", f.GetServicePeerLimits("libp2p.identify")},
		{"allowlisted system", f.GetAllowlistedSystemLimits()}, {"allowlisted transient", f.GetAllowlistedTransientLimits()},
	} {
		show(c.name, limited{limit: c.limit})
	}
}

// limited makes a bare limit look like a scope.
type limited struct {
	network.ResourceScope
	limit rcmgr.Limit
}

func (l limited) Limit() rcmgr.Limit   { return l.limit }
func (l limited) SetLimit(rcmgr.Limit) {}

// accepted asks a resource manager for connections from addresses that are not loopback, each with its handshake
// finished and the streams of a session open as yamux opens them, and counts those it lets in.
func accepted(t *testing.T, limits rcmgr.ConcreteLimitConfig, opts []rcmgr.Option, conns int, addr func(i int) string) (n int) {
	t.Helper()
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits), append(opts, rcmgr.WithMetricsDisabled())...)
	if err != nil {
		t.Fatal(err)
	}
	defer rm.Close()
	for i := range conns {
		c, err := rm.OpenConnection(network.DirInbound, true, ma.StringCast("/ip4/"+addr(i)+"/tcp/4001"))
		if err != nil {
			continue
		}
		defer c.Done()
		if err := c.SetPeer(testPeer(i)); err == nil && sessionFits(c.PeerScope(), rm, testPeer(i)) {
			n++
		}
	}
	return n
}

func sessionFits(scope network.PeerScope, rm network.ResourceManager, p peer.ID) bool {
	span, err := scope.BeginSpan()
	if err != nil {
		return false
	}
	for range 4 { // two lanes in each direction; yamux's first window
		if err := span.ReserveMemory(256<<10, network.ReservationPriorityAlways); err != nil {
			return false
		}
		st, err := rm.OpenStream(p, network.DirInbound)
		if err != nil || st.SetProtocol(ControlProtocol) != nil { // negotiated: no longer transient
			return false
		}
	}
	return true
}

// 1,200 sites get in, and one address cannot take all places. The library's defaults fail both ways, and so does the
// gibibyte that looks like plenty until the windows are counted.
func TestSeederLimitsHold(t *testing.T) {
	l := SeederLimits()
	sites := func(i int) string { return fmt.Sprintf("10.%d.%d.1", i/250, i%250) }
	one := func(int) string { return "10.0.0.1" }
	if n := accepted(t, l.config(), l.options(), 1200, sites); n != 1200 {
		t.Errorf("%d of 1200 sites get in", n)
	}
	if n := accepted(t, l.config(), l.options(), 1200, one); n != l.ConnsPerAddress {
		t.Errorf("one address gets %d connections, want %d", n, l.ConnsPerAddress)
	}
	small := l
	small.MemoryBytes = 1 << 30
	if n := accepted(t, small.config(), small.options(), 1200, sites); n >= 1200 {
		t.Errorf("control: with a gibibyte %d of 1200 sites get in", n)
	}
	defaults := rcmgr.DefaultLimits
	if n := accepted(t, defaults.Scale(1<<30, 1024), nil, 1200, sites); n >= 1200 {
		t.Errorf("control: the library's defaults let %d of 1200 sites in", n)
	}
	if n := accepted(t, defaults.Scale(1<<30, 1024), nil, 60, one); n >= 60 {
		t.Errorf("control: the library's defaults let %d connections of one address in", n)
	}
}

func testPeer(i int) peer.ID { return peer.ID(fmt.Sprintf("peer-%d", i)) }
