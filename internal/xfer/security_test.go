package xfer

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

var muxers = []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}

type party struct {
	sec.SecureTransport
	id peer.ID
}

// ours and theirs make a party whose certificate is as of now.
func ours(t *testing.T) party {
	key := testKey(t)
	s, err := newSecurity("", key, muxers)
	return asParty(t, key, s, err)
}

func theirs(t *testing.T) party {
	key := testKey(t)
	s, err := libp2ptls.New(libp2ptls.ID, key, muxers)
	return asParty(t, key, s, err)
}

func testKey(t *testing.T) crypto.PrivKey {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func asParty(t *testing.T, key crypto.PrivKey, s sec.SecureTransport, err error) party {
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return party{s, id}
}

// shake lets a dial b and returns what both say of it. It sends a byte each way, since a TLS 1.3 client is done
// before the server has judged it.
func shake(t *testing.T, a, b party) (errA, errB error) {
	ca, cb := net.Pipe()
	defer ca.Close()
	defer cb.Close()
	done := make(chan error, 1)
	go func() {
		c, err := b.SecureInbound(t.Context(), cb, "")
		if err == nil {
			if c.RemotePeer() != a.id || c.LocalPeer() != b.id || c.ConnState().StreamMultiplexer != yamux.ID {
				t.Errorf("inbound: %v to %v by %q", c.RemotePeer(), c.LocalPeer(), c.ConnState().StreamMultiplexer)
			}
			_, err = c.Write([]byte{1})
		}
		cb.Close()
		done <- err
	}()
	c, err := a.SecureOutbound(t.Context(), ca, b.id)
	if err == nil {
		if c.RemotePeer() != b.id || c.ConnState().StreamMultiplexer != yamux.ID {
			t.Errorf("outbound: %v by %q", c.RemotePeer(), c.ConnState().StreamMultiplexer)
		}
		_, err = c.Read(make([]byte, 1))
	}
	ca.Close()
	return err, <-done
}

const years = 365*24*time.Hour + 6*time.Hour

// Two nodes connect whatever their clocks say: their certificates were made in 2000 or 2099, and are verified in 2000
// or 2099. The control is libp2p's own certificate, which a peer whose clock is behind refuses.
func TestHandshakeWhateverTheClock(t *testing.T) {
	type made struct{ ours, theirs party }
	var early, late made
	make := func(at time.Duration, into *made) {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(at)
			into.ours, into.theirs = ours(t), theirs(t)
		})
	}
	make(0, &early)
	make(99*years, &late)
	for _, at := range []time.Duration{0, 99 * years} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(at)
			year := time.Now().Year()
			for _, c := range []struct {
				name string
				a, b party
			}{
				{"both early", early.ours, early.ours}, {"early dials late", early.ours, late.ours},
				{"late dials early", late.ours, early.ours}, {"both late", late.ours, late.ours},
				{"libp2p's of the time before", early.theirs, early.ours},
			} {
				if errA, errB := shake(t, c.a, c.b); errA != nil || errB != nil {
					t.Errorf("%d: %s: %v; %v", year, c.name, errA, errB)
				}
			}
			behind := year == 2000
			if errA, _ := shake(t, early.ours, late.theirs); (errA != nil) != behind {
				t.Errorf("control, %d: we dial libp2p's certificate of 2099: %v", year, errA)
			}
			if _, errB := shake(t, late.theirs, early.ours); (errB != nil) != behind {
				t.Errorf("control, %d: libp2p's certificate of 2099 dials us: %v", year, errB)
			}
		})
	}
}

// A bubble's clock cannot go below 2000; that a clock at 1970 does no harm follows from the certificate itself.
func TestCertificateDates(t *testing.T) {
	cert := func(id *libp2ptls.Identity, err error) *x509.Certificate {
		if err != nil {
			t.Fatal(err)
		}
		cfg, _ := id.ConfigForPeer("")
		c, err := x509.ParseCertificate(cfg.Certificates[0].Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		c.UnhandledCriticalExtensions = nil
		return c
	}
	verify := func(c *x509.Certificate, year int) error {
		roots := x509.NewCertPool()
		roots.AddCert(c)
		_, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: time.Date(year, 1, 1, 0, 0, 1, 0, time.UTC)})
		return err
	}
	mine, plain := cert(newIdentity(testKey(t), notBefore, notAfter)), cert(libp2ptls.NewIdentity(testKey(t)))
	for _, year := range []int{1970, 2000, 2026, 2099, 9999} {
		if err := verify(mine, year); err != nil {
			t.Errorf("%d: %v", year, err)
		}
	}
	for _, year := range []int{1970, 9999} {
		if err := verify(plain, year); err == nil {
			t.Errorf("control: libp2p's own certificate is good in %d", year)
		}
	}
}

// A peer that is not the one we dialled, and one that stops in the middle, get nowhere.
func TestHandshakeRefused(t *testing.T) {
	a, b, c := ours(t), ours(t), ours(t)
	if errA, _ := shake(t, a, party{b.SecureTransport, c.id}); errA == nil {
		t.Error("somebody else answered and we took it")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ca, cb := net.Pipe()
	defer cb.Close()
	done := make(chan error, 1)
	go func() { _, err := a.SecureInbound(ctx, ca, ""); done <- err }()
	cb.Write([]byte{22, 3, 1})
	cancel()
	if err := <-done; err == nil {
		t.Error("a handshake that never ended")
	}
}
