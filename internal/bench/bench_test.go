package main

import (
	"context"
	"crypto/sha1"
	"math"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/testbed"
)

func TestMain(m *testing.M) { os.Exit(testbed.Main(m)) }

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(b)) }

func TestBounds(t *testing.T) {
	const MB = 1e6
	for _, c := range []struct {
		what      string
		got, want float64
	}{
		{"a thin WAN is the limit", fillTime(100*MB, 5*MB, 100*MB, 0.25*MB, 8, 40*time.Millisecond), 20 + 3*0.0025 + 0.04},
		{"a thin LAN is", fillTime(100*MB, 50*MB, 10*MB, 0.25*MB, 2, 0), 10 + 0.025},
		{"everything together is", fillTime(100*MB, 50*MB, 51*MB, 0, 100, 0), 2},
		{"one node has no neighbours", fillTime(100*MB, 10*MB, 100*MB, 1*MB, 1, 0), 10},
		{"broadcast to one other", broadcastTime(100, 1*MB, 10*MB, 2), 10},
		{"broadcast to seven", broadcastTime(100, 1*MB, 10*MB, 8), 10.2},
		{"broadcast to eight", broadcastTime(100, 1*MB, 10*MB, 9), 10.3},
		{"nobody to tell", broadcastTime(100, 1*MB, 10*MB, 1), 0},
		{"four chunks on a thin line", mostTwice(50e6/8, 40*time.Millisecond), 1 << 20},
		{"two products on a long one", mostTwice(100e6/8, 200*time.Millisecond), 5e6},
	} {
		if !near(c.got, c.want) {
			t.Errorf("%s: %v, not %v", c.what, c.got, c.want)
		}
	}
}

func TestMedian(t *testing.T) {
	if m := median([]float64{3, 1, 2}); m != 2 {
		t.Error(m)
	}
	if m := median([]float64{4, 1, 2, 3}); m != 2.5 {
		t.Error(m)
	}
	if !math.IsNaN(median(nil)) || !math.IsNaN(percentile(nil, 50)) {
		t.Error("a median of nothing")
	}
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.SliceOfN(rapid.Float64Range(-1e9, 1e9), 1, 50).Draw(t, "values")
		kept := slices.Clone(v)
		p50, p95, m := percentile(v, 50), percentile(v, 95), median(v)
		if p50 > p95 || p95 > slices.Max(v) || p50 < slices.Min(v) || m < slices.Min(v) || m > slices.Max(v) || percentile(v, 100) != slices.Max(v) {
			t.Errorf("p50 %v, p95 %v, median %v of %v", p50, p95, m, v)
		}
		if !slices.Equal(v, kept) {
			t.Error("the values were moved")
		}
	})
}

func TestIdle(t *testing.T) {
	start := time.Unix(1000, 0)
	var ticks []tick
	bytes := int64(0)
	for i := range 200 { // 20 ms each; the link rests from 1 s to 2 s, except for small talk
		if i < 50 || i >= 100 {
			bytes += 20_000
		} else {
			bytes += 100
		}
		ticks = append(ticks, tick{start.Add(time.Duration(i) * 20 * time.Millisecond), bytes})
	}
	if d := idle(ticks, start, bytes, 1e6); d != time.Second {
		t.Errorf("idle for %v", d)
	}
	if d := idle(ticks, start.Add(1500*time.Millisecond), bytes, 1e6); d != 480*time.Millisecond { // from the first reading on
		t.Errorf("from the middle: idle for %v", d)
	}
	if d := idle(ticks, start, 50*20_000, 1e6); d != 0 {
		t.Errorf("when everything was there already: idle for %v", d)
	}
	if d := idle(nil, start, 1, 1e6); d != 0 {
		t.Error(d)
	}
}

