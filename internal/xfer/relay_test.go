package xfer_test

import (
	"net"
	"net/netip"
	"sync"
	"testing"
)

// relay is a wire between a dialler and a host that can go dead: nothing is closed, nothing passes any more.
type relay struct {
	ln   net.Listener
	to   string
	dead sync.RWMutex // write-locked while nothing passes
	wg   sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

func newRelay(t *testing.T, to netip.AddrPort) *relay {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln, to: to.String()}
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		r.dead.TryLock()
		r.dead.Unlock() // cut or not: let the copiers see that their connections are closed
		ln.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			c.Close()
		}
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

func (r *relay) addr() netip.AddrPort { return r.ln.Addr().(*net.TCPAddr).AddrPort() }

// cut makes the wire go dead.
func (r *relay) cut() { r.dead.Lock() }

func (r *relay) accept() {
	for {
		a, err := r.ln.Accept()
		if err != nil {
			return
		}
		b, err := net.Dial("tcp", r.to)
		if err != nil {
			a.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, a, b)
		r.mu.Unlock()
		r.wg.Go(func() { r.pass(a, b) })
		r.wg.Go(func() { r.pass(b, a) })
	}
}

func (r *relay) pass(from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		r.dead.RLock()
		if n > 0 {
			to.Write(buf[:n])
		}
		if err != nil {
			to.Close()
		}
		r.dead.RUnlock()
		if err != nil {
			return
		}
	}
}
