package xfer

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// Validity of our certificates. libp2p's own start one hour before now, so a node whose clock is off by more
// cannot connect; the certificate's dates prove nothing here, since authority is the roster.
var (
	notBefore = time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// security is libp2p's TLS 1.3 handshake with a certificate that no clock can invalidate. The library's own
// transport offers no way to hand it an Identity, hence this small one around the same Identity type.
type security struct {
	identity *libp2ptls.Identity
	self     peer.ID
	muxers   []string
	pause    time.Duration // see gather
	lend     gathered
}

var _ sec.SecureTransport = (*security)(nil)

// newSecurity has the signature that libp2p's constructor injection asks for.
func newSecurity(_ protocol.ID, key crypto.PrivKey, muxers []upgrader.StreamMuxer) (*security, error) {
	self, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	id, err := newIdentity(key, notBefore, notAfter)
	if err != nil {
		return nil, err
	}
	s := &security{identity: id, self: self}
	for _, m := range muxers {
		s.muxers = append(s.muxers, string(m.ID))
	}
	return s, nil
}

// withPause is newSecurity for sockets that rest so long when they have been read empty.
func withPause(pause time.Duration) func(protocol.ID, crypto.PrivKey, []upgrader.StreamMuxer) (*security, error) {
	return func(id protocol.ID, key crypto.PrivKey, muxers []upgrader.StreamMuxer) (*security, error) {
		s, err := newSecurity(id, key, muxers)
		if err == nil {
			s.pause = pause
		}
		return s, err
	}
}

func newIdentity(key crypto.PrivKey, from, to time.Time) (*libp2ptls.Identity, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	return libp2ptls.NewIdentity(key, libp2ptls.WithCertTemplate(&x509.Certificate{
		SerialNumber: serial,
		NotBefore:    from,
		NotAfter:     to,
		Subject:      pkix.Name{SerialNumber: serial.String()},
	}))
}

// ID implements sec.SecureTransport.
func (*security) ID() protocol.ID { return libp2ptls.ID }

// config is libp2p's, with our muxers, and records of full size from the first: Go begins with 1.4 KiB, which is for
// pages that a browser shows while they come, and begins again after each second of silence.
func (s *security) config(p peer.ID) (*tls.Config, <-chan crypto.PubKey) {
	cfg, keys := s.identity.ConfigForPeer(p)
	cfg.NextProtos = append(slices.Clone(s.muxers), cfg.NextProtos...)
	cfg.DynamicRecordSizingDisabled = true
	return cfg, keys
}

// SecureInbound implements sec.SecureTransport.
func (s *security) SecureInbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	cfg, keys := s.config(p)
	g := &gather{Conn: c, pause: s.pause}
	return s.handshake(ctx, tls.Server(g, cfg), g, keys)
}

// SecureOutbound implements sec.SecureTransport.
func (s *security) SecureOutbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	cfg, keys := s.config(p)
	g := &gather{Conn: c, pause: s.pause}
	return s.handshake(ctx, tls.Client(g, cfg), g, keys)
}

func (s *security) handshake(ctx context.Context, c *tls.Conn, g *gather, keys <-chan crypto.PubKey) (sec.SecureConn, error) {
	if err := c.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	var key crypto.PubKey
	select {
	case key = <-keys:
	default:
	}
	if key == nil {
		c.Close()
		return nil, errors.New("tls handshake left no public key")
	}
	if key.Type() != crypto.Ed25519 {
		c.Close()
		return nil, fmt.Errorf("peer key is %s: only Ed25519 is accepted", key.Type())
	}
	remote, err := peer.IDFromPublicKey(key)
	if err != nil {
		c.Close()
		return nil, err
	}
	mux := c.ConnectionState().NegotiatedProtocol
	if !slices.Contains(s.muxers, mux) {
		mux = ""
	}
	var socket syscall.RawConn
	if sc, ok := g.Conn.(syscall.Conn); ok {
		if socket, err = sc.SyscallConn(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return &secureConn{Conn: c, gather: g, lend: &s.lend, path: path{socket: socket, room: make(chan struct{}, 1)}, self: s.self, remote: remote, key: key, state: network.ConnectionState{
		StreamMultiplexer: protocol.ID(mux), UsedEarlyMuxerNegotiation: mux != "",
	}}, nil
}

type secureConn struct {
	*tls.Conn
	gather       *gather
	lend         *gathered
	self, remote peer.ID
	key          crypto.PubKey
	state        network.ConnectionState
	path         path
}

// Write implements net.Conn.
func (c *secureConn) Write(b []byte) (int, error) {
	n, err := c.gather.together(c.lend, func() (int, error) { return c.Conn.Write(b) })
	c.path.written.Add(int64(n))
	select {
	case c.path.room <- struct{}{}:
	default:
	}
	return n, err
}

func (c *secureConn) LocalPeer() peer.ID                 { return c.self }
func (c *secureConn) RemotePeer() peer.ID                { return c.remote }
func (c *secureConn) RemotePublicKey() crypto.PubKey     { return c.key }
func (c *secureConn) ConnState() network.ConnectionState { return c.state }