// sampled is a document as a run leaves it.
func sampled() *results {
	d := &results{}
	p := part{Name: "fill-8", At: time.Unix(1e9, 0).UTC(), Commit: "abc", Machine: machine{Cores: 2, CPU: "x", Kernel: "Linux 6"}, Seed: 1, Runs: 3}
	r := p.row(ours, "8 nodes")
	for _, v := range []float64{1.041, 1.039, 1.040} {
		r.record(wanBytes, v)
	}
	r.record(eWAN, 0.5)
	d.put(p, partNames())
	q := part{Name: "rivals-8", Runs: 3, Commit: "abc", Skipped: []string{"uftp: get it"}}
	q.row("aria2", "8 nodes").record(wanBytes, 1.5)
	d.put(q, partNames())
	return d
}

func TestResults(t *testing.T) {
	d := sampled()
	if v, ok := d.find("fill-8", ours, "8 nodes").value(wanBytes); !ok || v != 1.040 {
		t.Errorf("the median is %v %v", v, ok)
	}
	if v, ok := d.find("fill-8", ours, "9 nodes").value(wanBytes); ok {
		t.Errorf("there is %v for what was not measured", v)
	}
	name := filepath.Join(t.TempDir(), "below", "results.json")
	if err := d.save(name); err != nil {
		t.Fatal(err)
	}
	again, err := load(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, again); diff != "" {
		t.Error(diff)
	}
	// A part that is measured again takes the place of the older one; the order is that of the list; strangers go.
	d.Parts = append(d.Parts, part{Name: "no longer known"})
	d.put(part{Name: "fill-8", Commit: "def"}, partNames())
	var got []string
	for _, p := range d.Parts {
		got = append(got, p.Name+" "+p.Commit)
	}
	if diff := cmp.Diff([]string{"fill-8 def", "rivals-8 abc"}, got); diff != "" {
		t.Error(diff)
	}
	if none, err := load(filepath.Join(t.TempDir(), "none")); err != nil || len(none.Parts) != 0 {
		t.Error(none, err)
	}
	for _, bad := range []string{`{"schema":2}`, `{"schema":1,"what":0}`, `[]`, ``} {
		if _, err := parse([]byte(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	b, err := sampled().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schema":1,"parts":[{"rows":[{"figures":{"wan":{}}}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parse(b)
		if err != nil {
			return
		}
		for _, table := range [][][]string{bounds(d), comparison(d), elsewhere(d)} {
			for _, r := range table {
				if len(r) != len(table[0]) {
					t.Errorf("row %q in a table of %d columns", r, len(table[0]))
				}
			}
		}
		_ = block(d)
	})
}

func TestTables(t *testing.T) {
	d := sampled()
	text := plainText(bounds(d))
	for _, want := range []string{"A_wan, interface, 8 nodes  1.036  <= 1.045  1.040     yes", "E_wan, 8 nodes             1.00   >= 0.970  0.500     no"} {
		if !strings.Contains(text, want) {
			t.Errorf("no line %q in\n%s", want, text)
		}
	}
	if n := len(bounds(d)); n != 3 {
		t.Errorf("%d lines, with what was not measured", n)
	}
	b := block(d)
	for _, want := range []string{"| **patchmesh** | 1.040 |", "| aria2 | 1.500 |", "Skipped: uftp: get it.", "commit abc", "2 cores"} {
		if !strings.Contains(b, want) {
			t.Errorf("no %q in\n%s", want, b)
		}
	}
	if got := provenance(&results{}); got != "Nothing was measured yet." {
		t.Error(got)
	}
}

// Every figure of the first table is one that a part of that name makes.
func TestTargetsNameParts(t *testing.T) {
	for _, x := range targets() {
		if !slices.Contains(partNames(), x.part) {
			t.Errorf("%s is taken from part %s, which there is not", x.label, x.part)
		}
	}
	if len(chosen(entries(), "lan,fill-8")) != 5 || len(chosen(entries(), "")) != len(entries()) || len(chosen(entries(), "nothing")) != 0 {
		t.Error("the choice of parts")
	}
}

// The README shows what the committed document says.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	d, err := load("../../bench/results.json")
	if err != nil {
		t.Fatal(err)
	}
	want, err := rewrite(string(readme), d)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(readme)); diff != "" {
		t.Errorf("go run ./internal/bench readme\n%s", diff)
	}
	for _, text := range []string{"", beginMark, endMark + beginMark} {
		if _, err := rewrite(text, d); err == nil {
			t.Errorf("a README without marks is rewritten: %q", text)
		}
	}
}

