package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Retries of calls that may be repeated safely: full jitter over a doubling delay.
const (
	attempts   = 5
	backoffMin = 100 * time.Millisecond
	backoffMax = 5 * time.Second
)

// endpoint is one address of a server.
type endpoint struct {
	addr string // as the person wrote it
	base string // scheme and host for requests
	http *http.Client
}

// newEndpoint accepts "unix:///path" and "https://host:port" with a pin.
func newEndpoint(addr, pin string) (*endpoint, error) {
	u, err := url.Parse(addr)
	if err != nil {
		return nil, problem.New(problem.Usage, "address %q is not a URL", addr).Because(err)
	}
	d := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	t := &http.Transport{
		DialContext: d.DialContext, TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute,
		MaxIdleConnsPerHost: 8, DisableCompression: true,
	}
	e := &endpoint{addr: addr, http: &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || u.Path == "" {
			return nil, problem.New(problem.Usage, "address %q: want unix:///path", addr)
		}
		e.base = "http://unix"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", u.Path)
		}
	case "https":
		if u.Host == "" || strings.Trim(u.Path, "/") != "" {
			return nil, problem.New(problem.Usage, "address %q: want https://host:port", addr)
		}
		if pin == "" {
			return nil, problem.New(problem.Usage, "address %q needs the seeder's peer ID as a pin", addr)
		}
		if t.TLSClientConfig, err = PinnedTLS(pin); err != nil {
			return nil, problem.New(problem.Usage, "pin %q", pin).Because(err)
		}
		e.base = "https://" + u.Host
	default:
		return nil, problem.New(problem.Usage, "address %q: want unix:///path or https://host:port", addr)
	}
	return e, nil
}

// caller sends requests to the first of its endpoints that answers.
type caller struct {
	endpoints   []*endpoint
	token       string
	unreachable problem.Code
	next        string
	sleep       func(context.Context, time.Duration) error
}

// call is one request. A body that is not nil is sent again on a retry, so only bodies in memory are retried.
type call struct {
	method, path string
	query        url.Values
	body         []byte
	stream       io.Reader // instead of body; never retried
	contentType  string
	repeat       bool  // safe to send twice
	limit        int64 // of the answer, bytes
}

// do returns the body of a 2xx answer.
func (c *caller) do(ctx context.Context, q call) ([]byte, error) {
	tries := 1
	if q.repeat && q.stream == nil {
		tries = attempts
	}
	var last error
	for try := range tries {
		var wait time.Duration
		for _, e := range c.endpoints {
			b, after, err := c.once(ctx, e, q)
			if err == nil {
				return b, nil
			}
			if ctx.Err() != nil {
				return nil, fmt.Errorf("%s %s: %w", q.method, q.path, context.Cause(ctx))
			}
			last = err
			switch problem.CodeOf(err) {
			case c.unreachable: // another address, or the same again
			case problem.Busy:
				wait = max(wait, after)
			default:
				return nil, err
			}
			if (!q.repeat || q.stream != nil) && !neverSent(err) {
				return nil, err // it may have been done, or part of the stream is consumed
			}
		}
		if try+1 < tries {
			back := min(backoffMin<<try, backoffMax)
			if err := c.sleep(ctx, max(wait, rand.N(back))); err != nil {
				return nil, last
			}
		}
	}
	return nil, last
}

func (c *caller) once(ctx context.Context, e *endpoint, q call) (_ []byte, after time.Duration, _ error) {
	var body io.Reader
	switch {
	case q.stream != nil:
		body = q.stream
	case q.body != nil:
		body = bytes.NewReader(q.body)
	}
	r, err := http.NewRequestWithContext(ctx, q.method, e.base+q.path, body)
	if err != nil {
		return nil, 0, problem.New(problem.Usage, "%s %s", q.method, q.path).Because(err)
	}
	r.URL.RawQuery = q.query.Encode()
	if q.contentType != "" {
		r.Header.Set("Content-Type", q.contentType)
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := e.http.Do(r)
	if err != nil {
		var p *problem.Error
		if errors.As(err, &p) { // the pin did not match
			return nil, 0, p
		}
		return nil, 0, c.gone(e, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return nil, retryAfter(resp.Header), readError(resp)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, q.limit+1))
	if err != nil {
		return nil, 0, c.gone(e, err)
	}
	if int64(len(b)) > q.limit {
		return nil, 0, problem.New(problem.Internal, "%s %s: the answer has more than %d bytes", q.method, q.path, q.limit)
	}
	return b, 0, nil
}

// neverSent reports whether the request did not leave this machine.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func (c *caller) gone(e *endpoint, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return problem.New(c.unreachable, "no answer from %s", e.addr).Because(err).WithNext("%s", c.next)
}

// json sends in (unless nil) and decodes the answer into out (unless nil).
func (c *caller) json(ctx context.Context, q call, in, out any) error {
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: %w", q.method, q.path, err)
		}
		q.body, q.contentType = b, "application/json"
	}
	if q.limit == 0 {
		q.limit = maxAnswer
	}
	b, err := c.do(ctx, q)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return problem.New(problem.Internal, "%s %s: the answer is not the expected JSON", q.method, q.path).Because(err)
	}
	return nil
}

// ask is json with the answer as a value.
func ask[T any](ctx context.Context, c *caller, q call, in any) (T, error) {
	var out T
	err := c.json(ctx, q, in, &out)
	return out, err
}

// chunk reads one chunk over the gateway and checks that it is the one asked for.
func (c *caller) chunk(ctx context.Context, id chunk.ID) ([]byte, error) {
	b, err := c.do(ctx, call{
		method: http.MethodGet, path: "/ipfs/" + id.String(), query: url.Values{"format": {"raw"}},
		repeat: true, limit: chunk.MaxSize,
	})
	if err != nil {
		return nil, err
	}
	if got := chunk.Sum(b); got != id {
		return nil, problem.New(problem.ChunkCorrupt, "chunk %s: the answer hashes to %s", id, got).
			WithDone("the bytes were dropped")
	}
	return b, nil
}

// CloseIdle closes kept-alive connections.
func (c *caller) CloseIdle() {
	for _, e := range c.endpoints {
		e.http.CloseIdleConnections()
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fill puts escaped values into the {placeholders} of a path pattern, in order.
func fill(pattern string, values ...string) string {
	for _, v := range values {
		i, j := strings.IndexByte(pattern, '{'), strings.IndexByte(pattern, '}')
		pattern = pattern[:i] + url.PathEscape(v) + pattern[j+1:]
	}
	return pattern
}
