package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/patchmesh/patchmesh/gossip/guard"
	"github.com/patchmesh/patchmesh/internal/roster"
)

// Limits of the guard. A node's streams last milliseconds; on loopback all nodes of a test or demo are one address.
const (
	maxStreams      = 64
	maxStreamsPerIP = 8
	streamTimeout   = 5 * time.Second
)

// Mesh is one node's membership in its site.
type Mesh struct {
	cfg     Config
	addr    netip.AddrPort
	table   *table
	guard   *guard.Transport
	bridge  *bridge
	library *libraryLogger
	refresh chan struct{} // capacity 1
}

// New opens the listeners, so that Addr is known. The caller must call Run, or Close if it will not.
func New(cfg Config) (*Mesh, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	m := &Mesh{cfg: cfg, refresh: make(chan struct{}, 1)}
	m.table = newTable(cfg.Node, cfg.PeerID, cfg.CIDRs, cfg.Now)
	m.bridge, m.library = newBridge(cfg.Logger, "memberlist")
	inner := cfg.transport
	if inner == nil {
		l, addr, err := listen(cfg.BindAddr, cfg.CIDRs, m.library)
		if err != nil {
			return nil, err
		}
		inner, m.addr = l, addr
	} else {
		addr, err := netip.ParseAddrPort(cfg.BindAddr)
		if err != nil {
			return nil, fmt.Errorf("gossip address: %w", err)
		}
		m.addr = addr
	}
	perIP := maxStreamsPerIP
	if m.addr.Addr().IsLoopback() {
		perIP = maxStreams
	}
	g, err := guard.New(inner, guard.Config{
		Label: cfg.Site, Key: cfg.Key, Allowed: cfg.CIDRs, MaxNodes: roster.MaxNodes, MaxState: maxLetter,
		Streams: maxStreams, StreamsPerIP: perIP, Timeout: streamTimeout,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("gossip: %w", err), inner.Shutdown())
	}
	m.guard = g
	return m, nil
}

// Close releases the listeners of a Mesh that will not run.
func (m *Mesh) Close() error { return m.guard.Shutdown() }

// Addr is where we listen, TCP and UDP.
func (m *Mesh) Addr() netip.AddrPort { return m.addr }

// Members returns the nodes of the roster that we have met, in the order of their names, without ourselves. Those
// that are not alive stay in it until the roster drops them.
func (m *Mesh) Members() []Member { return m.table.snapshot() }

// Conflicts returns the names that were seen twice since Run began, in the order of the names.
func (m *Mesh) Conflicts() []Conflict { return m.table.conflictList() }

// Refresh makes the mesh ask for the roster again. Call it after adopting one that did not come through OnRoster.
func (m *Mesh) Refresh() {
	select {
	case m.refresh <- struct{}{}:
	default:
	}
}

// Counters returns everything that is counted since New, by name. Those of the guard begin with "guard_".
func (m *Mesh) Counters() map[string]uint64 {
	c := m.table.counters()
	out := map[string]uint64{
		"rejected_unknown": c.Unknown, "rejected_identity": c.Identity, "malformed": c.Malformed,
		"conflicts": c.Conflicts, "rosters_heard": c.Rosters, "rosters_refused": c.RostersRefused,
		"joins": c.Joins, "joins_failed": c.JoinsFailed, "log_lines_suppressed": m.bridge.suppressed.Load(),
	}
	for name, n := range m.guard.Counts() {
		out["guard_"+name] = n
	}
	return out
}

// Run takes part in the site until ctx ends, then tells the others and closes the listeners. A Mesh runs once. What
// memberlist itself started ends with its timers, some seconds later at most; nothing of it calls back any more.
func (m *Mesh) Run(ctx context.Context) error {
	m.table.follow(m.cfg.Roster())
	list, err := memberlist.Create(m.settings())
	if err != nil {
		return errors.Join(fmt.Errorf("gossip: %w", err), m.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := newLoop(m, list)
	l.run(ctx)
	cancel()
	if err := list.Leave(m.cfg.Timing.Leave); err != nil {
		m.cfg.Logger.Debug("leave not heard", "err", err)
	}
	err = list.Shutdown() // ends the calls that are still out
	l.wg.Wait()
	return err
}

// settings are memberlist's: its defaults for a LAN and what differs from them.
func (m *Mesh) settings() *memberlist.Config {
	d := delegate{m.table, m.cfg.PeerPort}
	c := memberlist.DefaultLANConfig()
	c.Name, c.RequireNodeNames = m.cfg.Node, true
	c.Label, c.SecretKey = m.cfg.Site, m.cfg.Key
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = true, true
	c.Transport, c.Logger = m.guard, m.library
	c.BindAddr, c.BindPort = m.addr.Addr().String(), int(m.addr.Port())
	c.AdvertiseAddr, c.AdvertisePort = m.addr.Addr().String(), int(m.addr.Port())
	for _, p := range m.cfg.CIDRs { // none would mean all: New has refused that
		c.CIDRsAllowed = append(c.CIDRsAllowed, net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
	}
	c.ProtocolVersion = libraryProtocol
	c.DelegateProtocolVersion, c.DelegateProtocolMin, c.DelegateProtocolMax = ourProtocol, ourProtocol, ourProtocol
	c.Delegate, c.Events, c.Alive, c.Merge, c.Conflict, c.Ping = d, d, d, d, d, d
	c.EnableCompression = false
	c.HandoffQueueDepth = 256
	c.TCPTimeout = 5 * time.Second
	c.DeadNodeReclaimTime = 0
	c.ProbeInterval, c.ProbeTimeout = m.cfg.Timing.Probe, m.cfg.Timing.Probe/2
	c.GossipInterval, c.PushPullInterval = m.cfg.Timing.Gossip, m.cfg.Timing.PushPull
	return c
}
