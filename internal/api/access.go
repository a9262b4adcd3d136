package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Paths of the tokens of the API and of the audit log.
const (
	PathAccess      = "/api/v1/access"
	PathAccessToken = "/api/v1/access/{name}"
	PathAudit       = "/api/v1/audit"
)

// Role says what a token may be used for.
type Role string

// The roles. A node token may do nothing but send reports to PathLegacy.
const (
	RoleNode     Role = "node"
	RoleViewer   Role = "viewer"
	RoleOperator Role = "operator"
	RoleAdmin    Role = "admin"
)

// AccessSpec asks for a token.
type AccessSpec struct {
	Name       string `json:"name"`
	Role       Role   `json:"role"`
	TTLSeconds int64  `json:"ttlSeconds"` // 0: it does not end
}

// AccessInfo is a token without its secret.
type AccessInfo struct {
	Name     string     `json:"name"`
	Role     Role       `json:"role"`
	Created  time.Time  `json:"created"`
	By       string     `json:"createdBy"`
	Expires  *time.Time `json:"expires,omitempty"`
	Revoked  *time.Time `json:"revoked,omitempty"`
	LastUsed *time.Time `json:"lastUsed,omitempty"`
}

// AccessReply carries the secret, once.
type AccessReply struct {
	AccessInfo
	Token string `json:"token"`
}

// AuditEntry is one change, or one that was refused: who, what, from where.
type AuditEntry struct {
	ID      int64     `json:"id"`
	At      time.Time `json:"at"`
	Who     string    `json:"who"` // name of the token; "socket", "git", "rollout"
	Role    Role      `json:"role"`
	From    string    `json:"from"`    // address, or uid of the socket's other end
	Action  string    `json:"action"`  // "POST /api/v1/sites"
	Subject string    `json:"subject"` // what it is about: SITE, SITE/NODE, policy
	Status  int       `json:"status"`  // of the answer
	Detail  string    `json:"detail,omitempty"`
}

// AuditPage is a page of the audit log, in its order.
type AuditPage struct {
	Entries []AuditEntry `json:"entries"`
	Next    int64        `json:"next"`
}

// AccessList lists the tokens of the API by name.
func (c *Client) AccessList(ctx context.Context) ([]AccessInfo, error) {
	return ask[[]AccessInfo](ctx, &c.caller, get(PathAccess, nil), nil)
}

// CreateAccess makes a token. Its secret is in this answer and nowhere else.
func (c *Client) CreateAccess(ctx context.Context, s AccessSpec) (AccessReply, error) {
	return ask[AccessReply](ctx, &c.caller, call{method: http.MethodPost, path: PathAccess}, s)
}

// RevokeAccess ends a token.
func (c *Client) RevokeAccess(ctx context.Context, name string) error {
	return c.json(ctx, call{method: http.MethodDelete, path: fill(PathAccessToken, name), repeat: true}, nil, nil)
}

// Audit returns a page of the audit log after an entry; newest: its last entries.
func (c *Client) Audit(ctx context.Context, after int64, limit int, newest bool) (AuditPage, error) {
	q := url.Values{"after": {strconv.FormatInt(after, 10)}, "limit": {strconv.Itoa(limit)}}
	if newest {
		q.Set("newest", "1")
	}
	return ask[AuditPage](ctx, &c.caller, get(PathAudit, q), nil)
}
