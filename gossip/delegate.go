package gossip

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/patchmesh/patchmesh/internal/roster"
)

// One site speaks one version of both protocols: memberlist's, and that of our metadata and letters. memberlist
// refuses a whole exchange when one node in its table does not fit the others, so no such node may get in.
const (
	libraryProtocol = memberlist.ProtocolVersion2Compatible
	ourProtocol     = 1
)

var errProtocol = errors.New("node speaks another protocol version")

// delegate is all that memberlist calls. Most of it is called under memberlist's lock.
type delegate struct {
	t        *table
	peerPort uint16
}

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(int) []byte {
	return meta{PeerPort: d.peerPort, Roster: d.t.rosterVersion(), PeerID: d.t.id}.encode()
}

// LocalState implements memberlist.Delegate. The roster travels when a node joins or asks for it (both are joins),
// not in the exchanges that go on all day: metadata says who is behind.
func (d delegate) LocalState(join bool) []byte {
	if !join {
		return nil
	}
	return d.t.post()
}

// MergeRemoteState implements memberlist.Delegate.
func (d delegate) MergeRemoteState(b []byte, _ bool) { d.t.heard(b) }

// NotifyMsg and GetBroadcasts implement memberlist.Delegate: there are no user messages; the guard drops them.
func (d delegate) NotifyMsg([]byte)                {}
func (d delegate) GetBroadcasts(int, int) [][]byte { return nil }

// NotifyAlive implements memberlist.AliveDelegate.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	if n.PCur != libraryProtocol || n.PMin > libraryProtocol || n.PMax < libraryProtocol ||
		n.DCur != ourProtocol || n.DMin > ourProtocol || n.DMax < ourProtocol {
		return errProtocol
	}
	return d.t.admit(n.Name, addrOf(n), n.Meta)
}

// NotifyMerge implements memberlist.MergeDelegate. It does not look at names: a node that is newer than our roster
// is no reason to refuse the exchange that brings the newer roster.
func (d delegate) NotifyMerge(nodes []*memberlist.Node) error {
	if len(nodes) > roster.MaxNodes {
		return fmt.Errorf("%d nodes: a site has at most %d", len(nodes), roster.MaxNodes)
	}
	return nil
}

// NotifyConflict implements memberlist.ConflictDelegate.
func (d delegate) NotifyConflict(_, other *memberlist.Node) {
	d.t.clash(other.Name, addrOf(other), other.Meta)
}

// NotifyJoin, NotifyUpdate and NotifyLeave implement memberlist.EventDelegate.
func (d delegate) NotifyJoin(n *memberlist.Node)   { d.t.alive(n.Name, addrOf(n), n.Meta) }
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.t.alive(n.Name, addrOf(n), n.Meta) }
func (d delegate) NotifyLeave(n *memberlist.Node)  { d.t.dead(n.Name) }

// AckPayload and NotifyPingComplete implement memberlist.PingDelegate.
func (d delegate) AckPayload() []byte { return nil }
func (d delegate) NotifyPingComplete(n *memberlist.Node, _ time.Duration, _ []byte) {
	d.t.seen(n.Name)
}

func addrOf(n *memberlist.Node) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(ip.Unmap(), n.Port)
}
