package node

import (
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/node/swarm"
)

// Bytes that came and were spoilt are wasted; they do not make anything look as if it had been here before.
func TestSpoiltBytesAreNotReused(t *testing.T) {
	n := &Node{rec: &record{Transfer: map[string]count{}}, bundles: map[manifest.Digest]*heldBundle{}}
	w := want{bundle: manifest.Digest{1}, ref: manifest.ChunkRef{Size: 1000}}
	n.spoilt(w, 900, false, swarm.WhyLocal)
	if got, want := n.transfer(w.bundle), (status.Transfer{Wasted: 900}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	n.spoilt(w, 100, false, swarm.WhyCorrupt)
	n.spoilt(w, 10, true, swarm.WhyCorrupt)
	n.badDisk.Add(1)
	if got, want := n.moved(), (status.Traffic{Spoilt: 1010, BadLAN: 1, BadWAN: 1, BadDisk: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A condition lasts until it is over, an event for a day; neither outgrows its frame.
func TestAlarms(t *testing.T) {
	n := &Node{alarms: map[problem.Code]alarm{}}
	n.event(problem.ChunkCorrupt, "%s", strings.Repeat("ä", 1<<20))
	if m := n.alarms[problem.ChunkCorrupt].Message; len(m) == 0 || len(m) > maxMessage+2 {
		t.Errorf("a message of %d bytes", len(m))
	}
	n.storing.failed(n, problem.New(problem.QuotaExceeded, "full"), "a chunk could not be stored")
	n.event(problem.QuotaExceeded, "seen in passing")
	now := time.Now()
	n.fade(now.Add(eventLasts - time.Minute))
	if len(n.alarms) != 2 {
		t.Fatalf("%v", n.alarms)
	}
	n.fade(now.Add(eventLasts + time.Minute))
	if a, ok := n.alarms[problem.QuotaExceeded]; len(n.alarms) != 1 || !ok || !strings.HasPrefix(a.Message, "a chunk") {
		t.Errorf("%v", n.alarms)
	}
	n.storing.worked(n)
	if len(n.alarms) != 0 {
		t.Errorf("%v", n.alarms)
	}
}

// How long a bundle took to come is known once, however often it becomes whole again.
func TestStagingTime(t *testing.T) {
	now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	var l Life
	l.aim(&status.Desired{Policy: "p", Revision: 1, Bundle: "app", Version: "1", Checksum: manifest.Digest{1}})
	f := &targetFacts{manifest: &manifest.Manifest{Name: "app", Version: "1", Sequence: 1, Target: manifest.Target{OS: "debian", Release: "12", Arch: "amd64"}},
		machine: manifest.Facts{OS: "debian", Release: "12", Arch: "amd64"}}
	step := func(after time.Duration, staged bool) {
		now, f.staged = now.Add(after), staged
		l.step(now, f, timingOf(policy.Schedule{Windows: "Tue 02:00-04:00", Zone: "UTC"}, now, 0, nil))
	}
	for range 3 {
		step(0, false)
	}
	step(90*time.Second, true)
	if l.Phase != status.Staged || l.took != 90*time.Second {
		t.Fatalf("%s, it took %v", l.Phase, l.took)
	}
	l.took = 0 // it was reported
	step(time.Minute, false)
	step(time.Minute, true)
	if l.took != 0 {
		t.Errorf("whole again: it took %v", l.took)
	}
}
