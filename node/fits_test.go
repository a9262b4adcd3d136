package node

import (
	"testing"

	"github.com/patchmesh/patchmesh/internal/problem"
)

func TestFits(t *testing.T) {
	const gib = 1 << 30
	disk := Space{Total: 100 * gib, Free: 10 * gib}
	for _, c := range []struct {
		name  string
		claim claim
		quota int64
		space Space
		want  problem.Code
	}{
		{"small", claim{pinned: gib, own: gib, missing: gib}, 50 * gib, disk, ""},
		{"up to the quota", claim{pinned: 50 * gib, own: gib, missing: gib}, 50 * gib, disk, ""},
		{"beyond the quota", claim{pinned: 50*gib + 1, own: gib, missing: gib}, 50 * gib, disk, problem.QuotaExceeded},
		{"beyond the quota and there already", claim{pinned: 50*gib + 1}, 50 * gib, disk, ""},
		{"up to the floor", claim{pinned: 9 * gib, own: 9 * gib, missing: 9 * gib}, 50 * gib, disk, ""},
		{"beyond the floor", claim{pinned: 9*gib + 1, own: 9*gib + 1, missing: 9*gib + 1}, 50 * gib, disk, problem.DiskFull},
		{"beside one that was begun", claim{pinned: 10 * gib, own: 4 * gib, missing: 10 * gib}, 50 * gib, disk, problem.DiskFull},
		{"where others may go", claim{pinned: 10 * gib, own: 10 * gib, missing: 10 * gib, idle: gib}, 50 * gib, disk, ""},
		{"on a disk that says nothing", claim{pinned: gib, own: gib, missing: gib}, 0, Space{}, ""},
	} {
		var got problem.Code
		if err := c.claim.fits(c.quota, floor(0, c.space), c.space); err != nil {
			got = err.Code
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if q, f := quota(0, disk), floor(0, disk); q != 50*gib || f != gib {
		t.Errorf("of 100 GiB: quota %d, floor %d", q, f)
	}
	if q, f := quota(5, disk), floor(7, disk); q != 5 || f != 7 {
		t.Errorf("configured: quota %d, floor %d", q, f)
	}
}
