package testbed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/testbed"
)

func TestMain(m *testing.M) {
	if os.Getenv("TESTBED_CRASH") != "" && os.Getenv("PATCHMESH_TESTBED_GUARD") == "" {
		crash()
	}
	os.Exit(testbed.Main(m))
}

// crash is another process with a bed: it says that the bed is up and is then killed.
func crash() {
	b, err := testbed.Up(testbed.Config{Name: os.Getenv("TESTBED_CRASH")})
	if err == nil {
		err = b.Exec(testbed.Node(1, 1), exec.Command("sleep", "600"))
	}
	fmt.Println("up", err)
	select {}
}

// serve answers every request in a host with size bytes.
func serve(t *testing.T, b *testbed.Bed, host, addr string, size int64) {
	t.Helper()
	var l net.Listener
	if err := b.Inside(host, func() (err error) { l, err = net.Listen("tcp4", addr); return err }); err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		io.CopyN(w, zeros{}, size)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func dial(b *testbed.Bed, host, addr string) (c net.Conn, err error) {
	err = b.Inside(host, func() (err error) { c, err = net.DialTimeout("tcp4", addr, 10*time.Second); return err })
	return c, err
}

// fetch reads the answer from a host and returns its length.
func fetch(t *testing.T, b *testbed.Bed, host, addr string) (int64, error) {
	t.Helper()
	tr := &http.Transport{DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
		return dial(b, host, addr)
	}}
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr, nil)
	if err != nil {
		return 0, err
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	return io.Copy(io.Discard, res.Body)
}

func stats(t *testing.T, b *testbed.Bed, site int) testbed.SiteStats {
	t.Helper()
	s, err := b.Stats(site)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ping sends n datagrams from a host to an address in another and says how many arrived.
func ping(t *testing.T, b *testbed.Bed, from, to, addr string, n int) (arrived int) {
	t.Helper()
	return pingFor(t, b, from, to, addr, n, 200*time.Millisecond)
}

// reach is ping where every packet is to arrive: a machine that is busy may take its time with each.
func reach(t *testing.T, b *testbed.Bed, from, to, addr string, n int) (arrived int) {
	t.Helper()
	return pingFor(t, b, from, to, addr, n, 10*time.Second)
}

func pingFor(t *testing.T, b *testbed.Bed, from, to, addr string, n int, each time.Duration) (arrived int) {
	t.Helper()
	var in *net.UDPConn
	var out net.Conn
	err := b.Inside(to, func() (err error) {
		in, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr+":9")))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := b.Inside(from, func() (err error) { out, err = net.Dial("udp4", addr+":9"); return err }); err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	const window = 250 // at most so many that have not arrived, so that no buffer runs over
	buf := make([]byte, 16)
	receive := func(atMost int) {
		for range atMost {
			in.SetReadDeadline(time.Now().Add(each))
			if _, err := in.Read(buf); err != nil {
				return
			}
			arrived++
		}
	}
	for sent := 0; sent < n; {
		k := min(window, n-sent)
		for range k {
			out.Write(buf[:8]) // an unreachable host is an answer too
		}
		sent += k
		receive(k)
	}
	return arrived
}

