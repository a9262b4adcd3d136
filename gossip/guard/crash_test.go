package guard

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log" //nolint:depguard // memberlist takes nothing else
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"
)

// victimEnv makes the test binary a memberlist node, with or without the guard. It prints its address, takes
// commands on stdin ("join ADDR", "ping" to say that it lives) and prints at the end what memory it allocated.
const victimEnv = "PATCHMESH_GUARD_VICTIM"

func TestMain(m *testing.M) {
	if mode := os.Getenv(victimEnv); mode != "" {
		victim(mode == "guarded")
		return
	}
	goleak.VerifyTestMain(m)
}

func victimConfig(inner *memberlist.NetTransport) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label, c.SecretKey = "victim", testLabel, testKey
	c.BindAddr, c.BindPort, c.AdvertisePort = "127.0.0.1", inner.GetAutoBindPort(), inner.GetAutoBindPort()
	c.EnableCompression = false
	c.TCPTimeout = 2 * time.Second
	c.CIDRsAllowed, _ = memberlist.ParseCIDRs([]string{"127.0.0.1/32"})
	c.Transport = inner
	c.Logger = log.New(io.Discard, "", 0)
	return c
}

func victim(guarded bool) {
	inner, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{"127.0.0.1"}, Logger: log.New(io.Discard, "", 0)})
	if err != nil {
		panic(err)
	}
	c := victimConfig(inner)
	var g *Transport
	if guarded {
		if g, err = New(inner, testConfig()); err != nil {
			panic(err)
		}
		c.Transport = g
	}
	m, err := memberlist.Create(c)
	if err != nil {
		panic(err)
	}
	fmt.Println(m.LocalNode().Address())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if addr, ok := strings.CutPrefix(in.Text(), "join "); ok {
			_, err := m.Join([]string{addr})
			fmt.Println("joined", err == nil)
			continue
		}
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		counts := ""
		if g != nil {
			counts = fmt.Sprint(g.Counts())
		}
		fmt.Println("alive", s.TotalAlloc, counts)
	}
	_ = m.Shutdown()
}

// process is a running victim.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Scanner
	stderr bytes.Buffer
	addr   string
}

func startVictim(t *testing.T, mode string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), victimEnv+"="+mode)
	p.cmd.Stderr = &p.stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	p.addr = p.say(t, "")
	if p.addr == "" {
		t.Fatal("the victim did not start")
	}
	return p
}

// say sends a command and returns the answer, or "" when the victim is dead.
func (p *process) say(t *testing.T, line string) string {
	t.Helper()
	if line != "" {
		if _, err := io.WriteString(p.in, line+"\n"); err != nil {
			return ""
		}
	}
	if !p.out.Scan() {
		return ""
	}
	return p.out.Text()
}

// end closes stdin and returns what the victim said on stderr and whether it ended well.
func (p *process) end() (string, error) {
	_ = p.in.Close()
	err := p.cmd.Wait()
	return p.stderr.String(), err
}

func (p *process) sendPacket(t *testing.T, b []byte) {
	t.Helper()
	c, err := net.Dial("udp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

// sendStream returns when the victim has closed the stream, or died.
func (p *process) sendStream(t *testing.T, b []byte) {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, c)
}

// answer makes the victim join a listener that answers with b.
func (p *process) answer(t *testing.T, b []byte) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Write(b)
		_, _ = io.Copy(io.Discard, c)
	}()
	p.say(t, "join evil/"+ln.Addr().String())
	<-done
}

// TestCrash: frames that any holder of a site's key can send and that end a process in which memberlist v0.7.0
// stands alone. The first half of each case is the positive control.
func TestCrash(t *testing.T) {
	pad := append(make([]byte, 15), 0xff) // "remove 255 bytes of padding" from 16
	for _, c := range []struct {
		name, panics string
		attack       func(*testing.T, *process)
		why          Reason
	}{
		{"version 0 packet", "slice bounds out of range", func(t *testing.T, p *process) { p.sendPacket(t, packetOf(0, pad)) }, Version},
		{"version 0 stream", "slice bounds out of range", func(t *testing.T, p *process) { p.sendStream(t, requestOf(0, pad)) }, Version},
		{"version 0 reply", "slice bounds out of range", func(t *testing.T, p *process) { p.answer(t, replyOf(0, pad)) }, Version},
		{"empty stream", "index out of range", func(t *testing.T, p *process) { p.sendStream(t, requestOf(1, nil)) }, Content},
		{"empty reply", "index out of range", func(t *testing.T, p *process) { p.answer(t, replyOf(1, nil)) }, Content},
	} {
		t.Run(c.name, func(t *testing.T) {
			bare := startVictim(t, "bare")
			c.attack(t, bare)
			if got := waitDead(t, bare); got != "" {
				t.Fatalf("positive control: without the guard the process still says %q; memberlist may have mended this", got)
			}
			if stderr, err := bare.end(); err == nil || !strings.Contains(stderr, c.panics) {
				t.Fatalf("positive control: ended with %v, %s", err, stderr)
			}

			guarded := startVictim(t, "guarded")
			c.attack(t, guarded)
			got := waitCount(t, guarded, c.why)
			if stderr, err := guarded.end(); err != nil {
				t.Fatalf("with the guard: %v, after %q: %s", err, got, stderr)
			}
		})
	}
}

// waitDead and waitCount poll, because a packet has no answer; each poll is a round trip to the victim.
func waitDead(t *testing.T, p *process) string {
	t.Helper()
	got := ""
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got = p.say(t, "ping"); got == "" {
			return ""
		}
	}
	return got
}

func waitCount(t *testing.T, p *process, why Reason) string {
	t.Helper()
	want := fmt.Sprintf("%v:1", why)
	got := ""
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got = p.say(t, "ping"); got == "" || strings.Contains(got, want) {
			break
		}
	}
	if !strings.Contains(got, want) {
		t.Fatalf("the guard did not count %s: %q", want, got)
	}
	return got
}

// TestMemory: messages of some bytes to some tens of kilobytes for which memberlist alone allocates a hundred
// megabytes.
func TestMemory(t *testing.T) {
	const large, small = 30 << 20, 12 << 20
	for _, c := range []struct {
		name string
		in   []byte
	}{
		{"a million records", requestOf(1, encode(msgPushPull, header{Nodes: 1 << 20}))},
		{"decompression bomb", requestOf(1, bomb(38<<20))},
	} {
		t.Run(c.name, func(t *testing.T) {
			for mode, ok := range map[string]func(n uint64) bool{
				"bare":    func(n uint64) bool { return n > large }, // positive control
				"guarded": func(n uint64) bool { return n < small },
			} {
				p := startVictim(t, mode)
				p.sendStream(t, c.in)
				var n uint64
				if _, err := fmt.Sscanf(p.say(t, "ping"), "alive %d", &n); err != nil || !ok(n) {
					t.Errorf("%s: allocated %d bytes for a message of %d (%v)", mode, n, len(c.in), err)
				}
				if stderr, err := p.end(); err != nil {
					t.Errorf("%s: %v: %s", mode, err, stderr)
				}
			}
		})
	}
}
