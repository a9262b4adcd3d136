package testbed

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Disk mounts an empty disk of that many bytes over a directory, which must exist. What is written there is memory.
// The disk goes with the bed.
func (b *Bed) Disk(dir string, bytes int64) error {
	if bytes <= 0 {
		return fmt.Errorf("disk %s: %d bytes", dir, bytes)
	}
	if err := unix.Mount(diskOf(b.Name()), dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,mode=0755", bytes)); err != nil {
		return fmt.Errorf("disk %s: %w", dir, err)
	}
	return nil
}

// diskOf is what a bed's disks are called in the table of mounts: it says whose they are.
func diskOf(bed string) string { return namespaceOf(bed, "disk") }

// unmount removes a bed's disks.
func unmount(bed string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		// proc_pid_mountinfo(5): ... mount point (field 5) ... - type source options
		place, kind, ok := strings.Cut(line, " - ")
		fields, source := strings.Fields(place), strings.Fields(kind)
		if !ok || len(fields) < 5 || len(source) < 2 || source[0] != "tmpfs" || source[1] != diskOf(bed) {
			continue
		}
		dir := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("disk %s: %w", dir, err)
		}
	}
	return nil
}
