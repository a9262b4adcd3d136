package xfer

import (
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"golang.org/x/sys/unix"
)

// Path is what the kernel knows of the way to a peer, see tcp(7), TCP_INFO. Byte counts are of the connection, with
// the headers of TLS and yamux.
type Path struct {
	RTT       time.Duration // smoothed over the last eight or so samples; 0: none yet
	Sent      int64         // bytes sent since the connection began, Resent included
	Resent    int64
	Acked     int64  // bytes acknowledged without a gap before them
	Delivered uint32 // packets acknowledged, beyond gaps too; it starts over after the last
	Flight    int    // bytes on their way: neither acknowledged, beyond gaps or not, nor known to be lost
	Pending   int    // Flight, and what waits to be sent: in the socket, in front of it
}

// path is a connection's socket and what was handed over to be written to it.
type path struct {
	socket     syscall.RawConn
	frameBytes int
	handed     atomic.Int64  // with frame headers
	written    atomic.Int64  // to the socket, the muxer's own frames included
	room       chan struct{} // capacity 1: something was written
}

// Path says what the kernel knows of the connection that chunks leave by. False: nothing, for it is gone.
func (s *Session) Path() (Path, bool) {
	p := s.path.Load()
	if p == nil {
		return Path{}, false
	}
	return p.look()
}

func (p *path) look() (out Path, ok bool) {
	out.Pending = int(p.waiting())
	var info *unix.TCPInfo
	var err1 error
	err := p.socket.Control(func(fd uintptr) {
		info, err1 = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if err != nil || err1 != nil {
		return Path{}, false
	}
	out.RTT = time.Duration(info.Rtt) * time.Microsecond
	out.Sent, out.Resent, out.Acked = int64(info.Bytes_sent), int64(info.Bytes_retrans), int64(info.Bytes_acked)
	out.Delivered = info.Delivered
	packets := int(info.Unacked) + int(info.Retrans) - int(info.Sacked) - int(info.Lost) // as tcp_packets_in_flight has it
	out.Flight = max(0, packets) * int(info.Snd_mss)
	out.Pending += int(info.Notsent_bytes) + out.Flight
	return out, true
}

// SetCongestion chooses the congestion control by which the connection that chunks leave by sends from now on, see
// Config.Congestion. The kernel may not allow it.
func (s *Session) SetCongestion(name string) error {
	if p := s.path.Load(); p != nil {
		return setCongestion(p.socket, name)
	}
	return nil
}

// SetPacing makes the kernel send at most so many bytes per second on the connection that chunks leave by, evenly.
func (s *Session) SetPacing(bytesPerSecond int64) {
	if p := s.path.Load(); p != nil {
		_ = p.socket.Control(func(fd uintptr) { // only a connection that is gone refuses it
			_ = unix.SetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, uint64(max(bytesPerSecond, 1)))
		})
	}
}

// muxer is yamux whose connections say what their path is.
type muxer struct {
	*yamux.Transport
	frameBytes int
}

// NewConn implements network.Multiplexer.
func (m muxer) NewConn(nc net.Conn, isServer bool, scope network.PeerScope) (network.MuxedConn, error) {
	mc, err := m.Transport.NewConn(nc, isServer, scope)
	if err != nil {
		return nil, err
	}
	c, _ := nc.(*secureConn)
	if c != nil {
		c.path.frameBytes = m.frameBytes
	}
	return muxed{mc, c}, nil
}

type muxed struct {
	network.MuxedConn
	conn *secureConn
}

// As implements network.MuxedConn.
func (m muxed) As(target any) bool {
	if t, ok := target.(**path); ok && m.conn != nil {
		*t = &m.conn.path
		return m.conn.path.socket != nil
	}
	return m.MuxedConn.As(target)
}

// frameHeader is yamux's, and FrameOverhead all that a frame of a slice costs: with it the header, the type and the tag of
// a TLS 1.3 record.
const (
	frameHeader   = 12
	FrameOverhead = frameHeader + 5 + 1 + 16
)

// handing is a lane's writer that counts what it hands over to the muxer.
type handing struct{ network.Stream }

// Write implements io.Writer.
func (h handing) Write(b []byte) (int, error) {
	var p *path
	if h.Conn().As(&p) {
		frames := (len(b) + p.frameBytes - 1) / p.frameBytes
		p.handed.Add(int64(len(b) + frames*frameHeader))
	}
	return h.Stream.Write(b)
}
