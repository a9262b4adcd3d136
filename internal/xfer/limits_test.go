package xfer

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	ma "github.com/multiformats/go-multiaddr"
)

// The limits in force at a seeder, level by level, as the resource manager got them.
func TestSeederLimitsInForce(t *testing.T) {
	type row struct{ Conns, ConnsInbound, Streams, FD, Memory int64 }
	c := SeederLimits().config().ToPartialLimitConfig()
	of := func(l rcmgr.ResourceLimits) row {
		return row{int64(l.Conns), int64(l.ConnsInbound), int64(l.Streams), int64(l.FD), int64(l.Memory)}
	}
	got := map[string]row{"system": of(c.System), "transient": of(c.Transient), "peer": of(c.PeerDefault), "protocol": of(c.ProtocolDefault),
		"allowlisted system": of(c.AllowlistedSystem), "allowlisted transient": of(c.AllowlistedTransient)}
	want := map[string]row{
		"system":                {4096, 4096, 65536, 8192, 4 << 30},
		"transient":             {512, 512, 2048, 512, 1 << 30},
		"peer":                  {4, 4, 32, 4, 64 << 20},
		"protocol":              {4096, 4096, 32768, 8192, 4 << 30},
		"allowlisted system":    {4096, 4096, 65536, 8192, 4 << 30},
		"allowlisted transient": {512, 512, 2048, 512, 1 << 30},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

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
