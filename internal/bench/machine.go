package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// thisMachine says where it runs: what matters for the figures, and nothing that names the machine.
func thisMachine() (m machine) {
	m.Cores, m.Go = runtime.NumCPU(), runtime.Version()
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + kernelVersion(unix.ByteSliceToString(u.Release[:]))
	}
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	m.CPU = field(string(cpu), "model name")
	mem, _ := os.ReadFile("/proc/meminfo")
	kb, _ := strconv.ParseInt(strings.TrimSuffix(field(string(mem), "MemTotal"), " kB"), 10, 64)
	m.Memory = kb << 10
	var fs unix.Statfs_t
	if m.Files = "on disk"; unix.Statfs(os.TempDir(), &fs) == nil && fs.Type == unix.TMPFS_MAGIC {
		m.Files = "in memory"
	}
	return m
}

// kernelVersion is the release without what a distributor or host appended.
func kernelVersion(release string) string {
	v, _, _ := strings.Cut(release, "-")
	return v
}

// field finds "name : value" in the files of /proc.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// commit names the source that is measured; a plus says that it was changed since.
func commit(ctx context.Context) string {
	id, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	name := strings.TrimSpace(string(id))
	changed, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--untracked-files=no", "--", ":!bench", ":!README.md").Output()
	if err != nil || len(changed) > 0 {
		name += "+"
	}
	return name
}
