package xfer_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// cpu is the time that this process has spent computing, user and system.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cost sums what moving bytes took.
type cost struct {
	bytes     int64
	wall, cpu time.Duration
}

func (c *cost) of(f func() int64) {
	w, u := time.Now(), cpu()
	c.bytes += f()
	c.wall, c.cpu = c.wall+time.Since(w), c.cpu+cpu()-u
}

func (c *cost) perGB() float64 { return c.cpu.Seconds() / float64(c.bytes) * 1e9 }
func (c *cost) rate() float64  { return float64(c.bytes) / 1e6 / c.wall.Seconds() }

// BenchmarkChunks moves 256 KiB chunks over loopback, four asked for at a time, and the same bytes over one bare
// TCP+TLS 1.3 connection, in turns. CPU is that of both ends; nothing is hashed or stored.
func BenchmarkChunks(b *testing.B) {
	const chunks, depth = 1024, 4
	payload := make([]byte, chunk.DefaultSize)
	rand.Read(payload)
	got := make(chan struct{}, depth)
	server := start(b, func(_ *xfer.Config, e *end) {
		e.serve = func(context.Context, *xfer.Session, chunk.ID) (xfer.Served, error) {
			return xfer.Served{Payload: payload}, nil
		}
	})
	client := start(b, func(_ *xfer.Config, e *end) {
		e.listen = func(_ *xfer.Session, m wire.Message) error {
			if d, ok := m.(*wire.Data); !ok || len(d.Payload) != len(payload) {
				return fmt.Errorf("got %T", m)
			}
			got <- struct{}{}
			return nil
		}
	})
	s, _ := meet(b, client, server)
	copyTLS := bareTLS(b, payload)
	var ours, bare cost
	for b.Loop() {
		ours.of(func() int64 {
			for i := range chunks {
				if i >= depth {
					<-got
				}
				s.Send(&wire.Get{Req: uint32(i)})
			}
			for range depth {
				<-got
			}
			return chunks * int64(len(payload))
		})
		bare.of(func() int64 { return copyTLS(chunks) })
	}
	b.ReportMetric(ours.rate(), "MB/s")
	b.ReportMetric(ours.perGB(), "cpu-s/GB")
	b.ReportMetric(bare.rate(), "tls-MB/s")
	b.ReportMetric(bare.perGB(), "tls-cpu-s/GB")
	b.ReportMetric(ours.perGB()/bare.perGB(), "cpu/tls")
	b.ReportMetric(0, "ns/op")
}

