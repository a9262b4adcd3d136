package xfer

import (
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// gather stands between TLS and a socket and saves system calls, runs through the kernel and wake-ups of processes,
// which cost a node more than ciphers and hashes do.
//
//   - TLS writes records of 16 KiB at most, one by one. Those of one Write of ours go out in one write.
//   - A thin line brings a packet each quarter of a millisecond, and each would wake the reader. A read that left
//     nothing and came soon after another is followed by a pause: what comes in it is read together, by less than the
//     pause later. What comes now and then is read at once. The kernel acknowledges in the meantime; nothing waits but we.
//
// One goroutine reads. Whoever writes while another does leaves the bytes to it, in order and without waiting: TLS says
// goodbye from whichever goroutine closes, and that one must not wait for a peer that does not read.
type gather struct {
	net.Conn
	pause time.Duration // 0: none

	mu   sync.Mutex // guards the fields below
	held bool       // together: more is to come
	busy bool       // somebody writes to the socket
	buf  []byte     // behind what is being written

	last time.Time // when the last read returned; the reader's
	rest bool      // there is to be a pause before the next one
}

// gathered buffers are lent: a hundred connections rarely write at the same time.
type gathered struct{ pool sync.Pool }

const gatherBytes = 68 << 10 // a frame of 64 KiB in its records

func (p *gathered) get() []byte {
	if b, ok := p.pool.Get().(*[gatherBytes]byte); ok {
		return b[:0]
	}
	return make([]byte, 0, gatherBytes)
}

func (p *gathered) put(b []byte) {
	if cap(b) == gatherBytes {
		p.pool.Put((*[gatherBytes]byte)(b[:gatherBytes]))
	}
}

// Read implements net.Conn.
func (g *gather) Read(b []byte) (int, error) {
	if g.rest {
		if left := g.pause - time.Since(g.last); left > 0 {
			g.wakeAt(restBytes)
			time.Sleep(left) //nolint:forbidigo // a few milliseconds in which nothing else is due
			g.wakeAt(1)      // always, before a read that may wait
		}
	}
	n, err := g.Conn.Read(b)
	if g.pause > 0 {
		now := time.Now()
		g.rest = n < len(b) && now.Sub(g.last) < 2*g.pause
		g.last = now
	}
	return n, err
}

// restBytes must have come to wake this process during a pause.
const restBytes = 128 << 10

// wakeAt sets how many bytes must be there before the kernel says that there are some, see SO_RCVLOWAT in socket(7): the
// runtime's poller is woken for every packet, whether somebody waits for it or not.
func (g *gather) wakeAt(bytes int) {
	sc, ok := g.Conn.(syscall.Conn)
	if !ok {
		return
	}
	if c, err := sc.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { // refused, it is as without
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes)
		})
	}
}

// Write implements net.Conn.
func (g *gather) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held || g.busy {
		g.buf = append(g.buf, b...)
		return len(b), nil
	}
	return len(b), g.flush(b)
}

// together runs f, which writes, and then writes at once what it wrote. One at a time.
func (g *gather) together(lend *gathered, f func() (int, error)) (int, error) {
	lent := lend.get()
	g.mu.Lock()
	if g.held = true; !g.busy {
		g.buf = lent
	}
	g.mu.Unlock()
	n, err := f()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = false
	if g.busy {
		return n, err // who writes goes on with it
	}
	out := g.buf
	g.buf = nil
	if werr := g.flush(out); err == nil {
		err = werr
	}
	lend.put(out)
	return n, err
}

// flush writes b, and what others leave meanwhile, without mu.
func (g *gather) flush(b []byte) (err error) {
	g.busy = true
	for len(b) > 0 && err == nil {
		g.mu.Unlock()
		_, err = g.Conn.Write(b)
		g.mu.Lock()
		if b = nil; !g.held {
			b, g.buf = g.buf, nil
		}
	}
	g.busy = false
	return err
}
