package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/patchmesh/patchmesh/internal/problem"
)

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

// Quarantines lists who is under quarantine, the newest first; all: who was, too.
func (c *Client) Quarantines(ctx context.Context, all bool) ([]QuarantineEntry, error) {
	var q url.Values
	if all {
		q = url.Values{"all": {"1"}}
	}
	return ask[[]QuarantineEntry](ctx, &c.caller, get(PathQuarantine, q), nil)
}

// AddQuarantine puts a node or a source under quarantine.
func (c *Client) AddQuarantine(ctx context.Context, s QuarantineSpec) (QuarantineEntry, error) {
	return ask[QuarantineEntry](ctx, &c.caller, call{method: http.MethodPost, path: PathQuarantine}, s)
}

// ReleaseQuarantine ends a quarantine. The reason is kept.
func (c *Client) ReleaseQuarantine(ctx context.Context, id int64, reason string) (QuarantineEntry, error) {
	return ask[QuarantineEntry](ctx, &c.caller, call{method: http.MethodDelete, path: fill(PathQuarantineEntry, strconv.FormatInt(id, 10)),
		query: url.Values{"reason": {reason}}, repeat: true}, nil)
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

// maxEventLine bounds one line of a stream, in bytes.
const maxEventLine = 256 << 10

// Watch calls each for every event until the context or the stream ends. last is the number of the last event that was
// seen, 0 for none; what is returned is where to go on. missed is called when some were missed.
func (c *Client) Watch(ctx context.Context, last int64, each func(Event) error, missed func()) (int64, error) {
	var err error
	for _, e := range c.endpoints {
		var began bool
		if last, began, err = c.stream(ctx, e, last, each, missed); began || ctx.Err() != nil || problem.CodeOf(err) != c.unreachable {
			break
		}
	}
	return last, err
}

func (c *Client) stream(ctx context.Context, e *endpoint, last int64, each func(Event) error, missed func()) (_ int64, began bool, _ error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, e.base+PathWatch, nil)
	if err != nil {
		return last, false, err
	}
	if last > 0 {
		r.Header.Set("Last-Event-ID", strconv.FormatInt(last, 10))
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := e.http.Do(r)
	if err != nil {
		var p *problem.Error
		if errors.As(err, &p) { // the pin did not match
			return last, false, p
		}
		return last, false, c.gone(e, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return last, true, readError(resp)
	}
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, maxEventLine)
	var kind, data string
	var id int64
	for in.Scan() {
		field, value, _ := strings.Cut(in.Text(), ": ")
		switch field {
		case "id":
			if id, err = strconv.ParseInt(value, 10, 64); err != nil {
				return last, true, problem.New(problem.Internal, "the stream of events has the number %.40q", value)
			}
		case "event":
			kind = value
		case "data":
			data = value
		case "": // the end of one, or a comment
			if kind == "" {
				continue
			}
			last = id
			switch kind {
			case "snapshot", "resume":
			case "resync":
				missed()
			default:
				var x Event
				if err := json.Unmarshal([]byte(data), &x); err != nil {
					return last, true, problem.New(problem.Internal, "an event is not the expected JSON").Because(err)
				}
				if err := each(x); err != nil {
					return last, true, err
				}
			}
			kind, data = "", ""
		}
	}
	if err = in.Err(); err == nil {
		err = io.ErrUnexpectedEOF
	}
	return last, true, c.gone(e, err)
}
