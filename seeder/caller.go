package seeder

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// caller is who makes a request. The zero value is a stranger.
type caller struct {
	Name string // of the token, "admin" of the first one, "socket"
	Role api.Role
	From string // address, or uid of the socket's other end
}

type callerKey struct{}

// callerOf is who made the request of a context.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

func withCaller(ctx context.Context, c caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// anyone needs no token: what such a route is asked for carries its own proof.
const anyone api.Role = ""

// may reports whether a role is enough. A node's is no step on the way to the others: it sends reports, and that is all.
func may(least, have api.Role) bool {
	rank := func(r api.Role) int {
		switch r {
		case api.RoleViewer:
			return 1
		case api.RoleOperator:
			return 2
		case api.RoleAdmin:
			return 3
		}
		return 0
	}
	switch least {
	case anyone:
		return true
	case api.RoleNode:
		return have == api.RoleNode || rank(have) >= rank(api.RoleOperator)
	}
	return rank(least) > 0 && rank(have) >= rank(least)
}

// tokens knows who holds which token. It follows the database: a change is committed first, then shown here.
type tokens struct {
	db    *fleet.Store
	now   func() time.Time
	first [sha256.Size]byte // of the administrator's token in the state directory

	changing sync.Mutex // held from changing the database to showing what it says

	mu   sync.Mutex
	list []fleet.Access
	used map[string]time.Time // not yet written
}

func loadTokens(ctx context.Context, db *fleet.Store, first string, now func() time.Time) (*tokens, error) {
	t := &tokens{db: db, now: now, first: sha256.Sum256([]byte(first)), used: map[string]time.Time{}}
	return t, t.reload(ctx)
}

func (t *tokens) reload(ctx context.Context) error {
	list, err := t.db.AccessList(ctx)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = list
	return nil
}

// who finds the holder of a secret. It compares with every token, so that the time says nothing about any.
func (t *tokens) who(secret string) (c caller, ok bool) {
	got := sha256.Sum256([]byte(secret))
	now := t.now()
	if subtle.ConstantTimeCompare(got[:], t.first[:]) == 1 {
		c, ok = caller{Name: "admin", Role: api.RoleAdmin}, true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.list {
		a := &t.list[i]
		if subtle.ConstantTimeCompare(got[:], a.Hash[:]) == 1 && a.Revoked.IsZero() && (a.Expires.IsZero() || now.Before(a.Expires)) {
			c, ok = caller{Name: a.Name, Role: api.Role(a.Role)}, true
			a.LastUsed, t.used[a.Name] = now, now
		}
	}
	return c, ok
}

// holds reports whether a caller may still be who it was: its token is neither revoked nor past its end.
func (t *tokens) holds(c caller) bool {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range t.list {
		if a.Name == c.Name {
			return a.Revoked.IsZero() && (a.Expires.IsZero() || now.Before(a.Expires))
		}
	}
	return true // the administrator, the socket
}

// flush writes when tokens were last used. What a crash loses is made up for by the next use.
func (t *tokens) flush(ctx context.Context) error {
	t.mu.Lock()
	used := t.used
	t.used = map[string]time.Time{}
	t.mu.Unlock()
	if len(used) == 0 {
		return nil
	}
	return t.db.UsedAccess(ctx, used)
}

// trusted lets everybody in who can open the socket: the file's permissions are the credential. The kernel says who it is.
func trusted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _ := r.Context().Value(peerKey{}).(string)
		h.ServeHTTP(w, r.WithContext(withCaller(r.Context(), caller{Name: "socket", Role: api.RoleAdmin, From: from})))
	})
}

type peerKey struct{}

// withPeer notes who is at the other end of a unix socket.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	from := "uid not known"
	_ = raw.Control(func(fd uintptr) { // an error leaves it not known
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			from = fmt.Sprintf("uid %d", cred.Uid)
		}
	})
	return context.WithValue(ctx, peerKey{}, from)
}