// One plain HTTP transfer: every byte arrives, is counted on every counter it passes, and takes the time that rate
// and delay say (printed; a test machine may be slow).
func TestRate(t *testing.T) {
	b := testbed.New(t, testbed.Config{Nodes: 2, WAN: 50 * testbed.Mbit, RTT: 40 * time.Millisecond})
	const size = 16 << 20
	serve(t, b, testbed.DC, testbed.DCAddr+":80", size)
	before := stats(t, b, 1)
	start := time.Now()
	n, err := fetch(t, b, testbed.Node(1, 2), testbed.DCAddr+":80")
	took := time.Since(start)
	if err != nil || n != size {
		t.Fatalf("%d of %d bytes: %v", n, size, err)
	}
	s := stats(t, b, 1).Sub(before)
	ideal := time.Duration(float64(size) * 8 / float64(50*testbed.Mbit) * float64(time.Second))
	t.Logf("%d bytes in %.2f s, at the rate of the link %.2f s; on the wire %.3f times the size", n, took.Seconds(), ideal.Seconds(), float64(s.DownArrived)/size)
	if took < ideal {
		t.Errorf("%v is faster than the link: it is not shaped", took)
	}
	if r := float64(s.DownArrived) / size; r < 1.02 || r > 1.08 {
		t.Errorf("%d bytes crossed the WAN for %d", s.DownArrived, size)
	}
	// The counters are read one after the other, and the last packets may come in between.
	if d := s.Nodes[1].WANDown - s.DownArrived; d < 0 || d > 10_000 || s.Nodes[0].WANDown != 0 {
		t.Errorf("the router counts %d bytes for node 2 and %d for node 1, the interface %d", s.Nodes[1].WANDown, s.Nodes[0].WANDown, s.DownArrived)
	}
	if s.Nodes[1].LANReceived < s.DownArrived {
		t.Errorf("node 2 received %d bytes, %d came over the WAN", s.Nodes[1].LANReceived, s.DownArrived)
	}
}

func TestDelay(t *testing.T) {
	b := testbed.New(t, testbed.Config{RTT: 40 * time.Millisecond})
	serve(t, b, testbed.DC, testbed.DCAddr+":80", 0)
	handshake := func() time.Duration {
		start := time.Now()
		c, err := dial(b, testbed.Node(1, 1), testbed.DCAddr+":80")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		return time.Since(start)
	}
	if d := handshake(); d < 40*time.Millisecond {
		t.Errorf("a handshake took %v over a link of 40 ms", d)
	} else {
		t.Logf("handshake over 40 ms: %v", d)
	}
	if err := b.Delay(1, 0); err != nil {
		t.Fatal(err)
	}
	t.Logf("handshake over 0 ms: %v", handshake())
}

func TestLossAndCut(t *testing.T) {
	b := testbed.New(t, testbed.Config{Sites: 2, Loss: 0.2, Seed: 1})
	const n = 500
	to := testbed.NodeAddr(1, 1)
	before := stats(t, b, 1)
	got := ping(t, b, testbed.DC, testbed.Node(1, 1), to, n)
	s := stats(t, b, 1).Sub(before)
	if s.Down.Lost < n*15/100 || s.Down.Lost > n*25/100 || int64(got)+s.Down.Lost != n {
		t.Errorf("of %d packets %d arrived and %d were lost; the loss is 20 %%", n, got, s.Down.Lost)
	}
	if err := b.Loss(1, 0); err != nil {
		t.Fatal(err)
	}
	if got := reach(t, b, testbed.DC, testbed.Node(1, 1), to, n); got != n {
		t.Errorf("without loss %d of %d packets arrived", got, n)
	}
	if err := b.Cut(1); err != nil {
		t.Fatal(err)
	}
	before = stats(t, b, 1)
	if got := ping(t, b, testbed.DC, testbed.Node(1, 1), to, n); got != 0 {
		t.Errorf("%d packets crossed a cut WAN", got)
	}
	if s := stats(t, b, 1).Sub(before); s.Down.Cut != n {
		t.Errorf("%d of %d packets died at the cut", s.Down.Cut, n)
	}
	if got := ping(t, b, testbed.DC, testbed.Node(2, 1), testbed.NodeAddr(2, 1), n); got < n/2 {
		t.Errorf("the other site got %d of %d packets", got, n)
	}
	if err := b.Heal(1); err != nil {
		t.Fatal(err)
	}
	if got := reach(t, b, testbed.DC, testbed.Node(1, 1), to, n); got != n {
		t.Errorf("after the cut %d of %d packets arrived", got, n)
	}
}

