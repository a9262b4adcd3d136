package isolate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/install/health"
	"github.com/patchmesh/patchmesh/install/preflight"
	"github.com/patchmesh/patchmesh/internal/manifest"
)

// Host is what the parent does for its worker, because it takes the machine's own network, or the rights and the
// surroundings of a person on it.
type Host interface {
	// Probe asks whether the machine is healthy. The answer no is a *health.UnhealthyError.
	Probe(ctx context.Context, c health.Check) error

	// Hooks asks the hooks of this machine whether a bundle may be installed now, nil: yes; or tells them what became of
	// it, to which there is no answer.
	Hooks(ctx context.Context, c preflight.Call) (*preflight.Deferral, error)

	// Reboot has the machine started again, soon after it returns.
	Reboot(ctx context.Context) error
}

// maxLine bounds a request and a reply in bytes, with the newline.
const maxLine = 4096

// Requests: "check BUNDLE SECONDS INTERVAL HOLD command|- URL|-", "hooks PHASE BUNDLE VERSION", "reboot".
// Replies: "yes", "no TEXT" (asked, and the answer is no), "error TEXT" (not answered). The text of a no to hooks begins
// with a reason and a number of seconds.

// request is one line, parsed.
type request struct {
	verb  string
	check health.Check
	call  preflight.Call
}

func (q request) String() string {
	switch q.verb {
	case "check":
		c := q.check
		command, url := "-", "-"
		if c.Command {
			command = "command"
		}
		if c.URL != "" {
			url = c.URL
		}
		return fmt.Sprintf("check %s %d %d %d %s %s\n", c.Bundle, seconds(c.Timeout), seconds(c.Interval), seconds(c.Hold), command, url)
	case "hooks":
		return fmt.Sprintf("hooks %s %s %s\n", q.call.Phase, q.call.Bundle, q.call.Version)
	}
	return q.verb + "\n"
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

func parseRequest(line string) (request, error) {
	f := strings.Split(line, " ")
	q := request{verb: f[0]}
	switch {
	case q.verb == "check" && len(f) == 7:
		c, err := parseCheck(f[1:])
		q.check = c
		return q, err
	case q.verb == "hooks" && len(f) == 4:
		q.call = preflight.Call{Phase: preflight.Phase(f[1]), Bundle: f[2], Version: f[3]}
		known := q.call.Phase == preflight.BeforeInstall || q.call.Phase == preflight.AfterInstall || q.call.Phase == preflight.RolledBack
		if !known || !manifest.ValidName(q.call.Bundle) || !manifest.ValidVersion(q.call.Version) {
			return q, errors.New("request names no valid phase, bundle and version")
		}
		return q, nil
	case q.verb == "reboot" && len(f) == 1:
		return q, nil
	}
	return q, errors.New("request is not of the known form")
}

func parseCheck(f []string) (health.Check, error) {
	if !manifest.ValidName(f[0]) {
		return health.Check{}, errors.New("request names no valid bundle")
	}
	if f[4] != "command" && f[4] != "-" {
		return health.Check{}, errors.New("request is not of the known form")
	}
	c := health.Check{Bundle: f[0], Command: f[4] == "command"}
	for i, d := range []*time.Duration{&c.Timeout, &c.Interval, &c.Hold} {
		n, err := strconv.ParseUint(f[1+i], 10, 31)
		if err != nil {
			return health.Check{}, errors.New("request has no valid number of seconds")
		}
		*d = time.Duration(n) * time.Second
	}
	if f[5] != "-" {
		c.URL = f[5]
	}
	return c, c.Validate()
}

// Serve answers requests until the other end closes. A request that is not of the known form ends it.
func Serve(ctx context.Context, requests io.Reader, replies io.Writer, h Host) error {
	r := bufio.NewReaderSize(requests, maxLine)
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("request of the worker: %w", err)
		}
		q, err := parseRequest(string(line[:len(line)-1]))
		if err != nil {
			return fmt.Errorf("request of the worker: %w", err)
		}
		if _, err := io.WriteString(replies, answer(ctx, h, q)); err != nil {
			return fmt.Errorf("reply to the worker: %w", err)
		}
	}
}

// answer does what a request asks for.
func answer(ctx context.Context, h Host, q request) string {
	var err error
	switch q.verb {
	case "check":
		var no *health.UnhealthyError
		if err = h.Probe(ctx, q.check); errors.As(err, &no) {
			return reply("no", no.Last.Error())
		}
	case "hooks":
		var no *preflight.Deferral
		if no, err = h.Hooks(ctx, q.call); err == nil && no != nil {
			return reply("no", fmt.Sprintf("%s %d %s", no.Reason, seconds(no.Retry), no.Detail))
		}
	case "reboot":
		err = h.Reboot(ctx)
	}
	if err != nil {
		return reply("error", err.Error())
	}
	return "yes\n"
}

func reply(word, text string) string {
	text = strings.ToValidUTF8(strings.Join(strings.Fields(text), " "), "?")
	return word + " " + text[:min(len(text), maxLine-16)] + "\n"
}

// ask sends a request and waits for the answer. When ctx ends first the request is left unanswered and nothing more may
// be asked.
func (o *Outside) ask(ctx context.Context, q request) (word, text string, err error) {
	stop := context.AfterFunc(ctx, func() { o.replies.Close() })
	defer stop()
	if _, err := io.WriteString(o.requests, q.String()); err != nil {
		return "", "", fmt.Errorf("question to the parent: %w", err)
	}
	line, err := bufio.NewReaderSize(o.replies, maxLine).ReadString('\n')
	if ctx.Err() != nil {
		return "", "", ctx.Err()
	}
	if err != nil {
		return "", "", fmt.Errorf("answer of the parent: %w", err)
	}
	word, text, _ = strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if word != "yes" && word != "no" {
		return "", "", fmt.Errorf("answer of the parent: %s", text)
	}
	return word, text, nil
}

// Probe asks the parent whether the machine is healthy.
func (o *Outside) Probe(ctx context.Context, c health.Check) error {
	if c.Empty() {
		return nil
	}
	if err := c.Validate(); err != nil {
		return err
	}
	word, text, err := o.ask(ctx, request{verb: "check", check: c})
	if err == nil && word == "no" {
		return &health.UnhealthyError{After: c.Timeout, Last: errors.New(text)}
	}
	return err
}

// Hooks has the parent ask or tell the hooks.
func (o *Outside) Hooks(ctx context.Context, c preflight.Call) (*preflight.Deferral, error) {
	word, text, err := o.ask(ctx, request{verb: "hooks", call: c})
	if err != nil || word == "yes" {
		return nil, err
	}
	reason, rest, _ := strings.Cut(text, " ")
	secs, detail, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(secs, 10, 31)
	if err != nil || reason == "" {
		return nil, fmt.Errorf("answer of the parent: %q is no deferral", text)
	}
	return &preflight.Deferral{Reason: preflight.Reason(reason), Detail: detail, Retry: time.Duration(n) * time.Second}, nil
}

// Reboot has the parent start the machine again.
func (o *Outside) Reboot(ctx context.Context) error {
	word, text, err := o.ask(ctx, request{verb: "reboot"})
	if err == nil && word == "no" {
		err = errors.New(text)
	}
	return err
}
