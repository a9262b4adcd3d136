package seeder

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// Of a stream of events.
const (
	watchBatch  = 256              // events in one write
	watchPause  = time.Second      // between two writes: what comes meanwhile is coalesced
	watchBeat   = 15 * time.Second // a comment when nothing else was sent
	watchWrite  = 30 * time.Second // a reader that takes nothing for so long is gone
	maxWatchers = 256              // streams at one time
)

// getWatch streams events as the HTML standard's section "Server-sent events" has them. It begins with "snapshot", whose
// number says from when on what follows is whole: read the state after that, and apply what comes. With Last-Event-ID it
// goes on from there, or says "resync" where something is missing: read the state anew.
func (s *Seeder) getWatch(w http.ResponseWriter, r *http.Request) (any, error) {
	select {
	case s.watchers <- struct{}{}:
		defer func() { <-s.watchers }()
	default:
		w.Header().Set("Retry-After", "5")
		return nil, problem.New(problem.Busy, "%d streams of events are open, as many as are served", maxWatchers).WithNext("wait, and try again")
	}
	after, greeting := s.events.newest(), "snapshot"
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		n, err := strconv.ParseInt(id, 10, 64)
		if err != nil || n < 0 {
			return nil, problem.New(problem.Usage, "Last-Event-ID %.40q: want a number", id)
		}
		if _, whole, _ := s.events.since(n, 1); whole {
			after, greeting = n, "resume"
		} else {
			greeting = "resync"
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	out := stream{w: w, c: http.NewResponseController(w)}
	_ = out.c.SetReadDeadline(time.Time{}) // the request was read; only a test's recorder cannot
	if err := out.send(message(after, greeting, nil)); err != nil {
		return written{}, nil
	}
	quiet := time.Now()
	for {
		if !s.tokens.holds(callerOf(r.Context())) {
			return written{}, nil
		}
		list, whole, more := s.events.since(after, watchBatch)
		if !whole { // this reader is too slow, or the server was paused
			after = s.events.newest()
			if out.send(message(after, "resync", nil)) != nil {
				return written{}, nil
			}
			continue
		}
		if len(list) == 0 {
			if time.Since(quiet) >= watchBeat {
				if out.send([]byte(": still here\n\n")) != nil {
					return written{}, nil
				}
				quiet = time.Now()
			}
			if !s.await(r, more, time.Until(quiet.Add(watchBeat))) {
				return written{}, nil
			}
			continue
		}
		after = list[len(list)-1].ID
		var b bytes.Buffer
		for _, x := range coalesce(list) {
			data, err := json.Marshal(x)
			if err != nil {
				return written{}, nil // no event has a value that cannot be encoded
			}
			b.Write(message(x.ID, x.Kind, data))
		}
		if out.send(b.Bytes()) != nil {
			return written{}, nil
		}
		quiet = time.Now()
		if len(list) < watchBatch && !s.await(r, nil, watchPause) {
			return written{}, nil
		}
	}
}

// await waits for more, for a time, for the reader's end or the seeder's; false: an end.
func (s *Seeder) await(r *http.Request, more <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-more:
	case <-t.C:
	case <-r.Context().Done():
		return false
	case <-s.ending:
		return false
	}
	return true
}

// message is one event of a stream.
func message(id int64, kind string, data []byte) []byte {
	if data == nil {
		data = []byte("{}")
	}
	return fmt.Appendf(nil, "id: %d\nevent: %s\ndata: %s\n\n", id, kind, data)
}

// stream writes to a reader that may be slow, but not for ever.
type stream struct {
	w http.ResponseWriter
	c *http.ResponseController
}

func (o stream) send(b []byte) error {
	_ = o.c.SetWriteDeadline(time.Now().Add(watchWrite)) // the server's own is for whole answers
	if _, err := o.w.Write(b); err != nil {
		return err
	}
	return o.c.Flush()
}