func TestPartition(t *testing.T) {
	b := testbed.New(t, testbed.Config{Nodes: 4})
	// Node 0 stands for the data centre. What is to be reached may need a second call: after a fault the kernel asks for
	// a neighbour's address once a second.
	reach := func(from, to int, want bool) bool {
		host, addr := testbed.Node(1, to), testbed.NodeAddr(1, to)
		if to == 0 {
			host, addr = testbed.DC, testbed.DCAddr
		}
		for deadline := time.Now().Add(20 * time.Second); ; {
			if got := ping(t, b, testbed.Node(1, from), host, addr, 3) > 0; got || !want || time.Now().After(deadline) {
				return got
			}
		}
	}
	check := func(when string, want func(a, c int) bool) {
		t.Helper()
		for a := 1; a <= 4; a++ {
			for c := range 5 {
				if a != c && reach(a, c, want(a, c)) != want(a, c) {
					t.Errorf("%s: node %d reaches node %d: %v", when, a, c, !want(a, c))
				}
			}
		}
	}
	check("whole", func(int, int) bool { return true })
	if err := b.Partition(1, 1, 3); err != nil {
		t.Fatal(err)
	}
	check("split", func(a, c int) bool { return c == 0 || a%2 == c%2 })
	if err := b.Reunite(1); err != nil {
		t.Fatal(err)
	}
	check("healed", func(int, int) bool { return true })
	if err := b.Isolate(1, 2); err != nil {
		t.Fatal(err)
	}
	check("isolated", func(a, c int) bool { return a != 2 && c != 2 })
	if err := b.Join(1, 2); err != nil {
		t.Fatal(err)
	}
	check("joined", func(int, int) bool { return true })
	if b.Partition(1, 1, 2, 3, 4) == nil || b.Partition(1, 9) == nil {
		t.Error("a partition without two sides is accepted")
	}
}

// What one node suffers alone: its WAN blocked, its cable slow or losing packets.
func TestOneNodesFaults(t *testing.T) {
	b := testbed.New(t, testbed.Config{Nodes: 3})
	arrive := func(from, to int) int {
		host, addr := testbed.Node(1, to), testbed.NodeAddr(1, to)
		if to == 0 {
			host, addr = testbed.DC, testbed.DCAddr
		}
		return ping(t, b, testbed.Node(1, from), host, addr, 200)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for from := 1; from <= 3; from++ { // and the kernel has asked for every neighbour's address
		if a, c := arrive(from, 0), arrive(from, from%3+1); a != 200 || c != 200 {
			t.Fatalf("node %d, before anything: %d arrive in the data centre, %d next door", from, a, c)
		}
	}
	must(b.Block(1, 1, 3))
	if a, c, d := arrive(1, 0), arrive(3, 0), arrive(2, 0); a != 0 || c != 0 || d != 200 {
		t.Errorf("nodes 1 and 3 blocked: of 200 arrive %d, %d, and %d of node 2", a, c, d)
	}
	if got := arrive(1, 3); got != 200 {
		t.Errorf("a blocked WAN takes the LAN along: %d", got)
	}
	must(b.Block(1))
	if got := arrive(1, 0); got != 200 {
		t.Errorf("no longer blocked: %d", got)
	}
	must(b.NodeLoss(1, 2, 0.5))
	if in, out := arrive(1, 2), arrive(2, 1); in < 60 || in > 140 || out < 60 || out > 140 {
		t.Errorf("half of 200 lost each way: %d arrive, %d leave", in, out)
	}
	must(b.NodeLoss(1, 2, 0))
	if in, out := arrive(1, 2), arrive(2, 1); in != 200 || out != 200 {
		t.Errorf("nothing lost: %d arrive, %d leave", in, out)
	}
	must(b.NodeRate(1, 1, 4*testbed.Mbit))
	serve(t, b, testbed.Node(1, 2), testbed.NodeAddr(1, 2)+":80", 1<<20)
	start := time.Now()
	if n, err := fetch(t, b, testbed.Node(1, 1), testbed.NodeAddr(1, 2)+":80"); err != nil || n != 1<<20 {
		t.Fatal(n, err)
	}
	if took := time.Since(start); took < 1800*time.Millisecond { // 2.1 s but for the burst
		t.Errorf("1 MiB over 4 Mbit/s in %v", took)
	}
}

// The data centre's address goes to another server and back.
func TestMove(t *testing.T) {
	b := testbed.New(t, testbed.Config{})
	for _, host := range []string{testbed.DC, testbed.DC2, testbed.DC} {
		if err := b.Move(host); err != nil {
			t.Fatal(err)
		}
		if got := reach(t, b, testbed.Bystander(1), host, testbed.DCAddr, 3); got != 3 {
			t.Errorf("%d of 3 packets reach %s", got, host)
		}
	}
	if got := reach(t, b, testbed.Node(1, 1), testbed.DC2, testbed.DC2Addr, 3); got != 3 {
		t.Errorf("%d of 3 packets reach the second server", got)
	}
}

func TestDisk(t *testing.T) {
	b := testbed.New(t, testbed.Config{})
	dir := t.TempDir()
	if err := b.Disk(dir, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, 2<<20), 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("2 MiB on a disk of one: %v", err)
	}
	if err := b.Down(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("after the bed there is %v %v", left, err)
	}
}

