package tool

import (
	"bytes"
	"io"
	"sync"
)

// output is what a program says. exec copies each stream in a goroutine of its own; the lock keeps their order.
type output struct {
	mu                   sync.Mutex
	stdout, stderr, both tail
	log                  io.Writer
}

// stream is one of the two.
type stream struct {
	out  *output
	kept *tail
}

func (s stream) Write(p []byte) (int, error) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	s.kept.write(p)
	s.out.both.write(p)
	if s.out.log != nil {
		_, _ = s.out.log.Write(p) // a log that is full must not stop a transaction
	}
	return len(p), nil
}

// tail keeps the last MaxOutput bytes.
type tail struct {
	buf     bytes.Buffer
	dropped int64
}

func (t *tail) write(p []byte) {
	t.buf.Write(p)
	if over := t.buf.Len() - MaxOutput; over > 0 {
		t.buf.Next(over)
		t.dropped += int64(over)
	}
}

func (t *tail) bytes() []byte { return t.buf.Bytes() }
