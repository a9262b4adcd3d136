package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Config is what a Mesh needs. Fields without a default are required.
type Config struct {
	Site     string // the label on every frame, readable by all on the LAN
	Node     string // our name on the roster
	PeerID   string // our libp2p identity, as the roster writes it
	PeerPort uint16 // TCP port of our libp2p listener

	// BindAddr is host:port, one port for TCP and UDP. The host is an address of this machine inside CIDRs; empty or
	// unspecified means the first such address. Port 0 lets the kernel choose.
	BindAddr string
	Key      []byte         // 32 bytes, shared by the site
	CIDRs    []netip.Prefix // where nodes of the site may be; never empty

	// Seeds returns addresses (host:port) to call: last known, roster, static. Asked in every round.
	Seeds func() []string
	// Roster returns the roster in force, verified, and the document as it was signed; nil while there is none.
	Roster func() (*roster.Roster, trust.Signed)
	// OnRoster gets a document that claims a higher version than Roster's. It verifies, persists and adopts it, so
	// that Roster returns it from then on, or returns an error; the same document is then left alone for a minute.
	OnRoster func(trust.Signed) error

	OnPeer     func(Peer)        // a node of the roster appeared, or its address changed; optional
	OnGone     func(name string) // it died, left, or is not on the roster any more; optional
	OnConflict func(Conflict)    // two nodes use one name; at most once a minute for each name; optional

	// MDNS looks for others by multicast DNS and answers those who look. What it finds is a hint like Seeds.
	// It is ignored on a loopback address.
	MDNS bool

	Logger *slog.Logger // default: none
	Now    func() time.Time
	Timing Timing

	transport memberlist.NodeAwareTransport // tests put a network in memory here, in place of sockets
}

// Timing tunes the mesh; zero fields take the default.
type Timing struct {
	Rejoin   time.Duration // between rounds of calls to nodes that are not connected; default 20 s, jittered by half
	Probe    time.Duration // between probes of one other node; default 1 s
	Gossip   time.Duration // between packets of news; default 200 ms
	PushPull time.Duration // between full exchanges with one other node; default 30 s
	Leave    time.Duration // to tell the others at the end; default 1 s
	Discover time.Duration // between questions by multicast DNS while nodes are missing; default 5 min, a twentieth of it while alone
}

// The defaults of Timing. Probe, Gossip and PushPull are memberlist's for a LAN.
const (
	DefaultRejoin   = 20 * time.Second
	DefaultProbe    = time.Second
	DefaultGossip   = 200 * time.Millisecond
	DefaultPushPull = 30 * time.Second
	DefaultLeave    = time.Second
	DefaultDiscover = 5 * time.Minute
)

func (t Timing) withDefaults() Timing {
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Rejoin, DefaultRejoin}, {&t.Probe, DefaultProbe}, {&t.Gossip, DefaultGossip},
		{&t.PushPull, DefaultPushPull}, {&t.Leave, DefaultLeave}, {&t.Discover, DefaultDiscover},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	return t
}

// check fills in defaults and refuses what cannot work.
func (c *Config) check() error {
	switch {
	case !manifest.ValidName(c.Site):
		return fmt.Errorf("site %q is not a name", c.Site)
	case !manifest.ValidName(c.Node):
		return fmt.Errorf("node %q is not a name", c.Node)
	case c.PeerID == "" || len(c.PeerID) > maxPeerID:
		return fmt.Errorf("peer ID of %d bytes: must have 1 to %d", len(c.PeerID), maxPeerID)
	case c.PeerPort == 0:
		return errors.New("peer port 0: must be the port of the libp2p listener")
	case len(c.Key) != 32:
		return fmt.Errorf("gossip key of %d bytes: must have 32", len(c.Key))
	case len(c.CIDRs) == 0:
		return errors.New("no allowed network: memberlist would take that for all of them")
	case c.Seeds == nil || c.Roster == nil || c.OnRoster == nil:
		return errors.New("a callback is missing: Seeds, Roster and OnRoster are required")
	}
	for _, p := range c.CIDRs {
		if !p.IsValid() || p != p.Masked() {
			return fmt.Errorf("allowed network %v is not a network", p)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.OnPeer == nil {
		c.OnPeer = func(Peer) {}
	}
	if c.OnGone == nil {
		c.OnGone = func(string) {}
	}
	if c.OnConflict == nil {
		c.OnConflict = func(Conflict) {}
	}
	c.Timing = c.Timing.withDefaults()
	return nil
}

// Peer is a node of the roster that is alive, as far as gossip knows.
type Peer struct {
	Name       string
	PeerID     string
	Addr       netip.AddrPort // of its libp2p listener (TCP)
	GossipAddr netip.AddrPort
}

// Member is what the mesh knows of a node of the roster that it has met since it runs.
type Member struct {
	Peer
	Alive    bool
	LastSeen time.Time // it answered our probe, or news of it arrived; probes go round, one node each second
	Roster   uint64    // version of the roster that it says it follows
}

// Conflict says that a name is used by two nodes, or by one that the roster does not know by that name. A node that
// was restarted on another port looks like this until its old self is declared dead, so a conflict that goes on for
// minutes is what an operator should see.
type Conflict struct {
	Name        string
	Addr        netip.AddrPort // gossip address of the second one
	PeerID      string         // as it claims; the roster's own when a machine was cloned
	Count       uint64
	First, Last time.Time
}
