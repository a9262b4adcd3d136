package main

import (
	stdcmp "cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got; go test -update writes it anew):\n%s", path, d)
	}
	for _, r := range got {
		if r > 0x7e || r < 0x20 && r != '\n' {
			t.Errorf("%s: %q is not plain ASCII", path, r)
		}
	}
}

var asOf = time.Date(2026, 9, 15, 7, 11, 12, 0, time.UTC)

// sample is a site in which everything that a screen can show happens to some node.
func sample() status.Site {
	digest := manifest.DigestOf([]byte("2026.08.25-1"))
	before := manifest.DigestOf([]byte("2026.07.21-2"))
	next, border := asOf.Add(4*time.Minute), asOf.Add(6*time.Hour).Truncate(time.Hour)
	node := func(name string, phase status.Phase, why string, seen time.Duration, x status.Transfer) status.Seen {
		version, sum := "2026.07.21-2", before
		if phase == status.Installed {
			version, sum = "2026.08.25-1", digest
		}
		return status.Seen{Node: status.Node{
			Site: "site-0417", Node: name, PeerID: "12D3KooW" + name, Software: "meshd 1.0", Phase: phase, Reason: why,
			Desired:   &status.Desired{Policy: "retail", Revision: 3, Bundle: "pos-rhel9", Version: "2026.08.25-1", Checksum: digest},
			Installed: []status.InstalledItem{{Bundle: "pos-rhel9", Version: version, Sequence: 1, Checksum: sum, Since: asOf.Add(-40 * time.Minute)}},
			Transfer:  x,
		}, LastSeen: asOf.Add(-seen)}
	}
	const m = 1 << 20
	s := status.Site{
		Site: "site-0417", Timezone: "America/Chicago", AsOf: asOf, Source: "seeder", Uplink: "pos-01",
		WAN: status.WAN{CapBytesPerSecond: 750_000, Payload: 190 * m, Plain: 206 * m, Needed: 205 * m, Duplicate: 1 * m, LeaseSplit: 1,
			Allowed: 750_000, Rate: 512_500, Why: "yielding, the link's queue is 14 ms over 40 ms", Until: &border, Today: 1_234_567_890, DayLimit: 5_000_000_000,
			BaseRTT: 40, Queue: 14, Yielding: true},
		Bundles: []status.SiteWant{{Bundle: "pos-rhel9", Version: "2026.08.25-1", Checksum: digest, Bytes: 512 * m, Holders: 4, Wanted: 6}},
		Nodes: []status.Seen{ // not in the order of names: the screen sorts
			node("pos-12", status.Deferred, "AppLock", 4*time.Second, status.Transfer{Chunks: 512, ChunksHave: 512, Bytes: 512 * m, BytesHave: 512 * m, FromLAN: 195 * m, ToLAN: 210 * m, Reused: 317 * m}),
			node("pos-01", status.Installed, "", 12*time.Second, status.Transfer{Chunks: 512, ChunksHave: 512, Bytes: 512 * m, BytesHave: 512 * m, FromWAN: 205 * m, WANPayload: 190 * m, ToLAN: 1331 * m, Reused: 307 * m, Peers: 5}),
			node("pos-03", status.Staging, "Downloading", 5*time.Second, status.Transfer{Chunks: 512, ChunksHave: 390, Bytes: 512 * m, BytesHave: 390 * m, FromLAN: 73 * m, ToLAN: 41 * m, Reused: 317 * m, Wasted: 300_000, Peers: 5}),
			node("pos-07", status.Quarantined, "3 bad chunks sent", 8*time.Second, status.Transfer{Chunks: 512, ChunksHave: 511, Bytes: 512 * m, BytesHave: 511 * m, FromLAN: 194 * m, ToLAN: 96 * m, Reused: 317 * m}),
			node("pos-19", status.Staged, "waits for its window", 111*time.Minute, status.Transfer{Chunks: 512, ChunksHave: 512, Bytes: 512 * m, BytesHave: 512 * m, FromLAN: 195 * m, ToLAN: 88 * m, Reused: 317 * m}),
			{Node: status.Node{Site: "site-0417", Node: "pos-20", Phase: status.Pending, Reason: "NeverHeard"}, Silent: true},
		},
	}
	s.Nodes[0].NextAttempt = &next
	s.Nodes[0].Detail = "till-transaction, by pid 811 pos-till\x1b[2J\n\nsince 6m"
	s.Nodes[0].Order = "order 1789456000: rollback of pos-rhel9 2026.08.25-1 waits: WindowClosed, until 2026-09-15T08:00:00Z"
	s.Nodes[1].Snapshot, s.Nodes[1].Reboot = "btrfs @patchmesh-20260915", "kernel 5.14.0-570.30.1"
	s.Nodes[3].Code = "E2103"
	s.Nodes[3].Alarms = []status.Alarm{{Code: "E4103", Message: "chunk 214 no longer matches; \x1b[31mfetched again", Since: asOf.Add(-time.Minute)}}
	s.Nodes[3].Struck = []status.Strike{
		{Node: "pos-07", By: "pos-03", Kind: status.StrikeWrongBytes, Count: 3, Last: asOf.Add(-time.Minute), Until: &next},
		{Node: "pos-07", By: "pos-11", Kind: status.StrikeLie, Count: 1, Last: asOf.Add(-2 * time.Hour)},
	}
	s.Nodes[2].SkewSeconds = 130 // its clock is behind
	s.Nodes[2].Struck = []status.Strike{{Node: "pos-03", By: "pos-07\n", Kind: status.StrikeStall, Count: 1, Last: asOf.Add(-3 * 24 * time.Hour)}}
	s.Nodes[4].Silent = true
	s.Nodes[0].Batch, s.Nodes[0].Grant, s.Nodes[2].Batch, s.Nodes[2].Grant = 25, 1789456001, 31, 1789456002
	s.Nodes[2].Desired.Commit = "3f9c1ab2d4e5"
	for i := range s.Nodes { // as every document comes
		s.Nodes[i].Explain(stdcmp.Or(s.Nodes[i].LastSeen, asOf))
	}
	return s
}

