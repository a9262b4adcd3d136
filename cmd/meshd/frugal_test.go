package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/harness"
)

const memoryRoot = "/sys/fs/cgroup/memory"

// walled writes a meshd that runs the real one in a memory cgroup of its own, on one processor. It returns where the
// cgroups are.
func walled(t *testing.T, bin string, limit int64) (groups string) {
	t.Helper()
	groups = filepath.Join(memoryRoot, fmt.Sprintf("patchmesh-test-%d-%d", os.Getpid(), limit))
	if err := os.Mkdir(groups, 0o755); err != nil {
		t.Skip("needs the right to make a memory cgroup: run the tests as root where cgroup v1 has the memory controller mounted")
	}
	t.Cleanup(func() {
		all, _ := filepath.Glob(filepath.Join(groups, "*"))
		for _, g := range append(all, groups) {
			if info, err := os.Stat(g); err == nil && info.IsDir() {
				if err := os.Remove(g); err != nil {
					t.Error(err)
				}
			}
		}
	})
	if _, err := os.Stat(filepath.Join(groups, "memory.limit_in_bytes")); err != nil {
		t.Skip("needs the memory controller of cgroup v1: mount -t cgroup -o memory none " + memoryRoot)
	}
	if _, err := exec.LookPath("taskset"); err != nil {
		t.Skip("needs taskset: apt-get install util-linux")
	}
	real := filepath.Join(bin, "meshd.real")
	if err := os.Rename(filepath.Join(bin, "meshd"), real); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nset -e\ng=%s/$$\nmkdir $g\necho %d > $g/memory.limit_in_bytes\necho $$ > $g/cgroup.procs\nexec taskset -c 0 %s \"$@\"\n", groups, limit, real)
	if err := os.WriteFile(filepath.Join(bin, "meshd"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return groups
}

func number(t *testing.T, name string) int64 {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// killed says how often the kernel killed in a cgroup.
func killed(t *testing.T, group string) (n int64) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(group, "memory.oom_control"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, _ = strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		}
	}
	return n
}

// cpu is what a process has used, in seconds, and peak the most memory it had.
func cpu(t *testing.T, pid int) (seconds float64, peak int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	b, err = os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			peak, _ = strconv.ParseInt(strings.Fields(v)[0], 10, 64)
		}
	}
	return (user + system) / 100, peak << 10
}

// fill brings 64 MiB to a site of real daemons and says what that took. inspect looks at them before they end.
func fill(t *testing.T, bin string, inspect func(*harness.Site)) (took time.Duration, perGB float64, peak int64) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const nodes, size = 4, 64 << 20
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	lab, err := harness.New(bin)
	must(err)
	defer lab.Close()
	must(harness.RandomTree(lab.Path("tree"), size, 5))
	seeder, err := lab.NewSeeder(ctx)
	must(err)
	site, err := seeder.Site(ctx, "site1", "100Mbit", nodes)
	must(err)
	must(site.Start(ctx, "--no-install"))
	var before float64
	for _, n := range site.Nodes {
		c, _ := cpu(t, n.Proc().PID())
		before += c
	}
	began := time.Now()
	must(seeder.Release(ctx, "app", "1.0", 1, lab.Path("tree")))
	must(harness.Await(ctx, "staged", 100*time.Millisecond, func() (bool, string, error) {
		for _, n := range site.Nodes {
			if !n.Running() {
				return false, "", fmt.Errorf("%s has ended", n.Name)
			}
			if !strings.Contains(n.Proc().Log(), "phase=Staged") {
				return false, n.Name, nil
			}
		}
		return true, "", nil
	}))
	took = time.Since(began)
	var after float64
	for _, n := range site.Nodes {
		c, p := cpu(t, n.Proc().PID())
		after += c
		peak = max(peak, p)
	}
	inspect(site)
	return took, (after - before) / (nodes * size / 1e9), peak
}

// A daemon lives through a whole fill, serving its neighbours, behind a wall of 64 MiB and on one processor. What that
// costs is printed. The control: the wall is real, since at 2 MiB the kernel kills.
func TestBehindAWall(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a minute: run without -short")
	}
	bin := t.TempDir()
	if err := harness.Build(t.Context(), bin); err != nil {
		t.Fatal(err)
	}
	free, freePerGB, freePeak := fill(t, bin, func(*harness.Site) {})
	const limit = 64 << 20
	groups := walled(t, bin, limit)
	var most, refused int64
	took, perGB, peak := fill(t, bin, func(s *harness.Site) {
		for _, n := range s.Nodes {
			g := filepath.Join(groups, strconv.Itoa(n.Proc().PID()))
			if k := killed(t, g); k > 0 {
				t.Errorf("%s: the kernel killed %d times", n.Name, k)
			}
			most = max(most, number(t, filepath.Join(g, "memory.max_usage_in_bytes")))
			refused = max(refused, number(t, filepath.Join(g, "memory.failcnt")))
		}
	})
	if most > limit || peak > limit {
		t.Errorf("%d bytes in the cgroup, %d resident: the limit is %d", most, peak, limit)
	}
	t.Logf("64 MiB and one processor: %.2f of the time and %.2f of the CPU without (%.1f s, %.1f s/GB); resident at most %.1f MiB (%.1f without), %.1f in the cgroup with its page cache, which was full %d times",
		took.Seconds()/free.Seconds(), perGB/freePerGB, took.Seconds(), perGB, float64(peak)/(1<<20), float64(freePeak)/(1<<20), float64(most)/(1<<20), refused)

	if err := os.Rename(filepath.Join(bin, "meshd.real"), filepath.Join(bin, "meshd")); err != nil {
		t.Fatal(err)
	}
	groups = walled(t, bin, 2<<20)
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "meshd"), "version")
	if err := cmd.Run(); err == nil {
		t.Error("it runs behind a wall of 2 MiB: the wall is none")
	}
}

// The daemon gives way to other programs: every thread of it is nice, and last of its disk class. The control: with
// --priority normal none is.
func TestGivesWay(t *testing.T) {
	ctx, _, site := twoNodes(t)
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	own = 20 - own // the call says 20 - nice
	for i, n := range site.Nodes {
		var flags []string
		wantNice, wantClass := max(own, 10), uintptr(2)
		if i == 1 {
			flags, wantNice, wantClass = []string{"--priority", "normal"}, own, 0
		}
		if err := n.Start(flags...); err != nil {
			t.Fatal(err)
		}
		if err := n.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", n.Proc().PID()))
		if err != nil || len(threads) < 2 {
			t.Fatalf("%d threads, %v", len(threads), err)
		}
		for _, th := range threads {
			id, _ := strconv.Atoi(filepath.Base(th))
			nice, err := unix.Getpriority(unix.PRIO_PROCESS, id)
			if err != nil {
				continue // it has ended
			}
			io, _, _ := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(id), 0)
			// With class 0, none was chosen: the kernel takes the level from nice.
			if 20-nice != wantNice || io>>13 != wantClass || i == 0 && io&7 != 7 {
				t.Errorf("node %d, thread %d: nice %d, disk class %d level %d; want %d and %d", i+1, id, 20-nice, io>>13, io&7, wantNice, wantClass)
			}
		}
	}
}
