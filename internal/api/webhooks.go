package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Paths of the webhooks.
const (
	PathWebhooks    = "/api/v1/webhooks"
	PathWebhook     = "/api/v1/webhooks/{name}"
	PathDeadLetters = "/api/v1/webhooks/{name}/dead"
)

// HeaderSignature of a webhook's request is "t=T,v1=H": T in Unix seconds, H in hex the HMAC-SHA256 with the webhook's
// secret over T, a dot and the body. A receiver refuses what is too old.
const HeaderSignature = "X-Patchmesh-Signature"

// WebhookSpec is where events are sent.
type WebhookSpec struct {
	Name   string   `json:"name"`
	URL    string   `json:"url"`
	Events []string `json:"events"`           // kinds, e.g. "rollout", "quarantine"; empty: all
	Format string   `json:"format"`           // patchmesh (default), alertmanager
	Secret string   `json:"secret,omitempty"` // of the HMAC; empty: one is made
}

// WebhookInfo is a webhook without its secret, which the answer that made it shows once.
type WebhookInfo struct {
	WebhookSpec
	Created   time.Time  `json:"created"`
	Delivered int64      `json:"delivered"`
	Waiting   int        `json:"waiting"`
	Dead      int        `json:"dead"`
	LastError string     `json:"lastError,omitempty"`
	LastTry   *time.Time `json:"lastTry,omitempty"`
}

// DeadLetter is an event that could not be delivered.
type DeadLetter struct {
	ID    int64     `json:"id"`
	At    time.Time `json:"at"`
	Tries int       `json:"tries"`
	Error string    `json:"error"`
	Event Event     `json:"event"`
}

// Webhooks lists the webhooks by name.
func (c *Client) Webhooks(ctx context.Context) ([]WebhookInfo, error) {
	return ask[[]WebhookInfo](ctx, &c.caller, get(PathWebhooks, nil), nil)
}

// AddWebhook adds a webhook. Its secret is in this answer and nowhere else.
func (c *Client) AddWebhook(ctx context.Context, s WebhookSpec) (WebhookInfo, error) {
	return ask[WebhookInfo](ctx, &c.caller, call{method: http.MethodPost, path: PathWebhooks}, s)
}

// RemoveWebhook removes a webhook and all that waits for it.
func (c *Client) RemoveWebhook(ctx context.Context, name string) error {
	return c.json(ctx, call{method: http.MethodDelete, path: fill(PathWebhook, name), repeat: true}, nil, nil)
}

// DeadLetters lists events that could not be delivered, the oldest first, at most 1000.
func (c *Client) DeadLetters(ctx context.Context, name string) ([]DeadLetter, error) {
	return ask[[]DeadLetter](ctx, &c.caller, get(fill(PathDeadLetters, name), url.Values{"limit": {"1000"}}), nil)
}