func TestSiteScreen(t *testing.T) {
	for name, v := range map[string]view{"site": {}, "site-wide": {wide: true}} {
		var b strings.Builder
		s := sample()
		s.Nodes[1].Quarantine = "was opened by a stranger" // by a person: the node itself is well
		if err := v.site(&b, s); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.String())
	}
}

// The line says what is sent now, of how much, and why it is not more.
func TestRateLine(t *testing.T) {
	eight := time.Date(2026, 9, 16, 1, 0, 0, 0, time.UTC) // 20:00 in Chicago
	for _, c := range []struct {
		w    status.WAN
		want string
	}{
		{status.WAN{Why: "blackout until 20:00 America/Chicago", Paused: true, Until: &eight}, "paused: blackout until 20:00 America/Chicago"},
		{status.WAN{Why: "idle: nothing to send", Allowed: 250_000, Until: &eight}, "idle: nothing to send   changes Tue 20:00"},
		{status.WAN{Why: "at the cap of 6Mbit", Allowed: 750_000, Rate: 748_000}, "6.0 of 6 Mbit/s: at the cap of 6Mbit"},
		{status.WAN{Why: "as much as the link carries and the uplink asks for", Rate: 12_500_000}, "100 Mbit/s: as much as the link carries and the uplink asks for"},
		{status.WAN{Why: "at the rule Daily 512kbit", Allowed: 64_000, Rate: 63_000, DayLimit: 500_000_000, Today: 499_999_999},
			"504 of 512 kbit/s: at the rule Daily 512kbit   today 500MB of 500MB"},
		{status.WAN{Why: "no node that is known here reaches the data centre; the data centre said 5m0s ago: cap of 6Mbit"},
			"no node that is known here reaches the data centre; the data centre said 5m0s ago: cap of 6Mbit"},
	} {
		if got := rateLine(status.Site{Timezone: "America/Chicago", WAN: c.w}); got != c.want {
			t.Errorf("%+v\nis shown as %q, want %q", c.w, got, c.want)
		}
	}
}

