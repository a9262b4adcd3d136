package status_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/status"
)

// A fleet of four sites, counted by hand.
func TestTally(t *testing.T) {
	now := time.Date(2026, 9, 15, 7, 0, 0, 0, time.UTC)
	node := func(p status.Phase, why, code string, silent bool, ago time.Duration) status.Seen {
		n := status.Seen{Node: status.Node{Phase: p, Reason: why, Code: code, Desired: &status.Desired{Bundle: "pos", Version: "2"},
			Transfer: status.Transfer{Bytes: 10, BytesHave: 10}}, Silent: silent}
		if ago > 0 {
			n.LastSeen = now.Add(-ago)
		}
		return n
	}
	var x status.Tally
	late := node(status.Deferred, "LowDisk", "", false, time.Minute)
	late.Alarms = []status.Alarm{{Code: "E3305"}, {Code: "E4103"}}
	line := x.Site("a", "UTC", "n1", []status.Seen{
		node(status.Installed, "", "", false, time.Minute), late,
		node(status.Staged, "waits", "", true, 2*time.Hour),
		node(status.RolledBack, "HealthFailed", "E5103", false, time.Minute)}, status.WAN{Payload: 90, Needed: 100})
	want := status.SiteLine{Site: "a", Timezone: "UTC", Nodes: 4, Silent: 1, Ready: 4, Failed: 1, Uplink: "n1", Payload: 90, Needed: 100, Version: "pos 2",
		Phases: map[status.Phase]int{status.Installed: 1, status.Deferred: 1, status.Staged: 1, status.RolledBack: 1}}
	if d := cmp.Diff(want, line); d != "" {
		t.Error(d)
	}
	x.Site("b", "", "", []status.Seen{node(status.RolledBack, "HealthFailed", "E5103", true, 76*time.Hour), node(status.Quarantined, "bad, chunk", "", true, 80*time.Hour)}, status.WAN{Payload: 10, Needed: 10})
	x.Site("c", "", "", []status.Seen{node(status.Pending, "enrolled", "", true, 0)}, status.WAN{})
	x.Site("d", "", "", nil, status.WAN{})
	since := now.Add(-76 * time.Hour)
	got := x.Summary(now, []status.RolloutLine{{Policy: "p", State: "Paused", Reason: "budget"}, {Policy: "q", State: "Running"}})
	if d := cmp.Diff(status.Summary{APIVersion: status.APIVersion, Kind: "FleetSummary", AsOf: now, Nodes: 7, Sites: 4, Silent: 4,
		Longest: &status.SilentSite{Site: "b", Since: now.Add(-80 * time.Hour)},
		Phases: []status.PhaseCount{{Phase: status.Installed, Nodes: 1}, {Phase: status.Staged, Nodes: 1, Silent: 1}, {Phase: status.Pending, Nodes: 1, Silent: 1},
			{Phase: status.Deferred, Nodes: 1, Reasons: map[string]int{"LowDisk": 1}}, {Phase: status.RolledBack, Nodes: 2, Silent: 1, Reasons: map[string]int{"HealthFailed": 2}},
			{Phase: status.Quarantined, Nodes: 1, Silent: 1, Reasons: map[string]int{"bad, chunk": 1}}},
		Rollouts: got.Rollouts, WAN: status.WAN{Payload: 100, Needed: 110}, Naive: 4*100 + 2*10,
		Attention: []status.Attention{
			{Subject: "1 node", Text: "quarantined in b", Command: "meshctl quarantine list", Count: 1},
			{Subject: "p", Text: "rollout paused: budget", Command: "meshctl rollout status p", Count: 1},
			{Subject: "2 nodes", Text: "RolledBack: HealthFailed (E5103) in 2 sites", Command: "meshctl node list --filter phase=RolledBack,reason=HealthFailed,code=E5103", Code: "E5103", Count: 2},
			{Subject: "1 node", Text: "overdue in a", Command: "meshctl node list --filter alarm=E3305", Code: "E3305", Count: 1},
			{Subject: "c", Text: "1 node never heard of", Command: "meshctl status c", Code: "E3301", Count: 1},
			{Subject: "b", Text: "2 nodes silent", Since: &since, Command: "meshctl status b", Code: "E3301", Count: 2},
			{Subject: "1 node", Text: "silent in a", Command: "meshctl node list --filter silent=true", Code: "E3301", Count: 1},
			{Subject: "1 node", Text: "alarm E4103 in a", Command: "meshctl node list --filter alarm=E4103", Code: "E4103", Count: 1},
		}}, got); d != "" {
		t.Error(d)
	}
}

// What a node says is not taken for a command line.
func TestTallyQuotes(t *testing.T) {
	var x status.Tally
	x.Site("a", "", "", []status.Seen{{Node: status.Node{Phase: status.InstallFailed, Reason: `it's "bad", $(rm)`}}}, status.WAN{})
	if got, want := x.Summary(time.Now(), nil).Attention[0].Command, `meshctl node list --filter 'phase=InstallFailed,reason="it'\''s '\''bad'\'', $(rm)"'`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// The summary stays small whatever happens to the fleet.
func TestTallyBounds(t *testing.T) {
	var x status.Tally
	for i := range 1200 {
		n := status.Seen{Node: status.Node{Phase: status.InstallFailed, Reason: fmt.Sprint("reason ", i)}, Silent: true}
		x.Site(fmt.Sprint(i), "", "", []status.Seen{n}, status.WAN{})
	}
	s := x.Summary(time.Now(), nil)
	if len(s.Attention) != status.MaxAttention || s.More != 1200+6-status.MaxAttention || s.Nodes != 1200 {
		t.Errorf("%d shown, %d more", len(s.Attention), s.More)
	}
}
