package xfer

import (
	"context"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/time/rate"
)

// gater lets in whom Config.Allow names, and nobody else gets as far as a stream.
type gater struct {
	x   *Host
	say rate.Sometimes // a stranger at the door must not fill the log
}

// InterceptPeerDial implements connmgr.ConnectionGater.
func (g *gater) InterceptPeerDial(p peer.ID) bool { return g.x.cfg.Allow(p) }

// InterceptAddrDial implements connmgr.ConnectionGater.
func (g *gater) InterceptAddrDial(_ peer.ID, a ma.Multiaddr) bool {
	if g.x.cfg.AllowDial == nil {
		return true
	}
	na, err := manet.ToNetAddr(a)
	if err != nil {
		return false
	}
	ta, ok := na.(*net.TCPAddr)
	return ok && g.x.cfg.AllowDial(ta.AddrPort())
}

// InterceptAccept implements connmgr.ConnectionGater. It holds up the accept loop until Run: a connection that came
// before would not get a session.
func (g *gater) InterceptAccept(network.ConnMultiaddrs) bool {
	return g.x.running(context.Background())
}

// InterceptSecured implements connmgr.ConnectionGater.
func (g *gater) InterceptSecured(_ network.Direction, p peer.ID, a network.ConnMultiaddrs) bool {
	ok := g.x.cfg.Allow(p)
	if !ok {
		g.say.Do(func() {
			g.x.log.Warn("peer refused: not on the roster, or shut out", "peer", p.String(), "addr", a.RemoteMultiaddr().String())
		})
	}
	return ok
}

// InterceptUpgraded implements connmgr.ConnectionGater.
func (g *gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

func newGater(x *Host) *gater {
	return &gater{x: x, say: rate.Sometimes{First: 3, Interval: 10 * time.Second}}
}
