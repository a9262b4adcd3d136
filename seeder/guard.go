package seeder

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/time/rate"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Limits of what a stranger may do on the TLS listener.
const (
	strangerRate  = 2  // requests a second of one address: joins, and calls with a wrong token
	strangerBurst = 64 // a large store joins all at once, from one address
	maxStrangers  = 4096
	maxAPIConns   = 512
	maxAddrConns  = maxAPIConns / 2 // of one address: nobody alone keeps all others out

	maxMetricsConns = 16
)

// guard says who makes a request. Who shows no token that is known here may do what is open to all, at a bounded rate, and
// ask for health.
func guard(h http.Handler, who func(string) (caller, bool), open map[string]bool, refused func(*http.Request, int, string)) http.Handler {
	limits := &strangers{byAddr: map[netip.Addr]*rate.Limiter{}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		word, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		c, ok := who(word)
		c.From = r.RemoteAddr
		r = r.WithContext(withCaller(r.Context(), c))
		if !ok {
			w.Header().Set("Connection", "close") // a stranger keeps no connection: they are bounded
		}
		if ok || r.URL.Path == api.PathHealth {
			h.ServeHTTP(w, r)
			return
		}
		if !limits.allow(r.RemoteAddr) {
			w.Header().Set("Retry-After", "5")
			api.WriteError(w, problem.New(problem.Busy, "too many requests from %s", r.RemoteAddr).WithNext("wait, and try again"))
			return
		}
		if open[r.URL.Path] {
			h.ServeHTTP(w, r)
			return
		}
		err := denied(r, api.RoleViewer, c)
		refused(r, http.StatusForbidden, err.Error())
		w.Header().Set("WWW-Authenticate", `Bearer realm="patchmesh"`)
		api.WriteError(w, err)
	})
}

// strangers counts requests without a token by address.
type strangers struct {
	mu     sync.Mutex
	byAddr map[netip.Addr]*rate.Limiter
}

// hostOf is whom an address and port are of.
func hostOf(remote string) (netip.Addr, error) {
	ap, err := netip.ParseAddrPort(remote)
	addr := ap.Addr().Unmap()
	if addr.Is6() { // a host has a whole /64 to choose from
		p, _ := addr.WithZone("").Prefix(64)
		addr = p.Addr()
	}
	return addr, err
}

func (s *strangers) allow(remote string) bool {
	addr, err := hostOf(remote)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.byAddr[addr]
	if l == nil {
		if len(s.byAddr) >= maxStrangers {
			s.forget()
		}
		if len(s.byAddr) >= maxStrangers {
			return false
		}
		l = rate.NewLimiter(strangerRate, strangerBurst)
		s.byAddr[addr] = l
	}
	return l.Allow()
}

// forget drops those who have been quiet for long enough to be like new.
func (s *strangers) forget() {
	for a, l := range s.byAddr {
		if l.Tokens() >= strangerBurst {
			delete(s.byAddr, a)
		}
	}
}

// bounded is a listener with at most a fixed number of open connections; further ones wait in the kernel. Those of one
// address beyond its share are closed at once.
type bounded struct {
	net.Listener
	each   int // of one address
	places chan struct{}
	done   chan struct{}
	once   sync.Once

	mu     sync.Mutex
	byAddr map[netip.Addr]int
}

func bound(l net.Listener, most, each int) net.Listener {
	return &bounded{Listener: l, each: each, places: make(chan struct{}, most), done: make(chan struct{}), byAddr: map[netip.Addr]int{}}
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		select {
		case b.places <- struct{}{}:
		case <-b.done:
			return nil, net.ErrClosed
		}
		c, err := b.Listener.Accept()
		if err != nil {
			<-b.places
			return nil, err
		}
		addr, err := hostOf(c.RemoteAddr().String())
		if err == nil && b.enter(addr) {
			return &boundedConn{Conn: c, free: sync.OnceFunc(func() {
				b.leave(addr)
				<-b.places
			})}, nil
		}
		_ = c.Close() // it was not wanted
		<-b.places
	}
}

func (b *bounded) enter(addr netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byAddr[addr] >= b.each {
		return false
	}
	b.byAddr[addr]++
	return true
}

func (b *bounded) leave(addr netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byAddr[addr]--; b.byAddr[addr] == 0 {
		delete(b.byAddr, addr)
	}
}

func (b *bounded) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.Listener.Close()
}

type boundedConn struct {
	net.Conn
	free func()
}

func (c *boundedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
