package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/bed/postgres"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
)

// BenchmarkFleet fills a seeder process with a fleet, lets the uplinks of all sites send a day of buffered reports at once,
// puts a policy with a rollout over all nodes in force, and says what an operator waits for then: meshctl as a process,
// beside the same command against a seeder without nodes. All share the machine. The number of nodes comes from
// SEEDER_BENCH_NODES (1000; the figures that are published are for 10000 nodes in 1200 sites: make fleet-bench).
// SEEDER_BENCH_PROFILE names a directory for CPU and heap profiles of the seeder, which is then this test's binary.
func BenchmarkFleet(b *testing.B) {
	nodes := 1000
	if s := os.Getenv("SEEDER_BENCH_NODES"); s != "" {
		var err error
		if nodes, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	bin := programs(b)
	b.Run("SQLite", func(b *testing.B) {
		for b.Loop() {
			lifeOfFleet(b, fleetSize{bin: bin, nodes: nodes, rest: 20 * time.Second, runs: 5, watchers: 50})
		}
	})
	b.Run("PostgreSQL", func(b *testing.B) {
		server := postgres.Start(b)
		for b.Loop() {
			lifeOfFleet(b, fleetSize{bin: bin, database: server.Fresh(), nodes: nodes, rest: 20 * time.Second, runs: 5, watchers: 50})
		}
	})
}

// The same with a small fleet: every row is there, and nothing takes its time.
func TestFleet(t *testing.T) {
	lifeOfFleet(t, fleetSize{bin: programs(t), nodes: 60, runs: 1, watchers: 3})
}

// fleetSize is how much of it there is.
type fleetSize struct {
	bin, database string // the programs; empty: SQLite
	nodes         int
	rest          time.Duration // how long the fleet at rest is looked at
	runs          int           // of each command
	watchers      int
}

// programs builds seeder and meshctl.
func programs(b testing.TB) string {
	b.Helper()
	bin := b.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, ".", "../meshctl").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// profile writes a CPU profile of each ten seconds, and what is on the heap after them.
func profile(dir string) {
	go func() {
		for i := 0; ; i++ {
			cpu, err := os.Create(filepath.Join(dir, fmt.Sprintf("cpu-%03d", i)))
			if err != nil {
				panic(err)
			}
			if err := pprof.StartCPUProfile(cpu); err != nil {
				panic(err)
			}
			time.Sleep(10 * time.Second)
			pprof.StopCPUProfile()
			heap, err := os.Create(filepath.Join(dir, fmt.Sprintf("heap-%03d", i)))
			if err != nil {
				panic(err)
			}
			if err := errors.Join(pprof.WriteHeapProfile(heap), heap.Close(), cpu.Close()); err != nil {
				panic(err)
			}
		}
	}()
}

// figures is a table of what was measured.
type figures struct {
	b     testing.TB
	lines []string
}

func (f *figures) add(what string, value string, args ...any) {
	f.lines = append(f.lines, what+"\t"+fmt.Sprintf(value, args...))
}

func (f *figures) print() {
	var out bytes.Buffer
	t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, l := range f.lines {
		fmt.Fprintln(t, l)
	}
	t.Flush()
	if _, ok := f.b.(*testing.T); ok {
		f.b.Logf("\n%s", out.String())
	} else {
		fmt.Printf("\n%s\n%s\n", f.b.Name(), out.String()) // a benchmark's log is cut after ten lines
	}
}

// screens are the commands that an operator waits for.
func screens(dir string) [][]string {
	plan := filepath.Join(dir, "next.yaml")
	return [][]string{
		{"version"},
		{"status"}, {"status", "-o", "wide"}, {"status", "-o", "json"}, {"status", "SITE"}, {"status", "SITE/pos-01"}, {"why", "SITE/pos-01"},
		{"node", "list"}, {"site", "list"},
		{"history", "SITE/pos-01"}, {"events"}, {"rollout", "status"},
		{"compliance", "-o", "csv"}, {"compliance", "--as-of", "YESTERDAY", "-o", "csv"}, {"compliance", "--site", "SITE"},
		{"diff", "-f", plan}, {"apply", "--dry-run", "-f", plan},
	}
}

// rowsOf is how many lines a command prints of such a fleet; 0: not said.
func rowsOf(command string, nodes, sites int) int {
	switch command {
	case "node list":
		return nodes + 1
	case "site list":
		return sites + 1
	case "compliance -o csv", "compliance --as-of YESTERDAY -o csv":
		return 3*nodes + 1 // each has receipts of three bundles
	case "version":
		return 1
	}
	return 0
}

func lifeOfFleet(b testing.TB, z fleetSize) {
	dir, bin, nodes, database := b.TempDir(), z.bin, z.nodes, z.database
	state := filepath.Join(dir, "st")
	flags, release := keys(b, dir)
	if database != "" {
		flags = append(flags, "--database", database)
	} else {
		database = filepath.Join(state, "seeder.db")
	}
	launch := func() *process {
		if at := os.Getenv("SEEDER_BENCH_PROFILE"); at != "" {
			c := command(b)
			c.Env = append(c.Env, "SEEDER_TEST_PROFILE="+at)
			return serve(b, c, state, flags...)
		}
		return serve(b, exec.CommandContext(b.Context(), filepath.Join(bin, "seeder")), state, flags...)
	}
	f := &figures{b: b}
	defer f.print()

	p := launch()
	x := noiseBundle(b, dir, 9*chunk.DefaultSize, release)
	publish(b, p, x)
	f.add("seeder without nodes, resident", "%.0f MB", usage(b, p).rss)
	write(b, dir, "next.yaml", rollingPolicy("everywhere", x.Manifest, x.Digest, 200))
	m := meshctl{exe: filepath.Join(bin, "meshctl"), config: filepath.Join(state, "admin.json")}
	empty := map[string]run{}
	for _, s := range screens(dir) {
		empty[strings.Join(s, " ")] = m.median(b, z.runs, true, s...)
	}
	p.signal(b, os.Interrupt)

	began := time.Now()
	voices := enrolFleet(b, state, database, nodes)
	f.add("sites, nodes enrolled in", "%d, %d in %.1f s", len(voices), nodes, time.Since(began).Seconds())
	began = time.Now()
	p = launch()
	f.add("the seeder starts and is ready", "%.1f s", time.Since(began).Seconds())
	f.add("resident, nobody connected", "%.0f MB", usage(b, p).rss)

	began = time.Now()
	ctx, cancel := context.WithCancel(b.Context())
	var hosts errgroup.Group
	defer func() { cancel(); _ = hosts.Wait() }()
	all(b, voices, 32, func(v *voice) error {
		v.hosts, v.seeder = &hosts, p
		if err := v.connect(ctx); err != nil {
			return err
		}
		return v.lead(ctx)
	})
	f.add("uplinks connected in", "%.1f s", time.Since(began).Seconds())
	boxes := make([][]*wire.Report, len(voices))
	total := 0
	for i, v := range voices {
		boxes[i] = v.outbox(b)
		total += len(boxes[i])
	}
	f.add("resident, an uplink of each site connected", "%.0f MB", usage(b, p).rss)

	before := usage(b, p)
	began = time.Now()
	var g errgroup.Group
	for i, v := range voices {
		g.Go(func() error { return v.drain(ctx, boxes[i]) })
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	took, after := time.Since(began).Seconds(), usage(b, p)
	f.add("reports of a day, all sites at once", "%d in %.1f s: %.0f/s, seeder's CPU %.1f s, resident %.0f MB", total, took, float64(total)/took, after.cpu-before.cpu, after.rss)
	boxes = nil

	staged := func(v *voice) error {
		if err := v.lead(ctx); err != nil {
			return err
		}
		v.state(x.Manifest, x.Digest, status.Staged)
		return nil
	}
	all(b, voices, 64, staged)
	m.must(b, "apply", "-f", write(b, dir, "policy.yaml", rollingPolicy("everywhere", x.Manifest, x.Digest, 100)), "--key", filepath.Join(dir, "policy.key"))
	settle(b, p, nodes, status.Staged, func() { all(b, voices, 64, staged) })

	// The fleet at rest: every uplink renews its lease every 20 s and says who is alive.
	rest, stop := context.WithCancel(ctx)
	beats := make(chan error, 1)
	go func() { beats <- heartbeat(rest, voices) }()
	time.Sleep(z.rest / 4)
	before, began = usage(b, p), time.Now()
	time.Sleep(z.rest)
	f.add("at rest, with a rollout over all nodes", "%.3f CPU s in a second", (usage(b, p).cpu-before.cpu)/time.Since(began).Seconds())
	f.add("resident, at rest", "%.0f MB", usage(b, p).rss)

	f.add("", "")
	f.add(fmt.Sprintf("meshctl as a process, median of %d", z.runs), "ms\tfleet without nodes\tratio\tbytes")
	for _, s := range screens(dir) {
		line := strings.Join(s, " ")
		r := m.median(b, z.runs, false, s...)
		e := empty[line]
		if n, want := strings.Count(r.stdout, "\n"), rowsOf(line, nodes, len(voices)); want > 0 && n != want {
			b.Errorf("meshctl %s: %d lines, want %d", line, n, want)
		}
		f.add(strings.ReplaceAll(line, dir+"/", ""), "%.0f\t%.0f\t%.1f\t%d", r.ms, e.ms, r.ms/e.ms, r.bytes)
	}
	for _, lines := range []bool{false, true} {
		var ms []float64
		for range 11 {
			began := time.Now()
			if _, err := p.admin.Fleet(b.Context(), lines); err != nil {
				b.Fatal(err)
			}
			ms = append(ms, float64(time.Since(began).Microseconds())/1e3)
		}
		slices.Sort(ms)
		f.add(fmt.Sprintf("GET /api/v1/fleet, one line a site: %t", lines), "%.1f ms", ms[len(ms)/2])
	}
	f.add("", "")
	stop()
	if err := <-beats; err != nil {
		b.Fatal(err)
	}
	fanOut(b, f, p, z.watchers, voices, func(v *voice, phase status.Phase) { v.state(x.Manifest, x.Digest, phase) })
	lost := 0
	why := map[string]int{}
	for _, v := range voices {
		if lost += v.lost; v.lost > 0 {
			why[fmt.Sprint(v.why)]++
		}
	}
	f.add("sessions lost meanwhile", "%d %v", lost, why)
	f.add("resident at the most", "%.0f MB", usage(b, p).peak)
	began = time.Now()
	p.signal(b, os.Interrupt)
	f.add("the seeder ends in", "%.1f s", time.Since(began).Seconds())
}

// settle waits until the seeder has heard all of it; what was said over a session that was being lost is said again.
func settle(b testing.TB, p *process, nodes int, phase status.Phase, again func()) {
	b.Helper()
	for try := 1; ; try++ {
		s, err := p.admin.Fleet(b.Context(), false)
		if err != nil {
			b.Fatal(err)
		}
		for _, x := range s.Phases {
			if x.Phase == phase && x.Nodes == nodes {
				return
			}
		}
		if try == 600 {
			b.Fatalf("not all of %d nodes are %s: %+v", nodes, phase, s.Phases)
		}
		if try%100 == 0 {
			again()
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// heartbeat is what uplinks say of a fleet in which nothing happens, spread over the 20 seconds.
func heartbeat(ctx context.Context, voices []*voice) error {
	t := time.NewTicker(20 * time.Second / time.Duration(len(voices)))
	defer t.Stop()
	for i := 0; ; i++ {
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
		v := voices[i%len(voices)]
		if err := v.lead(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		v.alive()
	}
}

// fanOut lets every node say something new while many watch.
func fanOut(b testing.TB, f *figures, p *process, watchers int, voices []*voice, news func(*voice, status.Phase)) {
	b.Helper()
	want := 0
	for _, v := range voices {
		want += len(v.names)
	}
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
	defer cancel()
	var missed sync.Map
	var g errgroup.Group
	ready, done := make(chan struct{}, watchers), make(chan struct{}, watchers)
	for i := range watchers {
		g.Go(func() error {
			seen, heard := map[string]bool{}, false
			_, err := p.admin.Watch(ctx, 0, func(e api.Event) error {
				if !heard {
					heard = true
					ready <- struct{}{}
				}
				if e.Kind == "node" && e.Name == string(status.Installing) {
					if seen[e.Subject] = true; len(seen) == want {
						done <- struct{}{}
					}
				}
				return nil
			}, func() { missed.Store(i, true) })
			if ctx.Err() != nil {
				return nil
			}
			return err
		})
	}
	for listening, i := 0, 0; listening < watchers; i++ { // one site says something again and again until all have heard it
		if err := voices[0].lead(ctx); err != nil {
			b.Fatal(err)
		}
		news(voices[0], []status.Phase{status.Scheduled, status.Staged}[i%2])
		select {
		case <-ready:
			for listening++; len(ready) > 0; listening++ {
				<-ready
			}
		case <-time.After(200 * time.Millisecond):
		}
	}
	before, began := usage(b, p), time.Now()
	for _, v := range voices {
		if err := v.lead(ctx); err != nil {
			b.Fatal(err)
		}
		news(v, status.Installing)
	}
	full := 0
	for ; full < watchers; full++ {
		select {
		case <-done:
			continue
		case <-ctx.Done():
		}
		break
	}
	took, after := time.Since(began).Seconds(), usage(b, p)
	cancel()
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		b.Error(err)
	}
	lost := 0
	missed.Range(func(any, any) bool { lost++; return true })
	if full+lost < watchers {
		b.Errorf("%d of %d watchers have all %d events, %d were told that they missed some", full, watchers, want, lost)
	}
	f.add(fmt.Sprintf("%d events to %d watchers", want, watchers), "%d have all after %.1f s, %d were told that they missed some, seeder's CPU %.1f s", full, took, lost, after.cpu-before.cpu)
}

// meshctl runs the real program.
type meshctl struct{ exe, config string }

type run struct {
	ms     float64
	bytes  int
	stdout string
}

func (m meshctl) run(b testing.TB, args ...string) (run, string, error) {
	b.Helper()
	for i, a := range args {
		a = strings.Replace(a, "SITE", "site-0003", 1)
		args[i] = strings.Replace(a, "YESTERDAY", time.Now().Add(-12*time.Hour).UTC().Format(time.RFC3339), 1)
	}
	c := exec.CommandContext(b.Context(), m.exe, args...)
	c.Env = append(os.Environ(), "MESHCTL_CONFIG="+m.config)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	began := time.Now()
	err := c.Run()
	return run{float64(time.Since(began).Microseconds()) / 1e3, out.Len(), out.String()}, errs.String(), err
}

func (m meshctl) must(b testing.TB, args ...string) {
	b.Helper()
	if _, errs, err := m.run(b, args...); err != nil {
		b.Fatalf("meshctl %v: %v\n%s", args, err, errs)
	}
}

// median runs a command so many times. 1 says that there are changes, 3 that a node needs attention, 10 that there is no
// such site, where there is none.
func (m meshctl) median(b testing.TB, times int, none bool, args ...string) run {
	b.Helper()
	var all []run
	for range times {
		r, errs, err := m.run(b, slices.Clone(args)...)
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || !slices.Contains([]int{1, 3}, exit.ExitCode()) && !(none && exit.ExitCode() == 10)) {
			b.Errorf("meshctl %v: %v\n%s", args, err, errs)
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(x, y run) int { return int(x.ms*1000) - int(y.ms*1000) })
	return all[len(all)/2]
}

func write(b testing.TB, dir, name, text string) string {
	b.Helper()
	name = filepath.Join(dir, name)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	return name
}