// A flapping WAN ends healed, whenever it is told to.
func TestFlap(t *testing.T) {
	b := testbed.New(t, testbed.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- b.Flap(ctx, 1, time.Millisecond, time.Millisecond) }()
	for ctx.Err() == nil { // until it was seen cut
		ping(t, b, testbed.DC, testbed.Node(1, 1), testbed.NodeAddr(1, 1), 1)
		if stats(t, b, 1).Down.Cut > 0 {
			cancel()
		}
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := reach(t, b, testbed.DC, testbed.Node(1, 1), testbed.NodeAddr(1, 1), 10); got != 10 {
		t.Errorf("%d of 10 packets", got)
	}
}

func TestKillStopCont(t *testing.T) {
	b := testbed.New(t, testbed.Config{Nodes: 2})
	state := func(c *exec.Cmd) string {
		s, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(s))[2]
	}
	first, second := exec.Command("sleep", "600"), exec.Command("sleep", "600")
	for n, c := range map[int]*exec.Cmd{1: first, 2: second} {
		if err := b.Exec(testbed.Node(1, n), c); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Stop(testbed.Node(1, 1)); err != nil {
		t.Fatal(err)
	}
	for state(first) != "T" { // it stops at its next step
		<-time.After(time.Millisecond)
	}
	if s := state(second); s == "T" {
		t.Error("Stop of the first host froze what runs in the second")
	}
	if err := b.Cont(testbed.Node(1, 1)); err != nil {
		t.Fatal(err)
	}
	for state(first) == "T" {
		<-time.After(time.Millisecond)
	}
	if err := b.Kill(testbed.Node(1, 1)); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := first.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the first host's program ended with %v", err)
	}
	if err := b.Down(); err != nil {
		t.Fatal(err)
	}
	if err := second.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the program in a bed that went down ended with %v", err)
	}
}

// left lists what there is of a bed on this machine.
func left(bed string) (found []string) {
	for _, pattern := range []string{"/run/netns/pmbed-" + bed + "-*", "/run/patchmesh-testbed/" + bed} {
		m, _ := filepath.Glob(pattern)
		found = append(found, m...)
	}
	return found
}

