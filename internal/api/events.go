package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// PathWatch is the stream of events.
const PathWatch = "/api/v1/watch"

// Event is something that happened in the fleet: what PathWatch and webhooks tell.
type Event struct {
	ID       int64     `json:"id"` // grows; the Last-Event-ID of the watch
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"`     // rollout, site, node, quarantine, bundle, policy, sync
	Name     string    `json:"name"`     // what happened: "paused", "silent", "installed"
	Severity string    `json:"severity"` // info, warning, critical
	Subject  string    `json:"subject"`
	Text     string    `json:"text"`
	Code     string    `json:"code,omitempty"`
	Policy   string    `json:"policy,omitempty"`
	Site     string    `json:"site,omitempty"`
	Node     string    `json:"node,omitempty"`
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