// An account that a kill of the seeder left in doubt says so.
func TestWANLine(t *testing.T) {
	got := wanLine(status.WAN{Payload: 12_900_000, Needed: 12_900_000, Unsure: 1 << 20})
	if want := ">= 12 MiB carried for >= 12 MiB of chunks (1.000)   >= 0 B sent twice   the seeder was killed: up to 1.0 MiB more"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestNodeScreen(t *testing.T) {
	for i, name := range map[int]string{0: "node-deferred", 1: "node-installed", 3: "node-quarantined", 5: "node-never-seen"} {
		var b strings.Builder
		if err := (view{}).node(&b, asOf, sample().Nodes[i]); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.String())
	}
}

func TestFleetScreen(t *testing.T) {
	closes, finish := asOf.Add(109*time.Minute), asOf.Add(63*24*time.Hour)
	rollouts := []status.RolloutLine{
		{Policy: "retail-pos-prod", Revision: 12, Commit: "3f9c1ab2d4", Bundle: "pos-rhel9", Version: "2026.08.25-1", State: "Running", Batch: 25, Batches: 100, Nodes: 10_000,
			Settled: 2400, Failed: 20, Budget: 48, Window: "Tue 02:00-04:00 America/Chicago", Open: true, Next: &closes, Finish: &finish},
		{Policy: "kiosk", Revision: 3, Bundle: "kiosk", Version: "9\x1b[1m", State: "Paused", Reason: "the failure budget is used up", Batch: 1, Batches: 4, Settled: 20, Failed: 2, Budget: 1, SitesOver: 1},
		{Policy: "back-office", Revision: 1, State: "Waiting"},
	}
	var tally status.Tally
	var lines []status.SiteLine
	for i := range 25 {
		s := sample()
		s.Site = fmt.Sprintf("site-%04d", i)
		switch {
		case i == 7: // everything
		case i%3 == 0: // silent as a whole
			s.Nodes = s.Nodes[1:3]
			for k := range s.Nodes {
				s.Nodes[k].Silent, s.Nodes[k].LastSeen = true, asOf.Add(-time.Duration(i+1)*time.Hour)
			}
		default:
			s.Nodes, s.WAN.Duplicate, s.WAN.LeaseSplit = s.Nodes[1:3], 0, 0
		}
		for k, why := range []string{"WindowClosed", "WindowClosed", "LowDisk", "Locked", "AppLock", "HookDeferred", "LowPower", "Odd\x1bOne"} {
			n := s.Nodes[0]
			n.Phase, n.Reason, n.Silent = status.Deferred, why, false
			if i%3 != 0 && k < i {
				s.Nodes = append(s.Nodes, n)
			}
		}
		if i > 20 && i%3 != 0 {
			n := s.Nodes[0]
			n.Phase, n.Reason, n.Code = status.RolledBack, "HealthFailed", "E5103"
			s.Nodes = append(s.Nodes, n)
		}
		lines = append(lines, tally.Site(s.Site, s.Timezone, s.Uplink, s.Nodes, s.WAN))
	}
	f := tally.Summary(asOf, rollouts)
	f.SiteLines = lines
	for name, v := range map[string]view{"fleet": {}, "fleet-wide": {wide: true}} {
		var b strings.Builder
		if err := v.fleet(&b, f); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.String())
		if n := strings.Count(b.String(), "\n"); !v.wide && n > fleetHeight {
			t.Errorf("%d lines", n)
		}
	}
	// Whatever there is to say, it fits.
	for i := range 40 {
		f.Attention = append(f.Attention, status.Attention{Subject: fmt.Sprint(i)})
	}
	for _, p := range status.Order() {
		f.Phases = append(f.Phases, status.PhaseCount{Phase: p})
	}
	f.Phases = f.Phases[len(f.Phases)-10:]
	var b strings.Builder
	if err := (view{}).fleet(&b, f); err != nil || strings.Count(b.String(), "\n") > fleetHeight {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// A screen of nothing must not divide by it.
func TestEmptyScreens(t *testing.T) {
	var b strings.Builder
	if err := (view{wide: true}).fleet(&b, status.Summary{}); err != nil {
		t.Fatal(err)
	}
	if err := (view{}).site(&b, status.Site{}); err != nil {
		t.Fatal(err)
	}
	if err := (view{}).node(&b, time.Time{}, status.Seen{}); err != nil {
		t.Fatal(err)
	}
}