// bareTLS returns a function that copies a payload n times through a connection and waits for the last byte.
func bareTLS(b *testing.B, payload []byte) func(n int) int64 {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	in, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	from := tls.Server(out, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	to := tls.Client(in, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
	b.Cleanup(func() { out.Close(); in.Close() })
	buf := make([]byte, len(payload))
	return func(n int) int64 {
		var wg sync.WaitGroup
		wg.Go(func() {
			for range n {
				if _, err := from.Write(payload); err != nil {
					b.Error(err)
				}
			}
		})
		for range n {
			if _, err := io.ReadFull(to, buf); err != nil {
				b.Error(err)
			}
		}
		wg.Wait()
		return int64(n) * int64(len(payload))
	}
}

// BenchmarkUplinks is a seeder's day: 1,200 uplinks connect at once and take nine chunks of 256 KiB each, 2.8 GB. The
// uplinks live in two other processes, so that memory and CPU are the seeder's alone.
func BenchmarkUplinks(b *testing.B) {
	const uplinks, processes, chunks = 1200, 2, 9
	payload := make([]byte, chunk.DefaultSize)
	rand.Read(payload)
	for b.Loop() {
		seeder := start(b, func(c *xfer.Config, e *end) {
			c.Limits, c.Site = xfer.SeederLimits(), ""
			pace := rate.NewLimiter(400e6, 1<<20) // of all uplinks together, as a seeder has it
			e.serve = func(context.Context, *xfer.Session, chunk.ID) (xfer.Served, error) {
				return xfer.Served{Payload: payload, Pace: pace.WaitN}, nil
			}
			e.up, e.down = make(chan *xfer.Session, 2*uplinks), make(chan downed, 2*uplinks)
		})
		begin, before := time.Now(), cpu()
		var lines []*bufio.Scanner
		var goOn []io.WriteCloser
		for range processes {
			cmd := exec.Command(os.Args[0], "-test.run=^TestUplinksHelper$", "-test.timeout=10m")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d", uplinksEnv, seeder.ID(), seeder.Addr(), uplinks/processes, chunks))
			cmd.Stderr = os.Stderr
			in, err1 := cmd.StdinPipe()
			out, err2 := cmd.StdoutPipe()
			if err := cmd.Start(); err1 != nil || err2 != nil || err != nil {
				b.Fatal(err1, err2, err)
			}
			defer cmd.Wait()
			defer in.Close()
			lines, goOn = append(lines, bufio.NewScanner(out)), append(goOn, in)
		}
		wait := func(word string) {
			for _, l := range lines {
				if !l.Scan() || l.Text() != word {
					b.Fatalf("an uplink process said %q, not %q", l.Text(), word)
				}
			}
		}
		wait("up")
		connected, up := time.Since(begin), cpu()-before
		for n := 0; n < uplinks; { // theirs are; ours follow
			select {
			case <-seeder.up:
				n++
			case <-seeder.down:
				n--
			}
		}
		idle := resident(b)
		before = cpu()
		for _, w := range goOn {
			fmt.Fprintln(w, "fetch")
		}
		wait("done")
		served := cpu() - before
		if n := len(seeder.down); n > 0 {
			b.Fatalf("%d sessions ended", n)
		}
		b.ReportMetric(uplinks, "sessions")
		b.ReportMetric(connected.Seconds(), "connect-s")
		b.ReportMetric(up.Seconds(), "connect-cpu-s")
		b.ReportMetric(served.Seconds(), "serve-cpu-s")
		b.ReportMetric(float64(idle)/1e6, "idle-rss-MB")
		b.ReportMetric(float64(resident(b))/1e6, "rss-MB")
		for _, w := range goOn {
			w.Close()
		}
		for _, l := range lines {
			for l.Scan() {
			}
		}
		seeder.stop()
	}
	b.ReportMetric(0, "ns/op")
}

// resident is this process's memory in bytes.
func resident(tb testing.TB) int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		tb.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

const uplinksEnv = "PATCHMESH_XFER_UPLINKS"

// TestUplinksHelper is a process of BenchmarkUplinks; by itself it does nothing.
func TestUplinksHelper(t *testing.T) {
	spec := strings.Fields(os.Getenv(uplinksEnv))
	if len(spec) != 4 {
		return
	}
	id, err := peer.Decode(spec[0])
	if err != nil {
		t.Fatal(err)
	}
	addr, n, chunks := netip.MustParseAddrPort(spec[1]), number(t, spec[2]), number(t, spec[3])
	sessions := make([]*xfer.Session, n)
	ends := make([]*end, n)
	var wg sync.WaitGroup
	for i := range n {
		ends[i] = start(t, func(_ *xfer.Config, e *end) {
			e.listen = func(_ *xfer.Session, m wire.Message) error {
				e.got <- &wire.Ping{} // a chunk; its bytes are of no interest
				return nil
			}
		})
		wg.Go(func() {
			for { // as a node does: again after a while
				if ends[i].Dial(t.Context(), id, addr) == nil {
					select {
					case sessions[i] = <-ends[i].up:
						return
					case <-time.After(5 * time.Second):
					}
				}
				time.Sleep(mrand.N(time.Second))
			}
		})
	}
	wg.Wait()
	fmt.Println("up")
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	for i, s := range sessions {
		wg.Go(func() {
			for j := range chunks {
				s.Send(&wire.Get{Req: uint32(j)})
			}
			for range chunks {
				<-ends[i].got
			}
		})
	}
	wg.Wait()
	fmt.Println("done")
	in.Scan() // until the seeder has looked at us
}

func number(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
