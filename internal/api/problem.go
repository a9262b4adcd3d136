package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// ProblemType is the media type of an error.
const ProblemType = "application/problem+json"

// maxProblem bounds the body of an error answer, in bytes.
const maxProblem = 64 << 10

// Problem is RFC 9457 with our members. The cause travels as text inside detail: its type ends at the wire.
type Problem struct {
	Type   string       `json:"type"`
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail"`
	Code   problem.Code `json:"code"`
	Done   string       `json:"done,omitempty"`
	Next   string       `json:"next,omitempty"`
}

// HTTPStatus is the status of an answer that carries the code.
func HTTPStatus(c problem.Code) int {
	switch c {
	case problem.Denied, problem.TokenInvalid, problem.PeerNotOnRoster:
		return http.StatusForbidden
	case problem.Busy:
		return http.StatusTooManyRequests
	case problem.ChangedMeanwhile:
		return http.StatusPreconditionFailed
	case problem.DiskFull, problem.QuotaExceeded:
		return http.StatusInsufficientStorage
	}
	p, _ := problem.Lookup(c)
	switch p.Exit {
	case problem.ExitUsage:
		return http.StatusBadRequest
	case problem.ExitVerification:
		return http.StatusUnprocessableEntity
	case problem.ExitConflict:
		return http.StatusConflict
	case problem.ExitNotFound:
		return http.StatusNotFound
	case problem.ExitUnreachable:
		return http.StatusServiceUnavailable
	case problem.ExitTimeout:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// WriteError answers with the *problem.Error in err's chain. Any other error becomes an internal one whose text stays
// here: log it before.
func WriteError(w http.ResponseWriter, err error) {
	status, body := ErrorBody(err)
	w.Header().Set("Content-Type", ProblemType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the reader is gone; there is nobody to tell
}

// ErrorBody is the status and the body of WriteError's answer.
func ErrorBody(err error) (status int, body []byte) {
	var p *problem.Error
	if !errors.As(err, &p) {
		p = problem.New(problem.Internal, "the request could not be served").WithNext("the server's log has the cause")
	}
	page, _ := problem.Lookup(p.Code)
	b := Problem{
		Type: "urn:patchmesh:problem:" + string(p.Code), Title: page.Title, Status: HTTPStatus(p.Code),
		Detail: p.Subject, Code: p.Code, Done: p.Done, Next: p.Next,
	}
	if p.Cause != nil {
		b.Detail += ": " + p.Cause.Error()
	}
	body, err = json.Marshal(b)
	if err != nil { // strings and a number only
		panic(err)
	}
	return b.Status, append(body, '\n')
}

// readError turns an answer outside 2xx into an error: the problem it carries, or one made of its status.
func readError(r *http.Response) *problem.Error {
	b, _ := io.ReadAll(io.LimitReader(r.Body, maxProblem)) // what arrived is enough to judge by
	var p Problem
	if json.Unmarshal(b, &p) == nil && p.Code != "" {
		e := problem.New(p.Code, "%s", p.Detail)
		e.Done, e.Next = p.Done, p.Next
		return e
	}
	code := problem.Internal
	switch r.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		code = problem.Denied
	case http.StatusNotFound:
		code = problem.NotFound
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		code = problem.Busy
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		code = problem.InvalidFile
	}
	return problem.New(code, "%s %s answered %s", r.Request.Method, r.Request.URL.Path, r.Status)
}

// maxRetryAfter bounds how long a client waits because a server says so.
const maxRetryAfter = 30 * time.Second

// retryAfter reads the header in its form of seconds; 0 when there is none.
func retryAfter(h http.Header) time.Duration {
	s, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || s < 0 {
		return 0
	}
	return min(time.Duration(min(s, 3600))*time.Second, maxRetryAfter)
}
