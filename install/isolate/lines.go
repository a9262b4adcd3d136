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
	"github.com/patchmesh/patchmesh/internal/manifest"
)

// maxLine bounds a request and a reply in bytes, with the newline.
const maxLine = 4096

// Requests: "check BUNDLE SECONDS command|- URL|-". Replies: "yes", "no TEXT" (asked, not healthy), "error TEXT".

func formatCheck(c health.Check) string {
	command, url := "-", "-"
	if c.Command {
		command = "command"
	}
	if c.URL != "" {
		url = c.URL
	}
	return fmt.Sprintf("check %s %d %s %s\n", c.Bundle, int64(c.Timeout/time.Second), command, url)
}

func parseCheck(line string) (health.Check, error) {
	f := strings.Split(line, " ")
	if len(f) != 5 || f[0] != "check" || (f[3] != "command" && f[3] != "-") {
		return health.Check{}, errors.New("request is not of the known form")
	}
	if !manifest.ValidName(f[1]) {
		return health.Check{}, errors.New("request names no valid bundle")
	}
	secs, err := strconv.ParseUint(f[2], 10, 32)
	if err != nil {
		return health.Check{}, errors.New("request has no valid timeout")
	}
	c := health.Check{Bundle: f[1], Timeout: time.Duration(secs) * time.Second, Command: f[3] == "command"}
	if f[4] != "-" {
		c.URL = f[4]
	}
	return c, c.Validate()
}

// Serve answers requests until the other end closes. A request that is not of the known form ends it.
func Serve(ctx context.Context, requests io.Reader, replies io.Writer, answer func(context.Context, health.Check) error) error {
	r := bufio.NewReaderSize(requests, maxLine)
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("request of the worker: %w", err)
		}
		c, err := parseCheck(string(line[:len(line)-1]))
		if err != nil {
			return fmt.Errorf("request of the worker: %w", err)
		}
		reply := "yes\n"
		var no *health.UnhealthyError
		if err := answer(ctx, c); errors.As(err, &no) {
			reply = formatReply("no", no.Last)
		} else if err != nil {
			reply = formatReply("error", err)
		}
		if _, err := io.WriteString(replies, reply); err != nil {
			return fmt.Errorf("reply to the worker: %w", err)
		}
	}
}

func formatReply(word string, err error) string {
	text := strings.ToValidUTF8(strings.Join(strings.Fields(err.Error()), " "), "?")
	return word + " " + text[:min(len(text), maxLine-16)] + "\n"
}

// Probe asks the parent and waits for its answer. When ctx ends first the request is left unanswered and nothing
// more may be asked.
func (o *Outside) Probe(ctx context.Context, c health.Check) error {
	if c.Empty() {
		return nil
	}
	if err := c.Validate(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { o.replies.Close() })
	defer stop()
	if _, err := io.WriteString(o.requests, formatCheck(c)); err != nil {
		return fmt.Errorf("question to the parent: %w", err)
	}
	line, err := bufio.NewReaderSize(o.replies, maxLine).ReadString('\n')
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("answer of the parent: %w", err)
	}
	word, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	switch word {
	case "yes":
		return nil
	case "no":
		return &health.UnhealthyError{After: c.Timeout, Last: errors.New(text)}
	}
	return fmt.Errorf("answer of the parent: %s", text)
}
