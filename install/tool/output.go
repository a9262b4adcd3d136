package tool

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// output is what a program says. Each stream is copied in a goroutine of its own; the lock keeps their order.
type output struct {
	mu   sync.Mutex
	both tail
	log  io.Writer
}

// stream is one of the two.
type stream struct {
	out  *output
	kept tail
	r, w *os.File
}

// open makes the pipe for a stream.
func (o *output) open() (s *stream, err error) {
	s = &stream{out: o}
	s.r, s.w, err = os.Pipe()
	return s, err
}

// copy reads until the other end is closed, or stop was called and all that was written before is read.
func (s *stream) copy() {
	buf := make([]byte, 32<<10)
	for {
		n, err := s.r.Read(buf)
		s.add(buf[:n])
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				s.drain(buf)
			}
			return
		}
	}
}

// stop has copy end: the program has, and what it started and left may hold the other end for ever.
func (s *stream) stop() { _ = s.r.SetReadDeadline(time.Unix(1, 0)) }

// drain reads what is in the pipe without waiting for more.
func (s *stream) drain(buf []byte) {
	_ = s.r.SetReadDeadline(time.Time{})
	c, err := s.r.SyscallConn()
	if err != nil {
		return
	}
	// The size of a pipe at most: a writer that goes on does not keep us.
	for left := 1 << 20; left > 0; {
		n := 0
		if err := c.Read(func(fd uintptr) bool { n, err = syscall.Read(int(fd), buf); return true }); err != nil || n <= 0 {
			return
		}
		s.add(buf[:n])
		left -= n
	}
}

func (s *stream) add(p []byte) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	s.kept.write(p)
	s.out.both.write(p)
	if s.out.log != nil && len(p) > 0 {
		_, _ = s.out.log.Write(p) // a log that is full must not stop a transaction
	}
}

// tail keeps the last MaxOutput bytes.
type tail struct {
	buf     []byte
	dropped int64
}

func (t *tail) write(p []byte) {
	t.buf = append(t.buf, p...)
	if len(t.buf) >= 2*MaxOutput {
		t.trim()
	}
}

func (t *tail) trim() {
	if over := len(t.buf) - MaxOutput; over > 0 {
		t.dropped += int64(over)
		t.buf = t.buf[:copy(t.buf, t.buf[over:])]
	}
}

func (t *tail) bytes() []byte {
	t.trim()
	return t.buf
}
