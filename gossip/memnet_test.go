package gossip

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// memnet is a LAN in memory for tests in virtual time: every packet and dial takes a millisecond, packets are
// dropped when their receiver is full, and pairs of hosts can be cut from each other.
type memnet struct {
	mu    sync.Mutex
	hosts map[netip.AddrPort]*memhost
	cut   func(a, b netip.AddrPort) bool
	loss  func() bool

	packets, streams, bytes atomic.Int64 // bytes of payload, both ways of a stream
}

const (
	hopDelay  = time.Millisecond
	headerUDP = 28 // IPv4 and UDP
)

type memhost struct {
	net     *memnet
	addr    netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	down    chan struct{}
	once    sync.Once
}

func newMemnet() *memnet { return &memnet{hosts: map[netip.AddrPort]*memhost{}} }

func (n *memnet) host(addr netip.AddrPort) *memhost {
	h := &memhost{net: n, addr: addr, packets: make(chan *memberlist.Packet, 256), streams: make(chan net.Conn, 16), down: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[addr] = h
	return h
}

// split cuts hosts for which side differs; nil heals.
func (n *memnet) split(side func(netip.AddrPort) int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = nil
	if side != nil {
		n.cut = func(a, b netip.AddrPort) bool { return side(a) != side(b) }
	}
}

// find returns the host at an address unless it, or the sender, is cut off.
func (n *memnet) find(from, to netip.AddrPort) *memhost {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts[from] == nil || n.cut != nil && n.cut(from, to) {
		return nil
	}
	return n.hosts[to]
}

// kill takes a host off the network at once: it cannot even say that it leaves.
func (n *memnet) kill(addr netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.hosts, addr)
}

func (h *memhost) WriteTo(b []byte, addr string) (time.Time, error) {
	return h.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (h *memhost) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	h.net.packets.Add(1)
	h.net.bytes.Add(int64(len(b) + headerUDP))
	to, from := netip.MustParseAddrPort(a.Addr), net.UDPAddrFromAddrPort(h.addr)
	b = bytes.Clone(b)
	time.AfterFunc(hopDelay, func() {
		if h.net.loss != nil && h.net.loss() {
			return
		}
		peer := h.net.find(h.addr, to)
		if peer == nil {
			return
		}
		select {
		case <-peer.down:
		case peer.packets <- &memberlist.Packet{Buf: b, From: from, Timestamp: time.Now()}:
		default:
		}
	})
	return time.Now(), nil
}

func (h *memhost) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return h.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (h *memhost) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	to := netip.MustParseAddrPort(a.Addr)
	peer := h.net.find(h.addr, to)
	if peer == nil {
		select {
		case <-time.After(timeout):
		case <-h.down:
		}
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: net.ErrClosed}
	}
	time.Sleep(hopDelay)
	ours, theirs := net.Pipe()
	select {
	case peer.streams <- &memconn{theirs, h.net, net.TCPAddrFromAddrPort(h.addr)}:
		h.net.streams.Add(1)
		return &memconn{ours, h.net, net.TCPAddrFromAddrPort(to)}, nil
	case <-peer.down:
	default:
	}
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: net.ErrClosed}
}

func (h *memhost) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return h.addr.Addr().AsSlice(), int(h.addr.Port()), nil
}

func (h *memhost) PacketCh() <-chan *memberlist.Packet { return h.packets }
func (h *memhost) StreamCh() <-chan net.Conn           { return h.streams }

func (h *memhost) Shutdown() error {
	h.once.Do(func() {
		close(h.down)
		h.net.mu.Lock()
		defer h.net.mu.Unlock()
		if h.net.hosts[h.addr] == h {
			delete(h.net.hosts, h.addr)
		}
	})
	return nil
}

type memconn struct {
	net.Conn
	net  *memnet
	peer net.Addr
}

func (c *memconn) RemoteAddr() net.Addr { return c.peer }
func (c *memconn) Write(b []byte) (int, error) {
	c.net.bytes.Add(int64(len(b)))
	return c.Conn.Write(b)
}
