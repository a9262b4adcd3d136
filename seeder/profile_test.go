package seeder

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/seeder/lease"
)

const activeTTL, idleTTL = 1000 * time.Hour, 2000 * time.Hour

// chicago is a site s1 in Chicago on Saturday, 21 November 2026, 08:30, with a bundle, two nodes of which a is the uplink,
// and a seeder whose clock the test sets.
func chicago(t *testing.T, words wanprofile.Document) (b *bed, clk *wallClock, cat manifest.Catalog, a *station) {
	t.Helper()
	clk = newClock(local(t, "2026-11-21 08:30"))
	b = start(t, func(c *Config) {
		c.Now = clk.now
		c.Leases = lease.Config{ActiveTTL: activeTTL, IdleTTL: idleTTL} // through the leaps of the clock
	})
	x := b.bundle("1.0", 1, b.release)
	b.push(x, -1)
	if _, err := b.admin.CreateSite(t.Context(), api.SiteSpec{Name: "s1", Timezone: "America/Chicago"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.admin.PutSiteWAN(t.Context(), "s1", words); err != nil {
		t.Fatal(err)
	}
	a = b.join("s1", "a", api.TokenSpec{})
	a.dial(b)
	return b, clk, *x.Catalog(), a
}

func local(t testing.TB, text string) time.Time {
	t.Helper()
	zone, err := time.LoadLocation("America/Chicago")
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.ParseInLocation("2006-01-02 15:04", text, zone)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func (b *bed) wanOf(site string) status.WAN {
	b.t.Helper()
	s, err := b.admin.Site(b.t.Context(), site)
	if err != nil {
		b.t.Fatal(err)
	}
	return s.WAN
}

// The profile is set, shown in its one spelling, kept, and refused as a whole.
func TestProfileAPI(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	words := wanprofile.Document{Cap: "6000kbit", PerDay: "5000MB", Rules: []string{"friday,MON-wed 08:00-20:00 2Mbit/s", "* blackout"}}
	want := wanprofile.Document{Cap: "6Mbit", PerDay: "5GB", Rules: []string{"Mon-Wed,Fri 08:00-20:00 2Mbit", "Daily blackout"}}
	got, err := b.admin.PutSiteWAN(t.Context(), "s1", words)
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Fatalf("%v\n%s", err, d)
	}
	for what, d := range map[string]wanprofile.Document{"rate": {Cap: "fast"}, "rule": {Rules: []string{"Mon"}}, "total": {PerDay: "1kB"}} {
		_, err := b.admin.PutSiteWAN(t.Context(), "s1", d)
		wantCode(t, what, err, problem.InvalidProfile)
	}
	_, err = b.admin.PutSiteWAN(t.Context(), "s2", words)
	wantCode(t, "no site", err, problem.NotFound)
	_, err = b.admin.SiteWAN(t.Context(), "s2")
	wantCode(t, "no site", err, problem.NotFound)
	for range 2 {
		if got, err = b.admin.SiteWAN(t.Context(), "s1"); err != nil || cmp.Diff(want, got) != "" {
			t.Errorf("%+v, %v", got, err)
		}
		b.stop()
		b.run()
	}
	if w := b.wanOf("s1"); w.CapBytesPerSecond != 750_000 || w.DayLimit != 5_000_000_000 {
		t.Errorf("status %+v", w)
	}
}

// A blackout begins while a chunk is on its way: that chunk arrives, the holder is told before it is refused the next one,
// and told again when it is over. Its lease is an idle one meanwhile.
func TestBlackoutInMidTransfer(t *testing.T) {
	b, clk, cat, a := chicago(t, wanprofile.Document{})
	g, _ := a.ask(wire.LeaseAsk{Nonce: 1, Active: true})
	if g == nil || g.PauseMillis != 0 || g.CapBytesPerSecond != 0 || g.TTLMillis != activeTTL.Milliseconds() || g.Why != "no cap" {
		t.Fatalf("before: %+v", g)
	}
	var big chunk.ID // takes a second at least by the profile below
	most := 200_000
	for _, c := range cat.Chunks {
		if d, _ := a.get(c.ID); d != nil && len(d.Payload) > most {
			big, most = c.ID, len(d.Payload)
		}
	}
	if _, err := b.admin.PutSiteWAN(t.Context(), "s1", wanprofile.Document{Cap: "1600kbit", Rules: []string{"Sat 09:00-20:00 blackout"}}); err != nil {
		t.Fatal(err)
	}
	if told := next[*wire.LeaseGrant](a); told.Nonce != 0 || told.CapBytesPerSecond != 200_000 || told.Why != "cap of 1600kbit" {
		t.Fatalf("a cap in mid-transfer: %+v", told)
	}
	before := b.wanOf("s1").Today
	a.session.Send(&wire.Get{Req: 1, ID: big})
	waitFor(t, "the chunk to be on its way", func() bool { return b.wanOf("s1").Today > before })
	clk.set(local(t, "2026-11-21 09:00"))
	told := next[*wire.LeaseGrant](a)
	if told.Nonce != 0 || told.Lease != g.Lease || told.PauseMillis != (11*time.Hour).Milliseconds() || told.Why != "blackout until 20:00 America/Chicago" || told.RenewMillis != 0 {
		t.Fatalf("told %+v", told)
	}
	if d := next[*wire.Data](a); d.Req != 1 {
		t.Fatalf("what was on its way: %+v", d)
	}
	sent := b.wanOf("s1").Today
	if d, r := a.get(cat.Chunks[0].ID); d != nil || r.Reason != wire.ReasonPaused {
		t.Fatalf("in the blackout: %+v", r)
	}
	if w := b.wanOf("s1"); !w.Paused || w.Why != "blackout until 20:00 America/Chicago" || !w.Until.Equal(local(t, "2026-11-21 20:00")) || w.Today != sent || sent == 0 {
		t.Errorf("status %+v", w)
	}
	a.session.Send(&wire.LeaseRenew{Nonce: 2, Lease: g.Lease, Active: true})
	if g := next[*wire.LeaseGrant](a); g.Nonce != 2 || g.TTLMillis != idleTTL.Milliseconds() || g.PauseMillis != (11*time.Hour).Milliseconds() {
		t.Errorf("renewed in the blackout: %+v", g)
	}
	clk.set(local(t, "2026-11-21 20:00"))
	if told := next[*wire.LeaseGrant](a); told.Nonce != 0 || told.PauseMillis != 0 || told.CapBytesPerSecond != 200_000 {
		t.Fatalf("when it is over: %+v", told)
	}
	a.session.Send(&wire.LeaseRenew{Nonce: 3, Lease: g.Lease, Active: true})
	if g := next[*wire.LeaseGrant](a); g.TTLMillis != activeTTL.Milliseconds() || g.PauseMillis != 0 {
		t.Errorf("renewed after it: %+v", g)
	}
	if d, _ := a.get(cat.Chunks[0].ID); d == nil {
		t.Error("no chunk after the blackout")
	}
}

// The positive control of the test above: without the rule the second chunk comes.
func TestNoBlackout(t *testing.T) {
	_, clk, cat, a := chicago(t, wanprofile.Document{Rules: []string{"Sun 09:00-20:00 blackout"}})
	a.ask(wire.LeaseAsk{Nonce: 1, Active: true})
	clk.set(local(t, "2026-11-21 09:00"))
	if d, _ := a.get(cat.Chunks[0].ID); d == nil {
		t.Error("no chunk")
	}
}

// The day's total is never exceeded, not by a chunk that does not fit any more and not by starting the seeder again; the
// site's own midnight gives a new one.
func TestDaysTotal(t *testing.T) {
	b, clk, cat, a := chicago(t, wanprofile.Document{PerDay: "4MiB"})
	b.budget.allow(1000) // one small bundle fills the day
	const limit = 4 << 20
	a.ask(wire.LeaseAsk{Nonce: 1, Active: true})
	var told *wire.LeaseGrant
	fill := func() (wired int64) {
		t.Helper()
		for told = nil; ; {
			for _, c := range cat.Chunks {
				a.session.Send(&wire.Get{ID: c.ID})
				for answered := false; !answered; {
					switch m := next[wire.Message](a).(type) {
					case *wire.LeaseGrant:
						told = m
					case *wire.Data:
						wired, answered = wired+onWire(len(m.Payload)), true
					case *wire.Refuse:
						if m.Reason != wire.ReasonPaused || told == nil {
							t.Fatalf("refused: %s, told before: %+v", m.Reason, told)
						}
						return wired
					}
				}
			}
		}
	}
	used := fill()
	if w := b.wanOf("s1"); used > limit || used < limit*3/4 || w.Today != used || !w.Paused ||
		w.Why != "the day's total of 4MiB is used up until Sun 00:00 America/Chicago" || w.DayLimit != limit {
		t.Fatalf("%d used: %+v", used, w)
	}
	if told.Nonce != 0 || told.PauseMillis != (15*time.Hour+30*time.Minute).Milliseconds() || !strings.HasPrefix(told.Why, "the day's total") {
		t.Errorf("told %+v", told)
	}
	b.stop()
	a.wentDown()
	b.run()
	b.budget.allow(1000)
	a.dial(b)
	a.ask(wire.LeaseAsk{Nonce: 1, Active: true})
	if w := b.wanOf("s1"); w.Today != used {
		t.Fatalf("after a restart: %+v", w)
	}
	for _, c := range cat.Chunks { // a smaller one may still fit
		if d, _ := a.get(c.ID); d != nil {
			used += onWire(len(d.Payload))
		}
	}
	if w := b.wanOf("s1"); used > limit || w.Today != used || !w.Paused {
		t.Errorf("%d used after a restart: %+v", used, w)
	}
	clk.set(local(t, "2026-11-21 23:59"))
	if _, r := a.get(cat.Chunks[0].ID); r == nil {
		t.Error("a chunk a minute before midnight")
	}
	clk.set(local(t, "2026-11-22 00:00"))
	if d, _ := a.get(cat.Chunks[0].ID); d == nil {
		t.Error("no chunk at midnight")
	}
	if w := b.wanOf("s1"); w.Paused || w.Today == 0 || w.Today > limit/4 {
		t.Errorf("at midnight: %+v", w)
	}
	// A larger total helps at once.
	fill()
	if _, err := b.admin.PutSiteWAN(t.Context(), "s1", wanprofile.Document{PerDay: "1GB"}); err != nil {
		t.Fatal(err)
	}
	if d, _ := a.get(cat.Chunks[0].ID); d == nil {
		t.Error("no chunk after the total was raised")
	}
}

// The day on which clocks are set back has 25 hours and one total; what a rule forbids at 01:30 it forbids once.
func TestProfileOnClockChange(t *testing.T) {
	b, clk, cat, a := chicago(t, wanprofile.Document{PerDay: "1GB", Rules: []string{"Sun 01:15-01:45 blackout"}})
	b.budget.allow(1000) // the same chunk again and again
	a.ask(wire.LeaseAsk{Nonce: 1, Active: true})
	midnight := local(t, "2026-11-01 00:00") // 05:00 UTC; clocks go back at 07:00 UTC
	for _, c := range []struct {
		after  time.Duration
		paused bool
	}{{74 * time.Minute, false}, {75 * time.Minute, true}, {104 * time.Minute, true}, {105 * time.Minute, false}, {135 * time.Minute, false}, {24 * time.Hour, false}, {25*time.Hour - time.Second, false}} {
		clk.set(midnight.Add(c.after))
		d, _ := a.get(cat.Chunks[0].ID)
		if (d == nil) != c.paused {
			t.Errorf("%s after midnight: paused is %v", c.after, d == nil)
		}
	}
	one := b.wanOf("s1").Today / 5
	clk.set(midnight.Add(25 * time.Hour))
	if w := b.wanOf("s1"); w.Today != 0 || one == 0 {
		t.Errorf("25 hours later: %+v", w)
	}
}

// The screen says why nothing is sent.
func TestWhyIdle(t *testing.T) {
	b, _, _, a := chicago(t, wanprofile.Document{Cap: "6Mbit"})
	if w := b.wanOf("s1"); w.Why != "idle: nothing to send" || w.Rate != 0 || w.Allowed != 750_000 || w.Paused {
		t.Errorf("connected: %+v", w)
	}
	a.session.End(errForeign)
	a.wentDown()
	waitFor(t, "the session to end", func() bool { return len(b.sessions.of("s1")) == 0 })
	if w := b.wanOf("s1"); w.Why != "idle: no node of the site is connected" {
		t.Errorf("alone: %+v", w)
	}
}
