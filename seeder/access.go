package seeder

import (
	"crypto/sha256"
	"net/http"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// tokenPrefix tells scanners of leaked secrets what they have found.
const tokenPrefix = "patchmesh_"

// maxAccessTTL bounds the life of a token that ends.
const maxAccessTTL = 10 * 365 * 24 * time.Hour

func (s *Seeder) accessRoutes(handle func(string, string, route)) {
	handle("GET", api.PathAccess, s.getAccess)
	handle("POST", api.PathAccess, s.postAccess)
	handle("DELETE", api.PathAccessToken, s.deleteAccess)
	handle("GET", api.PathAudit, s.getAudit)
}

func (s *Seeder) getAccess(http.ResponseWriter, *http.Request) (any, error) {
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	out := make([]api.AccessInfo, len(s.tokens.list))
	for i, a := range s.tokens.list {
		out[i] = accessInfo(a)
	}
	return out, nil
}

func (s *Seeder) postAccess(w http.ResponseWriter, r *http.Request) (any, error) {
	var q api.AccessSpec
	if err := api.ReadJSON(w, r, api.MaxBody, &q); err != nil {
		return nil, err
	}
	about(r, q.Name)
	switch {
	case !manifest.ValidName(q.Name) || q.Name == "admin" || q.Name == "socket" || q.Name == "git" || q.Name == "rollout":
		return nil, problem.New(problem.Usage, "token name %.80q: want lower-case letters, digits, . _ -, at most 64, and none of the names that the audit log uses itself", q.Name)
	case q.Role != api.RoleViewer && q.Role != api.RoleOperator && q.Role != api.RoleAdmin && q.Role != api.RoleNode:
		return nil, problem.New(problem.Usage, "role %.20q: want viewer, operator, admin or node", q.Role)
	case q.TTLSeconds < 0 || q.TTLSeconds > int64(maxAccessTTL/time.Second):
		return nil, problem.New(problem.Usage, "a token lives 1 second to ten years, or with 0 for ever")
	}
	secret := tokenPrefix + randomHex(32)
	now := s.now().UTC().Truncate(time.Second)
	a := fleet.Access{Name: q.Name, Role: string(q.Role), By: callerOf(r.Context()).Name, Hash: sha256.Sum256([]byte(secret)), Created: now}
	if q.TTLSeconds > 0 {
		a.Expires = now.Add(time.Duration(q.TTLSeconds) * time.Second)
	}
	s.tokens.changing.Lock()
	defer s.tokens.changing.Unlock()
	if err := s.db.PutAccess(r.Context(), a); err != nil {
		return nil, err
	}
	if err := s.tokens.reload(r.Context()); err != nil {
		return nil, err
	}
	return api.AccessReply{AccessInfo: accessInfo(a), Token: secret}, nil
}

func (s *Seeder) deleteAccess(_ http.ResponseWriter, r *http.Request) (any, error) {
	s.tokens.changing.Lock()
	defer s.tokens.changing.Unlock()
	if err := s.db.RevokeAccess(r.Context(), r.PathValue("name"), s.now()); err != nil {
		return nil, err
	}
	return nil, s.tokens.reload(r.Context())
}

func accessInfo(a fleet.Access) api.AccessInfo {
	return api.AccessInfo{Name: a.Name, Role: api.Role(a.Role), Created: a.Created, By: a.By, Expires: perhaps(a.Expires), Revoked: perhaps(a.Revoked), LastUsed: perhaps(a.LastUsed)}
}

// perhaps is nil for a time that is not there.
func perhaps(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
