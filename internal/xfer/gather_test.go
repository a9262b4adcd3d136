package xfer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/patchmesh/patchmesh/internal/wire"
)

// queueConn is a socket in memory: what is written to it waits to be read.
type queueConn struct {
	net.Conn // nil: only what is below is used
	mu       sync.Mutex
	more     *sync.Cond
	buf      []byte
	reads    int
	writes   []int         // sizes
	stuck    chan struct{} // not nil: writes wait for it
}

func newQueueConn() *queueConn {
	c := &queueConn{}
	c.more = sync.NewCond(&c.mu)
	return c
}

func (c *queueConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.buf) == 0 {
		c.more.Wait()
	}
	c.reads++
	n := copy(b, c.buf)
	c.buf = c.buf[n:]
	return n, nil
}

func (c *queueConn) Write(b []byte) (int, error) {
	if c.stuck != nil {
		<-c.stuck
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes = append(c.writes, len(b))
	c.buf = append(c.buf, b...)
	c.more.Broadcast()
	return len(b), nil
}

// The records of one frame leave in one write. The control: without gather there is one for each.
func TestFrameIsOneWrite(t *testing.T) {
	for _, gathering := range []bool{true, false} {
		client, server := tlsPair(t)
		b := make([]byte, 64<<10)
		go io.Copy(io.Discard, server)
		counter := &countingWrites{Conn: client.gather.Conn}
		client.gather.Conn = counter
		var err error
		if gathering {
			_, err = client.Write(b)
		} else {
			_, err = client.Conn.Write(b)
		}
		if err != nil {
			t.Fatal(err)
		}
		if n := counter.n; gathering != (n == 1) || !gathering && n < 4 {
			t.Errorf("gathering %v: %d writes for a frame of 64 KiB", gathering, n)
		}
		t.Logf("gathering %v: %d writes", gathering, counter.n)
	}
}

type countingWrites struct {
	net.Conn
	n int
}

func (c *countingWrites) Write(b []byte) (int, error) { c.n++; return c.Conn.Write(b) }

// tlsPair is two ends of a connection through memory.
func tlsPair(t *testing.T) (client *secureConn, server *tls.Conn) {
	t.Helper()
	a, b := net.Pipe()
	sa, sb := ours(t), ours(t)
	done := make(chan *secureConn, 1)
	go func() {
		c, err := sb.SecureInbound(context.Background(), b, sa.id)
		if err != nil {
			t.Error(err)
			done <- nil
			return
		}
		done <- c.(*secureConn)
	}()
	c, err := sa.SecureOutbound(context.Background(), a, sb.id)
	if err != nil {
		t.Fatal(err)
	}
	s := <-done
	if s == nil {
		t.FailNow()
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return c.(*secureConn), s.Conn
}

// A line that brings a packet each quarter of a millisecond is read once in two milliseconds, and nothing is lost or
// late by more than that. The control: without a pause there is a read for each packet.
func TestPacketsAreReadTogether(t *testing.T) {
	const packets = 400
	for _, pause := range []time.Duration{0, 2 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			c := newQueueConn()
			g := &gather{Conn: c, pause: pause}
			var line sync.WaitGroup
			defer line.Wait()
			line.Go(func() {
				for range packets {
					c.Write(make([]byte, 1448))
					time.Sleep(250 * time.Microsecond)
				}
			})
			began := time.Now()
			if _, err := io.ReadFull(g, make([]byte, packets*1448)); err != nil {
				t.Fatal(err)
			}
			late := time.Since(began) - (packets-1)*250*time.Microsecond
			if late < 0 || late > pause {
				t.Errorf("pause %v: the last packet was read %v late", pause, late)
			}
			if most := packets*250/2000 + 2; pause > 0 && c.reads > most || pause == 0 && c.reads != packets {
				t.Errorf("pause %v: %d reads", pause, c.reads)
			}
			t.Logf("pause %v: %d packets in %d reads", pause, packets, c.reads)
		})
	}
}

// Whoever writes while the socket takes nothing leaves it to the one who waits, and does not wait itself; the order is
// kept.
func TestWriteBesideAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newQueueConn()
		c.stuck = make(chan struct{})
		g := &gather{Conn: c}
		var lend gathered
		go g.together(&lend, func() (int, error) { g.Write([]byte("one ")); return g.Write([]byte("two ")) })
		synctest.Wait() // it waits for the socket
		g.Write([]byte("three"))
		close(c.stuck)
		synctest.Wait()
		if want := []byte("one two three"); !bytes.Equal(c.buf, want) || len(c.writes) != 2 {
			t.Errorf("%q in %d writes", c.buf, len(c.writes))
		}
	})
}

// For a peer that reads nothing no more is handed to the muxer than AheadBytes and a frame, whatever it asks for. The
// control: without a bound all of it is.
func TestAhead(t *testing.T) {
	for _, most := range []int64{128 << 10, 1 << 40} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			p := &path{frameBytes: 64 << 10, room: make(chan struct{}, 1)}
			var handed int64
			muxer := writerFunc(func(b []byte) (int, error) {
				handed += int64(len(b))
				p.handed.Add(int64(len(b)))
				return len(b), nil
			})
			a := &ahead{ctx: ctx, w: muxer, p: p, most: most, frame: 64 << 10}
			ended := make(chan error, 1)
			go func() {
				var err error
				for i := 0; i < 4 && err == nil; i++ {
					a.Write(make([]byte, wire.DataHeaderBytes))
					_, err = a.Write(make([]byte, 1<<20))
				}
				ended <- err
			}()
			synctest.Wait()
			all := int64(4 * (1<<20 + wire.DataHeaderBytes))
			if most < 1<<30 && handed > most+64<<10+wire.DataHeaderBytes || most > 1<<30 && handed != all {
				t.Errorf("at most %d ahead: %d handed over", most, handed)
			}
			for most < 1<<30 && handed < all { // the socket takes it, bit by bit
				p.written.Add(32 << 10)
				p.room <- struct{}{}
				synctest.Wait()
				if w := p.waiting(); w > most+64<<10 {
					t.Fatalf("%d bytes wait", w)
				}
			}
			cancel()
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// Over a real socket, whose poller is not woken during a pause: whatever comes, however little and whenever, is read.
// (Left as it is during the pause, the socket would never say that a single byte has come.)
func TestPauseEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const rounds, burst = 20, 50
	read := make(chan struct{})
	var line sync.WaitGroup
	defer line.Wait()
	line.Go(func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for range rounds {
			for range burst {
				c.Write([]byte{1}) // dense enough for pauses
			}
			<-read // nothing more comes until all of it was read
		}
	})
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	g := &gather{Conn: c, pause: 2 * time.Millisecond}
	rests := 0
	for range rounds {
		for b, n := make([]byte, 4096), 0; n < burst; {
			k, err := g.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			n += k
			if g.rest {
				rests++
			}
		}
		read <- struct{}{}
	}
	if rests == 0 {
		t.Error("it never paused: nothing was shown")
	}
}
