// Package guard stands between the network and memberlist. The library trusts whoever holds the site's key, and
// parses frames, unpads, decompresses and allocates before it has looked at them; a single frame can end the
// process. The guard opens every frame itself first and hands on, unchanged, only what a node of this site sends:
// our label, encryption version 1, sealed with our key, of an honest size, no compression, no nesting. It does so
// for datagrams, for streams that others open and for the replies on streams that we open. It also keeps memberlist
// from sending outside the allowed networks, so that a node cannot be made to shoot at a third party, and bounds the
// streams that are open at once.
//
// The guard knows nobody's name and keeps nothing about members. A Transport is safe for concurrent use.
package guard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config says what passes. All fields are required.
type Config struct {
	Label        string
	Key          []byte         // 32 bytes
	Allowed      []netip.Prefix // networks of the site
	MaxNodes     int            // records in one push/pull
	MaxState     int            // bytes of delegate state in one push/pull
	Streams      int            // open at once, opened by others
	StreamsPerIP int
	Timeout      time.Duration // for a stream's message to arrive whole
}

// Transport is a memberlist.NodeAwareTransport around another one, which it owns from New on.
type Transport struct {
	inner   memberlist.NodeAwareTransport
	cfg     Config
	env     *envelope
	packets chan *memberlist.Packet
	streams chan net.Conn
	counts  [reasons]atomic.Uint64

	closing chan struct{} // closed first: nothing is handed on any more
	stop    chan struct{} // closed last: the inner transport is down
	down    sync.Once
	wg      sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	shut  bool
	open  map[net.Conn]netip.Addr // streams in use; the zero address for those that we opened
	perIP map[netip.Addr]int
	total int
}

// New starts guarding. The caller ends it with Shutdown, which also shuts the inner transport down.
func New(inner memberlist.NodeAwareTransport, cfg Config) (*Transport, error) {
	env, err := newEnvelope(cfg.Label, cfg.Key, cfg.MaxNodes, cfg.MaxState)
	if err != nil {
		return nil, err
	}
	if len(cfg.Allowed) == 0 || cfg.MaxNodes <= 0 || cfg.Streams <= 0 || cfg.StreamsPerIP <= 0 || cfg.Timeout <= 0 {
		return nil, errors.New("guard: a limit or the list of allowed networks is missing")
	}
	t := &Transport{
		inner: inner, cfg: cfg, env: env,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		closing: make(chan struct{}), stop: make(chan struct{}),
		open: map[net.Conn]netip.Addr{}, perIP: map[netip.Addr]int{},
	}
	t.wg.Go(t.pump)
	return t, nil
}

// Count returns how many frames met this fate since New.
func (t *Transport) Count(r Reason) uint64 { return t.counts[r].Load() }

// Counts returns every counter by its name.
func (t *Transport) Counts() map[string]uint64 {
	m := make(map[string]uint64, reasons)
	for r := range reasons {
		m[r.String()] = t.counts[r].Load()
	}
	return m
}

func (t *Transport) count(r Reason) Reason { t.counts[r].Add(1); return r }

// pump judges what comes in. It drains the inner transport until that is down, or its shutdown would wait forever.
func (t *Transport) pump() {
	for {
		select {
		case p := <-t.inner.PacketCh():
			if t.count(t.judgePacket(p)) == Passed {
				select {
				case t.packets <- p:
				case <-t.closing:
				}
			}
		case c := <-t.inner.StreamCh():
			t.accept(c)
		case <-t.stop:
			return
		}
	}
}

func (t *Transport) judgePacket(p *memberlist.Packet) Reason {
	if _, ok := t.allowed(p.From); !ok {
		return Source
	}
	return t.env.packet(p.Buf)
}

// accept takes a stream that another opened: a slot first, then its message in a goroutine of its own.
func (t *Transport) accept(c net.Conn) {
	ip, ok := t.allowed(c.RemoteAddr())
	if !ok {
		t.count(Source)
		_ = c.Close()
		return
	}
	g := &conn{Conn: c}
	g.gone = func() { t.release(g) }
	if !t.take(g, ip) {
		t.count(Busy)
		_ = c.Close()
		return
	}
	t.wg.Go(func() {
		_ = c.SetDeadline(time.Now().Add(t.cfg.Timeout))
		raw, why := t.env.readMessage(c, false)
		if t.count(why) != Passed {
			_ = g.Close()
			return
		}
		g.judge = func() ([]byte, error) { return raw, nil }
		select {
		case t.streams <- g:
		case <-t.closing:
			_ = g.Close()
		}
	})
}

// take finds a slot for a stream; release gives it back. The zero address marks a stream that we opened: it is
// only remembered, to be closed at shutdown.
func (t *Transport) take(c net.Conn, ip netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shut {
		return false
	}
	if ip.IsValid() {
		if t.total >= t.cfg.Streams || t.perIP[ip] >= t.cfg.StreamsPerIP {
			return false
		}
		t.total++
		t.perIP[ip]++
	}
	t.open[c] = ip
	return true
}

func (t *Transport) release(c net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ip := t.open[c]
	delete(t.open, c)
	if !ip.IsValid() {
		return
	}
	t.total--
	if t.perIP[ip]--; t.perIP[ip] == 0 {
		delete(t.perIP, ip)
	}
}

// PacketCh implements memberlist.Transport.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *Transport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	return t.inner.FinalAdvertiseAddr(ip, port)
}

// WriteTo implements memberlist.Transport.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *Transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if err := t.egress(a.Addr); err != nil {
		return time.Time{}, err
	}
	return t.inner.WriteToAddress(b, a)
}

// DialTimeout implements memberlist.Transport.
func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport. The reply is judged when memberlist reads it, under
// the deadline that memberlist set.
func (t *Transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if err := t.egress(a.Addr); err != nil {
		return nil, err
	}
	c, err := t.inner.DialAddressTimeout(a, timeout)
	if err != nil {
		return nil, err
	}
	g := &conn{Conn: c}
	g.gone = func() { t.release(g) }
	g.judge = func() ([]byte, error) {
		raw, why := t.env.readMessage(c, true)
		if t.count(why) != Passed {
			return nil, refused(why, c.RemoteAddr())
		}
		return raw, nil
	}
	if !t.take(g, netip.Addr{}) {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	return g, nil
}

// Shutdown implements memberlist.Transport. It closes every stream and returns when no goroutine is left.
func (t *Transport) Shutdown() error {
	var err error
	t.down.Do(func() {
		close(t.closing)
		t.mu.Lock()
		t.shut = true
		open := make([]net.Conn, 0, len(t.open))
		for c := range t.open {
			open = append(open, c)
		}
		t.mu.Unlock()
		for _, c := range open {
			_ = c.Close()
		}
		err = t.inner.Shutdown()
		close(t.stop)
		t.wg.Wait()
	})
	return err
}

// egress refuses to send where no node of the site can be. memberlist answers a ping wherever the ping says.
func (t *Transport) egress(addr string) error {
	if ap, err := netip.ParseAddrPort(addr); err == nil && contains(t.cfg.Allowed, ap.Addr()) {
		return nil
	}
	t.count(Egress)
	return fmt.Errorf("address %s is outside the allowed networks", addr)
}

func (t *Transport) allowed(a net.Addr) (netip.Addr, bool) {
	if a == nil {
		return netip.Addr{}, false
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}, false
	}
	ip := ap.Addr().Unmap().WithZone("")
	return ip, contains(t.cfg.Allowed, ip)
}

func contains(nets []netip.Prefix, ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	for _, n := range nets {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}
