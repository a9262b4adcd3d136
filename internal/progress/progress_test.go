package progress

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// clock is moved by the test.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

// work is the same for every printer: a stage of 4 steps 6 s apart, one without a total, one that is given up.
func work(p Printer) {
	c := &clock{time.Unix(1000, 0)}
	r := New(p, c.now)
	r.Stage("verify", 8_000_000, Bytes)
	for range 4 {
		c.advance(6 * time.Second)
		r.Add(2_000_000)
	}
	r.Done()
	r.Done() // ends nothing
	r.Add(1) // counts for nothing
	r.Stage("scan", 0, Files)
	r.Add(12)
	r.Stage("copy", 100, Files) // ends the one before
	r.Add(50)
	r.Stop()
}

func TestPrinters(t *testing.T) {
	var out bytes.Buffer
	tests := []struct {
		name string
		p    Printer
		want string
	}{
		{"lines", Lines(&out), `
verify: 3.8 MiB of 7.6 MiB (50 %)  326 KiB/s
verify: 7.6 MiB (100 %)  326 KiB/s
verify: done, 7.6 MiB in 24.0 s
scan: done, 12 files in 0.0 s
copy: stopped at 50 of 100 files
`},
		{"json", JSON(&out), `
{"event":"progress","stage":"verify","state":"started","done":0,"total":8000000,"unit":"bytes","elapsedMs":0}
{"event":"progress","stage":"verify","state":"running","done":2000000,"total":8000000,"unit":"bytes","elapsedMs":6000}
{"event":"progress","stage":"verify","state":"running","done":4000000,"total":8000000,"unit":"bytes","elapsedMs":12000}
{"event":"progress","stage":"verify","state":"running","done":6000000,"total":8000000,"unit":"bytes","elapsedMs":18000}
{"event":"progress","stage":"verify","state":"running","done":8000000,"total":8000000,"unit":"bytes","elapsedMs":24000}
{"event":"progress","stage":"verify","state":"done","done":8000000,"total":8000000,"unit":"bytes","elapsedMs":24000}
{"event":"progress","stage":"scan","state":"started","done":0,"total":0,"unit":"files","elapsedMs":0}
{"event":"progress","stage":"scan","state":"done","done":12,"total":0,"unit":"files","elapsedMs":0}
{"event":"progress","stage":"copy","state":"started","done":0,"total":100,"unit":"files","elapsedMs":0}
{"event":"progress","stage":"copy","state":"stopped","done":50,"total":100,"unit":"files","elapsedMs":0}
`},
		{"bar", Bar(&out, func() int { return 80 }), `
<verify       [........................]   0 %  0 B of 7.6 MiB
<verify       [######..................]  25 %  1.9 MiB of 7.6 MiB  326 KiB/s
<verify       [############............]  50 %  3.8 MiB of 7.6 MiB  326 KiB/s
<verify       [##################......]  75 %  5.7 MiB of 7.6 MiB  326 KiB/s
<verify       [########################] 100 %  7.6 MiB  326 KiB/s
<verify       [########################] 100 %  7.6 MiB  326 KiB/s
.
<scan         0 files
<scan         12 files
.
<copy         [........................]   0 %  0 of 100 files
<copy         [############............]  50 %  50 of 100 files  stopped
.
`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out.Reset()
			work(test.p)
			got := "\n" + out.String()
			if test.name == "bar" { // make what is drawn over visible: < is a return, . a new line
				got = strings.ReplaceAll(got[1:], "\n", "\n.")
				got = strings.ReplaceAll(got, "\r\x1b[K", "\n<")
				got += "\n"
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBarFitsTheTerminal(t *testing.T) {
	var out bytes.Buffer
	work(Bar(&out, func() int { return 30 }))
	for line := range strings.SplitSeq(out.String(), "\r\x1b[K") {
		if len(strings.TrimSuffix(line, "\n")) >= 30 {
			t.Errorf("%q would wrap", line)
		}
	}
}

func TestNilReporter(t *testing.T) {
	var r *Reporter
	r.Stage("x", 1, Bytes)
	r.Add(1)
	r.Done()
	r.Stop()
}

func TestConcurrentAdd(t *testing.T) {
	var out bytes.Buffer
	r := New(JSON(&out), time.Now)
	r.Stage("x", 8000, Chunks)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				r.Add(1)
			}
		})
	}
	wg.Wait()
	r.Done()
	if !strings.Contains(out.String(), `"state":"done","done":8000,"total":8000`) {
		t.Error(out.String())
	}
}

func TestForWriter(t *testing.T) {
	if _, ok := For(&bytes.Buffer{}, false).printer.(lines); !ok {
		t.Error("no terminal: want lines")
	}
	if _, ok := For(&bytes.Buffer{}, true).printer.(events); !ok {
		t.Error("json: want events")
	}
}

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10 << 10: "10 KiB", 205 << 20: "205 MiB", 1<<20 - 1: "1.0 MiB",
		3435 << 20: "3.4 GiB", 10188 << 20: "9.9 GiB", 1 << 42: "4.0 TiB", 1<<63 - 1: "8.0 EiB", -2048: "-2.0 KiB",
	} {
		if got := FormatBytes(n); got != want {
			t.Errorf("FormatBytes(%d) = %q, want %q", n, got, want)
		}
	}
}
