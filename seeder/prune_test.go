package seeder

import (
	"net/http"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// A seeder that begins drops what is too old, in more than one batch, and nothing else.
func TestPrune(t *testing.T) {
	clk := newClock(time.Unix(1_800_000_000, 0))
	b := start(t, func(c *Config) { c.Now = clk.now })
	b.site("s1") // an entry of today
	for age, n := range map[time.Duration]int{auditKept + time.Hour: pruneBatch + 1, auditKept - time.Hour: 3} {
		for range n {
			if _, err := b.db.AddAudit(t.Context(), fleet.Audit{At: clk.now().Add(-age), Who: "alice", Role: "admin", Action: "old", Status: http.StatusOK}); err != nil {
				t.Fatal(err)
			}
		}
	}
	old := func() (n int) {
		t.Helper()
		page, err := b.admin.Audit(t.Context(), 0, 1000, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			if e.Action == "old" {
				n++
			}
		}
		if len(page.Entries) == n {
			t.Error("the entry of today is gone")
		}
		return n
	}
	if n := old(); n != pruneBatch+4 {
		t.Fatal(n)
	}
	if err := b.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := old(); n != 3 {
		t.Errorf("%d are left", n)
	}
	b.stop()
	clk.set(clk.now().Add(2 * time.Hour))
	b.run()
	for end := time.Now().Add(20 * time.Second); old() > 0; { // by its own loop
		if time.Now().After(end) {
			t.Fatal("nothing was dropped")
		}
	}
}
