package guard

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// pipeTransport feeds a memberlist by hand and swallows what it sends.
type pipeTransport struct {
	packets chan *memberlist.Packet
	streams chan net.Conn
}

func (p *pipeTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IPv4(127, 0, 0, 1), 7946, nil
}
func (p *pipeTransport) WriteTo([]byte, string) (time.Time, error) { return time.Now(), nil }
func (p *pipeTransport) WriteToAddress([]byte, memberlist.Address) (time.Time, error) {
	return time.Now(), nil
}
func (p *pipeTransport) PacketCh() <-chan *memberlist.Packet { return p.packets }
func (p *pipeTransport) StreamCh() <-chan net.Conn           { return p.streams }
func (p *pipeTransport) Shutdown() error                     { return nil }
func (p *pipeTransport) DialTimeout(string, time.Duration) (net.Conn, error) {
	return nil, net.ErrClosed
}
func (p *pipeTransport) DialAddressTimeout(memberlist.Address, time.Duration) (net.Conn, error) {
	return nil, net.ErrClosed
}

type pipeConn struct{ net.Conn }

func (pipeConn) RemoteAddr() net.Addr { return loopback }

var loopback = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}

// newOracle is a real memberlist behind a real guard: whatever passes must not end the process.
func newOracle(f *testing.F) (*pipeTransport, *Transport) {
	p := &pipeTransport{make(chan *memberlist.Packet), make(chan net.Conn)}
	g, err := New(p, testConfig())
	if err != nil {
		f.Fatal(err)
	}
	inner := newInner(f)
	c := victimConfig(inner)
	if err := inner.Shutdown(); err != nil {
		f.Fatal(err)
	}
	c.Transport = g
	m, err := memberlist.Create(c)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = m.Shutdown() })
	return p, g
}

// FuzzGuardPacket takes plaintexts as a holder of the key may choose them (sealed), or whole frames.
func FuzzGuardPacket(f *testing.F) {
	aPing := encode(msgPing, ping{SeqNo: 1, Node: "victim"})
	f.Add(aPing, true)
	f.Add(withCRC(aPing), true)
	f.Add(compound(aPing, encode(msgSuspect, struct{ Node, From string }{"victim", "x"})), true)
	f.Add(encode(msgAlive, struct {
		Incarnation uint32
		Node        string
		Addr        []byte
		Port        uint16
		Vsn         []uint8
	}{1, "a", []byte{127, 0, 0, 1}, 9, []byte{1, 5, 2, 0, 0, 0}}), true)
	f.Add(bomb(100), true)
	f.Add(packetOf(0, append(make([]byte, 15), 0xff)), false)
	f.Add(packetOf(1, nil), false)
	p, g := newOracle(f)
	e := g.env
	f.Fuzz(func(t *testing.T, in []byte, sealed bool) {
		if sealed {
			in = packetOf(1, in)
		}
		whole := bytes.Clone(in)
		why := e.packet(in)
		if !bytes.Equal(whole, in) {
			t.Fatal("the guard changed the frame")
		}
		if why == Passed && (len(in) > maxPacket || !bytes.HasPrefix(in, e.header) || in[len(e.header)] != version) {
			t.Fatalf("passed: %x", in)
		}
		p.packets <- &memberlist.Packet{Buf: in, From: loopback, Timestamp: time.Now()}
	})
}

// FuzzGuardStream does the same with the message of a stream.
func FuzzGuardStream(f *testing.F) {
	f.Add(encode(msgPushPull, header{Nodes: 1}), true)
	f.Add(encode(msgPing, ping{SeqNo: 1}), true)
	f.Add(bomb(1000), true)
	f.Add(requestOf(1, nil), false)
	f.Add(requestOf(0, append(make([]byte, 15), 0xff)), false)
	p, g := newOracle(f)
	f.Fuzz(func(t *testing.T, in []byte, sealed bool) {
		if sealed {
			in = requestOf(1, in)
		}
		raw, why := g.env.readMessage(bytes.NewReader(in), false)
		if why == Passed && !bytes.HasPrefix(in, raw) {
			t.Fatal("memberlist would read other bytes than were sent")
		}
		if len(raw) > g.env.maxStream()+len(g.env.header)+6 {
			t.Fatalf("held %d bytes", len(raw))
		}
		_, _ = g.env.readMessage(bytes.NewReader(in), true)

		ours, theirs := net.Pipe()
		p.streams <- pipeConn{theirs}
		_ = ours.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = ours.Write(in)
		if why == Passed {
			_, _ = ours.Read(make([]byte, 1))
		}
		_ = ours.Close()
	})
}
