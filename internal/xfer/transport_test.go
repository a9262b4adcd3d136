package xfer_test

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

func sysctl(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func congestion(t *testing.T, s *xfer.Session) string {
	t.Helper()
	name, err := s.Congestion()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// What a host accepts sends as the host was told, what it dials as the machine is set. Control: a host that was told
// nothing.
func TestCongestionOfAcceptedConnections(t *testing.T) {
	usual := sysctl(t, "tcp_congestion_control")
	other := ""
	for _, name := range strings.Fields(sysctl(t, "tcp_allowed_congestion_control")) {
		if name != usual {
			other = name
		}
	}
	if other == "" {
		t.Skip("needs a second congestion control: sysctl net.ipv4.tcp_allowed_congestion_control")
	}
	told := start(t, func(c *xfer.Config, _ *end) { c.Congestion = other })
	dialled, accepted := meet(t, start(t), told)
	if a, d := congestion(t, accepted), congestion(t, dialled); a != other || d != usual {
		t.Errorf("accepted sends with %s, want %s; dialled with %s, want %s", a, other, d, usual)
	}
	if dialled, _ := meet(t, told, start(t)); congestion(t, dialled) != usual {
		t.Errorf("what the host dials sends with %s, want %s", congestion(t, dialled), usual)
	}
	if _, accepted := meet(t, start(t), start(t)); congestion(t, accepted) != usual {
		t.Errorf("control: sends with %s, want %s", congestion(t, accepted), usual)
	}
}

// Where the kernel does not allow the choice the host says so once, and works.
func TestCongestionRefused(t *testing.T) {
	var log bytes.Buffer
	h := start(t, func(c *xfer.Config, _ *end) {
		c.Congestion, c.Logger = "no-such-control", slog.New(slog.NewTextHandler(&log, nil))
	})
	for range 2 {
		meet(t, start(t), h)
	}
	h.stop()
	if n := strings.Count(log.String(), "wanted=no-such-control"); n != 1 {
		t.Errorf("said %d times: %s", n, &log)
	}
}

// pathUntil looks at a session's path until it is as wanted.
func pathUntil(t *testing.T, s *xfer.Session, what string, wanted func(xfer.Path) bool) xfer.Path {
	t.Helper()
	patience := time.After(20 * time.Second)
	for {
		p, ok := s.Path()
		if ok && wanted(p) {
			return p
		}
		select {
		case <-patience:
			t.Fatalf("%s: %+v %v", what, p, ok)
		case <-time.After(time.Millisecond):
		}
	}
}

// A session's path counts what it carries, wherever it waits, and at the end nothing waits any more.
func TestPath(t *testing.T) {
	a, b := start(t), start(t)
	sa, sb := meet(t, a, b)
	const chunks, size = 40, 100_000
	id, _ := b.hold(size)
	before, ok := sb.Path()
	if !ok || before.RTT <= 0 {
		t.Fatalf("before: %+v %v", before, ok)
	}
	for i := range chunks {
		sa.Send(&wire.Get{Req: uint32(i), ID: id})
		<-a.got
		if p, ok := sb.Path(); !ok || p.Pending > 2*size {
			t.Fatalf("chunk %d has arrived: %+v %v", i, p, ok)
		}
	}
	p := pathUntil(t, sb, "all has arrived", func(p xfer.Path) bool { return p.Pending == 0 })
	if n := p.Acked - before.Acked; p.Flight != 0 || n < chunks*size || n > chunks*size*102/100 || p.Sent < p.Acked {
		t.Errorf("after: %+v, before: %+v", p, before)
	}
	sb.End(nil)
	<-b.down
	if p, ok := sb.Path(); ok {
		t.Errorf("a path of a connection that is closed: %+v", p)
	}
}

// What waits because the peer does not read is pending, in the socket and in front of it, until it is read.
func TestPathPending(t *testing.T) {
	hold := make(chan struct{})
	a := start(t, func(_ *xfer.Config, e *end) {
		e.listen = func(*xfer.Session, wire.Message) error { <-hold; return nil }
	})
	b := start(t)
	sa, sb := meet(t, a, b)
	const chunks, size = 16, 1 << 20
	id, _ := b.hold(size)
	for i := range chunks {
		sa.Send(&wire.Get{Req: uint32(i), ID: id})
	}
	pathUntil(t, sb, "nobody reads", func(p xfer.Path) bool { return p.Pending > size/4 })
	close(hold)
	pathUntil(t, sb, "all was read", func(p xfer.Path) bool { return p.Acked > chunks*size && p.Pending == 0 })
}
