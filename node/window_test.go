package node_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/status"
)

// A site without a WAN stages by day and installs at night, in its window and not before; a node whose clock is wrong
// does neither early nor at all, until its clock is right. All clocks are moved by the test.
func TestSiteKeepsToTheWindow(t *testing.T) {
	s := newSite(t, 4)
	s.schedule = `{maintenanceWindow: "Tue 02:00-04:00", timezone: America/New_York, startCutoffMinutes: 20}`
	s.script("echo \"$@\" >> calls\necho '" + result(`"outcome":"success","phase":"Installed","reason":"Installed"`) + "'\n")
	opens := time.Date(2026, 11, 24, 7, 0, 0, 0, time.UTC)
	var ahead, wrong atomic.Int64 // of the site's clocks, and of the wrong one beside them
	set := func(at time.Time) { ahead.Store(int64(time.Until(at))) }
	set(opens.Add(-time.Hour))
	wrong.Store(int64(time.Hour + 30*time.Minute)) // by itself it would be in the window
	for i := range s.members {
		s.clock[s.members[i].name] = func() time.Time {
			d := time.Duration(ahead.Load())
			if i == 3 {
				d += time.Duration(wrong.Load())
			}
			return time.Now().Add(d)
		}
	}
	for i := range s.members {
		s.start(i)
	}
	for i := range s.members { // a clock is judged by those of two neighbours at least
		s.await(i, "connected", func(st status.Node) bool { return st.Transfer.Peers == 3 })
	}
	calls := func(who string) int {
		b, err := os.ReadFile(filepath.Join(s.dir, "calls"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Count(string(b), who)
	}
	scheduled := func(st status.Node) bool {
		return st.Phase == status.Scheduled && st.Reason == "WindowClosed" && st.NextAttempt != nil && st.NextAttempt.Equal(opens)
	}
	s.give(0, s.bundle("1.0", 1, map[string][]byte{"f": random(50, 1<<20)}), 1)
	for i := range 3 {
		s.await(i, "scheduled", scheduled)
	}
	s.await(3, "unsure", func(st status.Node) bool { return st.Phase == status.Deferred && st.Reason == "ClockUnsure" })
	set(opens.Add(-30 * time.Second)) // a daemon that is started now waits as well
	s.members[2].stop()
	s.start(2)
	for i := range 3 {
		s.await(i, "still scheduled", scheduled)
	}
	if n := calls("apply"); n != 0 {
		t.Fatalf("the installer was called %d times before the window", n)
	}
	set(opens.Add(time.Minute))
	for i := range 3 {
		s.await(i, "installed", func(st status.Node) bool { return st.Phase == status.Installed })
	}
	if n := calls("n03"); n != 0 {
		t.Fatalf("the node with the wrong clock called the installer %d times", n)
	}
	wrong.Store(0)
	s.await(3, "installed", func(st status.Node) bool { return st.Phase == status.Installed })

	// The next one comes when it is too late: it is for the week after, and a window that passes is counted.
	set(opens.Add(100*time.Minute + 30*time.Second))
	opens = opens.AddDate(0, 0, 7)
	s.give(0, s.bundle("2.0", 2, map[string][]byte{"f": random(51, 1<<20)}), 2)
	for i := range s.members {
		s.await(i, "scheduled for the week after", func(st status.Node) bool { return desired(st) == 2 && scheduled(st) })
	}
	for i := range s.members {
		s.members[i].stop()
	}
	set(opens.Add(3 * time.Hour))
	for i := range s.members {
		s.start(i)
	}
	for i := range s.members {
		st := s.await(i, "deferred", func(st status.Node) bool { return st.Phase == status.Deferred && st.Reason == "WindowClosed" })
		if st.Missed != 1 || st.NextAttempt == nil || !st.NextAttempt.Equal(opens.AddDate(0, 0, 7)) {
			t.Errorf("%s: %d missed, next %v", st.Node, st.Missed, st.NextAttempt)
		}
	}
	if n := calls("apply"); n != 4 {
		t.Errorf("the installer was called %d times", n)
	}
}

// "timezone: site" is the zone in the site's signed roster, for the node and for the executor; a site without one is
// told so, and nothing is taken for UTC.
func TestZoneOfTheSite(t *testing.T) {
	s := newSite(t, 1)
	s.schedule = `{maintenanceWindow: "Daily 00:00-24:00", timezone: site}`
	r := must(roster.Open(&s.set, s.roster, s.now))
	nowhere := *r
	nowhere.Timezone = ""
	s.roster = s.sign(s.rosterKey, must(nowhere.Encode()))
	s.enrol(&s.members[0])
	s.installer, s.installConfig = s.realInstaller(s.members[0], "")
	s.start(0)
	b := s.bundle("1.0", 1, map[string][]byte{"f": []byte("one\n")})
	s.give(0, b, 1)
	st := s.await(0, "deferred", func(st status.Node) bool { return st.Phase == status.Deferred })
	if st.Reason != "ZoneUnknown" || !strings.Contains(st.Detail, "the site has none") || st.NextAttempt == nil {
		t.Errorf("%+v", st)
	}
	s.members[0].stop()
	somewhere := *r
	somewhere.Version, somewhere.Timezone = 2, "Asia/Kolkata"
	s.roster = s.sign(s.rosterKey, must(somewhere.Encode()))
	s.enrol(&s.members[0])
	if err := os.Remove(filepath.Join(s.members[0].state, "roster.json")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	s.start(0)
	s.await(0, "installed", func(st status.Node) bool { return st.Phase == status.Installed })
	if got := s.current(s.members[0], "f"); got != "one\n" {
		t.Errorf("%q in force", got)
	}
}
