package api

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	stdlog "log" //nolint:depguard // net/http takes no other
	"log/slog"
	"net/http"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// Paths of what describes and what measures the rest.
const (
	PathOpenAPI = "/api/v1/openapi.json"
	PathMetrics = "/metrics"
)

// HeaderIdempotency carries a key that the caller chose: a change that is asked for again with the same key is answered
// as the first time and not made twice. Keys are kept for a day.
const HeaderIdempotency = "Idempotency-Key"

// Timeouts of a server. patience is how long a peer may make no progress while a body is read or an answer is written.
const (
	headerTimeout = 5 * time.Second
	idleTimeout   = 2 * time.Minute
	patience      = 30 * time.Second
	maxHeader     = 16 << 10
)

// NewServer returns a server with every limit set. HTTP/2 is off: nothing here needs it, and it is one thing less that
// speaks before a credential is seen.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       patience,
		WriteTimeout:      2 * patience,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          stdlog.New(errorLog{log}, "", 0),
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
}

// errorLog takes what net/http says. Failed handshakes are the noise of strangers; anything else is a fault of ours.
type errorLog struct{ *slog.Logger }

func (l errorLog) Write(b []byte) (int, error) {
	msg := string(bytes.TrimSpace(b))
	if bytes.HasPrefix(b, []byte("http: TLS handshake error")) {
		l.Debug("http server", "what", msg)
	} else {
		l.Error("http server", "what", msg)
	}
	return len(b), nil
}

// Body returns the request's body cut at max bytes. The connection's deadlines move with every read that brings
// something, so a long upload may take its time and a stalled one may not.
func Body(w http.ResponseWriter, r *http.Request, max int64) io.Reader {
	return &movingBody{http.MaxBytesReader(w, r.Body, max), http.NewResponseController(w)}
}

type movingBody struct {
	r io.Reader
	c *http.ResponseController
}

func (b *movingBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if n > 0 {
		now := time.Now()
		_ = b.c.SetReadDeadline(now.Add(patience)) // only a test's recorder cannot
		_ = b.c.SetWriteDeadline(now.Add(2 * patience))
	}
	return n, err
}

// ReadJSON decodes one JSON value of at most max bytes into v and refuses unknown fields and anything after it.
func ReadJSON(w http.ResponseWriter, r *http.Request, max int64, v any) error {
	d := json.NewDecoder(Body(w, r, max))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("something follows the JSON value")
	}
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return problem.New(problem.InvalidFile, "the request has more than %d bytes", big.Limit)
	}
	return problem.New(problem.InvalidFile, "the request is not the expected JSON").Because(err)
}

// WriteJSON answers with v.
func WriteJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil { // only a type that cannot be encoded
		WriteError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(append(b, '\n')) // the reader is gone; there is nobody to tell
}
