package evil_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/internal/evil"
	"github.com/patchmesh/patchmesh/internal/status"
)

// cpu is what a process has used so far; the kernel counts in hundredths of a second.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	sys, _ := strconv.Atoi(f[12])
	return time.Duration(user+sys) * 10 * time.Millisecond
}

// peakRSS is the most memory that a process had resident since the last call, in KiB.
func peakRSS(t *testing.T, pid int) (kib int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ = strconv.Atoi(strings.Fields(v)[0])
		}
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0o200); err != nil {
		t.Log(err) // the peak is then the one of all roles so far
	}
	return kib
}

// mostMemory is what a node under attack may have resident.
const mostMemory = 64 << 10 // KiB

// What each flooder, which comes back as soon as it may, costs a node in some seconds. Times are figures; what is asserted is memory.
func TestFloodCost(t *testing.T) {
	t.Parallel()
	floods := []evil.Role{evil.Honest, evil.Pings, evil.Gets, evil.NoRead, evil.GetDocs, evil.Haves, evil.HaveAdds, evil.Docs, evil.DocsFull, evil.Statuses,
		evil.Reports, evil.Flap, evil.Streams, evil.Comes, evil.HalfOpen, evil.Beyond, evil.Unasked, evil.Forgery}
	s := lay(t, 1+len(floods), 8<<20)
	honest := s.site.Nodes[0]
	s.must(honest.Start())
	s.must(honest.Ready(s.ctx))
	s.installed(honest)
	pid := honest.Proc().PID()
	has, err := evil.Steal(honest.State)
	s.must(err)
	id, err := peer.IDFromPrivateKey(has.Key)
	s.must(err)
	addr, err := netip.ParseAddrPort(honest.Addr())
	s.must(err)
	lasts := 2 * time.Second
	if os.Getenv("PATCHMESH_FULL") == "1" {
		lasts = 10 * time.Second
	}
	rest := func() time.Duration { // nobody there
		before := cpu(t, pid)
		time.Sleep(lasts)
		return cpu(t, pid) - before
	}
	peakRSS(t, pid)
	t.Logf("%-10s cpu %5.0f ms in %v, peak %2d MiB", "nobody", rest().Seconds()*1000, lasts, peakRSS(t, pid)>>10)
	for i, role := range floods {
		func() {
			cfg, err := evil.Steal(s.site.Nodes[i+1].State)
			s.must(err)
			cfg.Roles, cfg.Targets = []evil.Role{role}, []evil.Target{{ID: id, Addr: addr}}
			cfg.Knows(s.bundle)
			p, err := evil.New(cfg)
			s.must(err)
			ctx, cancel := context.WithCancel(s.ctx)
			ended := make(chan error, 1)
			before := cpu(t, pid)
			go func() { ended <- p.Run(ctx) }()
			time.Sleep(lasts)
			used := cpu(t, pid) - before
			cancel()
			s.must(<-ended)
			rss := peakRSS(t, pid)
			t.Logf("%-10s cpu %5.0f ms in %v, peak %2d MiB, %7d messages in %d sessions", role, used.Seconds()*1000, lasts, rss>>10, p.Counts().Sent.Load(), p.Counts().Sessions.Load())
			if rss > mostMemory {
				t.Errorf("%s: %d MiB resident", role, rss>>10)
			}
		}()
	}
	st, err := honest.Self(s.ctx)
	s.must(err)
	if st.Phase != status.Installed {
		t.Errorf("%s", st.Phase)
	}
	if len(st.Noted) < len(floods)-5 {
		t.Errorf("%d were noted of %d", len(st.Noted), len(floods))
	}
}
