package xfer_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// Two addresses of a namespace that are not 127.0.0.0/8, which libp2p exempts from its limits of one address. That
// the packets between them take the namespace's loopback device makes no difference: addresses are what is counted.
const hostAddr, otherAddr = "10.9.0.1", "10.9.0.2"

// inNamespace runs the test once more, in a network namespace of its own, and says whether this is that run.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const mark = "PATCHMESH_XFER_NAMESPACE"
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("needs ip: apt-get install iproute2")
	}
	if os.Getenv(mark) == t.Name() {
		for _, args := range [][]string{{"link", "set", "lo", "up"}, {"addr", "add", hostAddr + "/32", "dev", "lo"}, {"addr", "add", otherAddr + "/32", "dev", "lo"}} {
			if out, err := exec.Command(ip, args...).CombinedOutput(); err != nil {
				t.Fatalf("ip %v: %v: %s", args, err, out)
			}
		}
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skip("needs network namespaces: run as root, or allow unprivileged user namespaces")
	}
	t.Logf("in the namespace:\n%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}

func at(l xfer.Limits) func(*xfer.Config, *end) {
	return func(c *xfer.Config, _ *end) { c.Listen, c.Limits = hostAddr+":0", l }
}

// Several uplinks behind one address (a NAT) reach a seeder. libp2p's own limits, the control, take eight, and so does
// a node, on purpose: in a site every node has an address of its own.
func TestManyFromOneAddress(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	const many = 20
	seeder, node := start(t, at(xfer.SeederLimits())), start(t, at(xfer.NodeLimits()))
	for range many {
		newStranger(t, newKey(t)).join(t, seeder)
	}
	count := func(to peer.AddrInfo) (n int) {
		for range many {
			if newStranger(t, newKey(t)).Connect(t.Context(), to) == nil {
				n++
			}
		}
		return n
	}
	if n := count(addrInfo(t, node)); n != xfer.NodeLimits().ConnsPerAddress {
		t.Errorf("a node takes %d connections from one address", n)
	}
	plain, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/"+hostAddr+"/tcp/0"), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if n := count(peer.AddrInfo{ID: plain.ID(), Addrs: plain.Addrs()}); n >= many {
		t.Errorf("control: libp2p's own limits take %d of %d connections from one address", n, many)
	} else {
		t.Logf("libp2p's own limits take %d of %d", n, many)
	}
}

// loris opens n connections from an address that never say more than a byte, and returns how many the host closed at
// once, when as many as expected have been.
func loris(t *testing.T, from string, to netip.AddrPort, n, refused int) (closeAll func()) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	closed := make(chan struct{}, n)
	var conns []net.Conn
	for i := range n {
		c, err := d.Dial("tcp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			c.Write([]byte{19})
		}
		conns = append(conns, c)
		go func() {
			io.Copy(io.Discard, c)
			closed <- struct{}{}
		}()
	}
	for range refused {
		<-closed
	}
	return func() {
		for _, c := range conns {
			c.Close()
		}
		for range n - refused {
			<-closed
		}
	}
}

// identifyLoop is libp2p's own and lives as long as the host; it may start after a test has looked.
var identifyLoop = goleak.IgnoreAnyFunction("github.com/libp2p/go-libp2p/p2p/protocol/identify.(*idService).loop.func1")

// converse has two ends meet, one get a chunk of the other, and part.
func converse(t *testing.T, a, b *end) {
	t.Helper()
	id, plain := b.hold(300_000)
	sa, _ := meet(t, a, b)
	sa.Send(&wire.Get{ID: id})
	if d := (<-a.got).(*wire.Data); !bytes.Equal(d.Payload, plain) {
		t.Error("wrong chunk")
	}
	sa.End(errors.New("done"))
	<-a.down
	<-b.down
}

// Hundreds of silent connections from one address do not keep a peer at another from its session and its chunk. The
// control, without the limit of one address, shows that they would.
func TestSlowLoris(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	const n = 300
	l := xfer.NodeLimits()
	b, a := start(t, at(l)), start(t, at(l))
	before := goleak.IgnoreCurrent()
	closeAll := loris(t, otherAddr, b.Addr(), n, n-l.ConnsPerAddress)
	converse(t, a, b)
	closeAll()
	goleak.VerifyNone(t, before, identifyLoop)

	l.ConnsPerAddress, l.NewPerSecond, l.NewBurst = n, 1e6, 1e6
	b = start(t, at(l))
	defer loris(t, otherAddr, b.Addr(), n, n-l.TransientConns)()
	if err := a.Dial(t.Context(), b.ID(), b.Addr()); err == nil {
		t.Error("control: without the limit of one address the peer got in as well")
	}
}

// The same without a namespace: loopback is exempt from the limit of one address, so there are fewer of them.
func TestSilentConnections(t *testing.T) {
	b, a := start(t), start(t)
	before := goleak.IgnoreCurrent()
	closeAll := loris(t, "127.0.0.1", b.Addr(), xfer.NodeLimits().TransientConns-4, 0)
	converse(t, a, b)
	closeAll()
	goleak.VerifyNone(t, before, identifyLoop)
}