func TestDownLeavesNothing(t *testing.T) {
	a := testbed.New(t, testbed.Config{Sites: 2, Nodes: 2})
	other := testbed.New(t, testbed.Config{}) // beds stand side by side
	if len(left(a.Name())) != 12 {            // dc, dc2, dc-r, two sites of four, the file
		t.Errorf("of a bed that is up there is %q", left(a.Name()))
	}
	if _, err := testbed.Up(testbed.Config{Name: a.Name()}); err == nil {
		t.Error("two beds of one name are up")
	}
	for range 2 {
		if err := a.Down(); err != nil {
			t.Fatal(err)
		}
	}
	if l := left(a.Name()); len(l) > 0 {
		t.Errorf("left: %q", l)
	}
	if got := reach(t, other, testbed.DC, testbed.Node(1, 1), testbed.NodeAddr(1, 1), 3); got != 3 {
		t.Errorf("the other bed carried %d of 3 packets", got)
	}
	again := testbed.New(t, testbed.Config{Name: a.Name()})
	if got := reach(t, again, testbed.DC, testbed.Node(1, 1), testbed.NodeAddr(1, 1), 3); got != 3 {
		t.Errorf("a second bed of the name carried %d of 3 packets", got)
	}
}

// killGuard kills the guard of another process's bed.
func killGuard(t *testing.T, bed string) {
	t.Helper()
	envs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, env := range envs {
		b, err := os.ReadFile(env)
		if err == nil && bytes.Contains(b, []byte("PATCHMESH_TESTBED_GUARD="+bed+"\x00")) {
			pid, _ := strconv.Atoi(strings.Split(env, "/")[2])
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("there is no guard")
}

// A process with a bed is killed. Its guard removes the bed; if the guard is killed first, the next bed does.
func TestCrash(t *testing.T) {
	if missing := testbed.Missing(); missing != "" {
		t.Skip("needs " + missing)
	}
	for _, c := range []struct {
		name  string
		guard bool // survives
		sig   syscall.Signal
	}{{"killed", true, syscall.SIGKILL}, {"interrupted", true, syscall.SIGINT}, {"guard killed too", false, syscall.SIGKILL}} {
		t.Run(c.name, func(t *testing.T) {
			bed := fmt.Sprintf("crash%d", os.Getpid())
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "TESTBED_CRASH="+bed)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, 100)
			n, _ := out.Read(line)
			if got := string(line[:n]); got != "up <nil>\n" || len(left(bed)) == 0 {
				cmd.Process.Kill()
				t.Fatalf("the other process says %q; there is %q", got, left(bed))
			}
			if !c.guard {
				killGuard(t, bed)
			}
			syscall.Kill(-cmd.Process.Pid, c.sig) // as the terminal does
			cmd.Wait()
			if !c.guard {
				if len(left(bed)) == 0 {
					t.Log("the bed is gone already: another process has made one meanwhile")
				}
				testbed.New(t, testbed.Config{})
			}
			for deadline := time.Now().Add(20 * time.Second); len(left(bed)) > 0; {
				if time.Now().After(deadline) {
					t.Fatalf("left: %q", left(bed))
				}
				<-time.After(10 * time.Millisecond)
			}
		})
	}
}

// What the bed's file does not name is not touched, whatever it is called.
func TestStrangersAreNotTouched(t *testing.T) {
	if missing := testbed.Missing(); missing != "" {
		t.Skip("needs " + missing)
	}
	bed := fmt.Sprintf("strange%d", os.Getpid())
	ns := "pmbed-" + bed + "-dc-r"
	if err := exec.Command("ip", "netns", "add", ns).Run(); err != nil {
		t.Fatal(err)
	}
	defer exec.Command("ip", "netns", "del", ns).Run()
	if b, err := testbed.Up(testbed.Config{Name: bed}); err == nil {
		b.Down()
		t.Error("a bed took over a namespace that it did not make")
	}
	if _, err := os.Stat("/run/netns/" + ns); err != nil {
		t.Errorf("the stranger is gone: %v", err)
	}
	file := "/run/patchmesh-testbed/" + bed
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", file, err)
	}
	// A file that names something else than its bed's namespaces is refused as a whole.
	if err := os.WriteFile(file, []byte("pmbed-other-dc\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file)
	if _, err := testbed.Up(testbed.Config{Name: bed}); err == nil || !strings.Contains(err.Error(), "nothing was touched") {
		t.Errorf("a file that names a stranger: %v", err)
	}
}
