package seeder

import (
	"net"
	"net/http"
	"testing"

	"github.com/patchmesh/patchmesh/internal/api"
)

// One address cannot take every place of the listener; without a share of its own it can, and the next waits for ever.
func TestConnectionsOfOneAddress(t *testing.T) {
	for what, c := range map[string]struct{ each, kept int }{"a share": {2, 2}, "control, none": {4, 4}} {
		t.Run(what, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			b := bound(l, 4, c.each)
			accepted := make(chan net.Conn)
			go func() {
				defer close(accepted)
				for {
					c, err := b.Accept()
					if err != nil {
						return
					}
					accepted <- c
				}
			}()
			dial := func(from string) net.Conn {
				t.Helper()
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
				x, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = x.Close() })
				return x
			}
			var kept []net.Conn
			for range c.kept {
				dial("127.0.0.1")
				kept = append(kept, <-accepted)
			}
			if c.kept < 4 {
				if _, err := dial("127.0.0.1").Read(make([]byte, 1)); err == nil {
					t.Error("one more than its share")
				}
				dial("127.0.0.2")
				kept = append(kept, <-accepted)
				if err := kept[0].Close(); err != nil {
					t.Error(err)
				}
				dial("127.0.0.1") // a place that is free again
				kept = append(kept, <-accepted)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			for range accepted {
				t.Error("one more")
			}
			for _, x := range kept {
				_ = x.Close()
			}
		})
	}
}

// Who shows no token keeps no connection.
func TestStrangersKeepNoConnection(t *testing.T) {
	b := start(t, nil)
	for token, want := range map[string]string{"": "close", b.token: ""} {
		if w := b.as(token, "GET", api.PathHealth, ""); w.Code != http.StatusOK || w.Header().Get("Connection") != want {
			t.Errorf("%d, connection %q, want %q", w.Code, w.Header().Get("Connection"), want)
		}
	}
}