func TestStagedAt(t *testing.T) {
	const log = `ready site1/node-1 mesh 10.11.0.11:7401 gossip 10.11.0.11:7402
time=2026-11-21T06:54:01.000Z level=INFO msg=phase bundle=app phase=Staged reason=Complete code="" detail=""
time=2026-11-21T06:54:10.856Z level=INFO msg=manifest bundle=app version=1.1 checksum=17940e31cfcf
time=2026-11-21T06:54:10.857Z level=INFO msg=phase bundle=app phase=Staging reason=Downloading code="" detail=""
time=2026-11-21T06:54:13.916Z level=INFO msg=phase bundle=app phase=Staged reason=Complete code="" detail=""
time=2026-11-21T06:54:14.916Z level=INFO msg=phase bundle=app phase=Staged reason=Queued code="" detail=""
`
	at, ok := stagedAt(log, "1.1")
	if want := time.Date(2026, 11, 21, 6, 54, 13, 916e6, time.UTC); !ok || !at.Equal(want) {
		t.Error(at, ok)
	}
	for what, log := range map[string]string{
		"a time that is none": "msg=manifest version=1.1 x\ntime=now msg=phase  phase=Staged reason=Complete", "another version": strings.ReplaceAll(log, "version=1.1 ", "version=1.10 "),
	} {
		if _, ok := stagedAt(log, "1.1"); ok {
			t.Error(what)
		}
	}
}

func TestMetainfo(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image.bin")
	content := []byte(strings.Repeat("x", pieceSize+10))
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := metainfo(name, "http://h/announce")
	if err != nil {
		t.Fatal(err)
	}
	a, b := sha1.Sum(content[:pieceSize]), sha1.Sum(content[pieceSize:])
	want := "d8:announce17:http://h/announce4:infod6:lengthi262154e4:name9:image.bin12:piece lengthi262144e6:pieces40:" + string(a[:]) + string(b[:]) + "ee"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func announce(tr *tracker, from string, query string) string {
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/announce?"+query, nil)
	r.RemoteAddr = from
	tr.ServeHTTP(w, r)
	return w.Body.String()
}

func TestTracker(t *testing.T) {
	tr := &tracker{}
	tr.forget()
	swarm := "info_hash=" + url.QueryEscape(strings.Repeat("\xab", 20))
	if got := announce(tr, "10.0.0.1:99", swarm+"&port=6881&left=5"); !strings.HasSuffix(got, "5:peers0:e") || tr.seeded() {
		t.Errorf("%q", got)
	}
	if got := announce(tr, "10.0.0.2:99", swarm+"&port=258&left=0"); !strings.HasSuffix(got, "5:peers6:\x0a\x00\x00\x01\x1a\xe1e") || !tr.seeded() {
		t.Errorf("%q", got)
	}
	announce(tr, "10.0.0.2:99", swarm+"&port=258&left=0&event=stopped")
	if got := announce(tr, "10.0.0.1:98", swarm+"&port=6881&left=5"); !strings.HasSuffix(got, "5:peers0:e") || tr.seeded() {
		t.Errorf("%q", got)
	}
	for _, bad := range []string{"", swarm, swarm + "&port=99999", "info_hash=short&port=1"} {
		if got := announce(tr, "10.0.0.1:98", bad); !strings.HasPrefix(got, "not an announcement") {
			t.Errorf("%s: %q", bad, got)
		}
	}
}

func TestUsage(t *testing.T) {
	u, err := readUsage(os.Getpid())
	if err != nil || u.now <= 0 || u.peak < u.now/2 {
		t.Errorf("%+v %v", u, err)
	}
	if _, err := readUsage(0); err == nil {
		t.Error("a process that is none")
	}
}

func TestChecksum(t *testing.T) {
	b := request(7, 300)
	if sum := checksum(b); sum != 0 { // RFC 1071: over a packet with its checksum the sum is zero
		t.Errorf("%x", sum)
	}
}

func TestMillis(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(100, int64(ms)*1e6) }
	echoes := []echo{{at(0), time.Millisecond}, {at(20), 0}, {at(40), 3 * time.Millisecond}, {at(60), time.Millisecond}}
	if diff := cmp.Diff([]float64{1000, 3}, millis(echoes, at(20), at(60))); diff != "" {
		t.Error(diff)
	}
}

// On a bed: the yardstick moves what it is to move, the bystander is answered, a person's orders are obeyed, and
// nothing is left.
func TestStage(t *testing.T) {
	if missing := testbed.Missing(); missing != "" {
		t.Skip("needs " + missing)
	}
	if lines := missing([]tool{{"curl", "curl"}}); len(lines) > 0 {
		t.Skip("needs " + lines[0])
	}
	const size = 1 << 20
	s, err := options{runs: 1, size: size, say: t.Logf}.open(testbed.Config{Nodes: 2, WAN: 50 * testbed.Mbit, RTT: 20 * time.Millisecond, LAN: testbed.Gbit})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(s.dir); err == nil {
			t.Error("its directory is left")
		}
	}()
	var p part
	if err := s.single(t.Context(), &p); err != nil {
		t.Fatal(err)
	}
	if v, ok := p.row("one curl, one node", "2 nodes").value(wanBytes); !ok || v < 1.02 || v > 1.1 {
		t.Errorf("%v copies by one curl", v)
	}
	if err := s.compete(t.Context(), &p, rival{name: "curl", start: curls}); err != nil {
		t.Fatal(err)
	}
	if v, ok := p.row("curl", "2 nodes").value(wanBytes); !ok || v < 2.04 || v > 2.2 {
		t.Errorf("%v copies by two curls", v)
	}
	// A rival that delivers something else has no figures.
	wrong := func(_ context.Context, r *race) error {
		for _, x := range r.runners {
			if err := r.on(x, nil, "cp", "/proc/self/status", x.out); err != nil {
				return err
			}
		}
		return nil
	}
	if err := s.compete(t.Context(), &p, rival{name: "wrong", start: wrong}); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("wrong bytes: %v", err)
	}
	pings := s.pings(t.Context())
	if err := pause(t.Context(), 500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	echoes, err := pings.stop()
	if err != nil || len(echoes) == 0 {
		t.Fatal(echoes, err)
	}
	for _, e := range echoes {
		if e.rtt < 20*time.Millisecond {
			t.Errorf("an answer after %v over a link of 20 ms", e.rtt)
		}
	}
	var out strings.Builder
	for _, line := range []string{"cut 1", "heal 1", "loss 1 0", "delay 1 0ms", "wan 1 10", "rate 1 2 10", "nodeloss 1 2 0", "block 1 2", "block 1", "isolate 1 2", "join 1 2", "stats 1"} {
		if err := order(s.bed, strings.Fields(line), &out); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	if !strings.Contains(out.String(), "node 2: WAN down ") {
		t.Error(out.String())
	}
	for _, line := range []string{"cut", "cut x", "cut 9", "loss 1 2", "delay 1 soon", "what", "kill nobody", "stop site1-node1"} {
		if err := order(s.bed, strings.Fields(line), &out); err == nil && line != "kill nobody" {
			t.Errorf("%q is obeyed", line)
		}
	}
}
