package seeder

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/patchmesh/patchmesh/internal/wall"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// paced is a pace in virtual time, which begins at midnight of a Saturday in UTC, and how much three lanes that always
// have something to send have sent, and how often it told of a change.
func paced(t *testing.T, total int64, words wanprofile.Document) (p *pace, sent, told *atomic.Int64) {
	t.Helper()
	profile, err := words.Profile()
	if err != nil {
		t.Fatal(err)
	}
	p = newPace(time.Now, total, func(string, string) int64 { return 0 })
	sent, told = &atomic.Int64{}, &atomic.Int64{}
	p.changed = func(string) { told.Add(1) }
	p.set("s1", profile, time.UTC)
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return p.run(ctx) })
	for range 3 {
		g.Go(func() error {
			for p.wait(ctx, "s1", xfer.SliceBytes) == nil {
				sent.Add(onWire(xfer.SliceBytes))
				if p.terms("s1").BytesPerSecond == 0 { // nothing else takes time in here
					time.Sleep(time.Millisecond)
				}
			}
			return nil
		})
	}
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	return p, sent, told
}

// Over any time the link carries what the cap allows and no more than a slice and the pause made up for beyond it.
func TestCapHolds(t *testing.T) {
	for _, words := range []string{"64kbit", "512kbit", "6Mbit", "1Gbit"} {
		synctest.Test(t, func(t *testing.T) {
			p, sent, _ := paced(t, 0, wanprofile.Document{Cap: words})
			limit := p.sites["s1"].profile.Cap
			before := sent.Load()
			for i := range 40 {
				time.Sleep(time.Duration(i) * 50 * time.Millisecond)
				over := sent.Load() - before
				allowed := limit * int64(i) * 50 / 1000
				if most := allowed + 2*onWire(xfer.SliceBytes) + limit/50; over > most {
					t.Errorf("%s: %d bytes in %d ms, at most %d", words, over, i*50, most)
				}
				if least := allowed*97/100 - 2*onWire(xfer.SliceBytes); over < least {
					t.Errorf("%s: %d bytes in %d ms, at least %d", words, over, i*50, least)
				}
				before = sent.Load()
			}
			if r, slack := p.rate("s1"), limit/20+onWire(xfer.SliceBytes)/15; r < limit-slack || r > limit+slack {
				t.Errorf("%s: the rate is said to be %d, it is %d", words, r, limit)
			}
		})
	}
}

// A border of a rule is followed within a second, though who waits was told to wait for longer by the old rate.
func TestRateFollowsRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, sent, told := paced(t, 0, wanprofile.Document{Cap: "80Mbit", Rules: []string{"Sat 00:00-00:10 64kbit", "Sat 00:20-00:30 unlimited", "Daily 800kbit"}})
		in := func(from, to time.Duration) int64 { // bytes per second between two times of the day
			begin := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
			time.Sleep(time.Until(begin.Add(from)))
			before := sent.Load()
			time.Sleep(to - from)
			return (sent.Load() - before) * int64(time.Second) / int64(to-from)
		}
		for _, c := range []struct {
			from, to    time.Duration
			least, most int64
		}{
			{time.Minute, 10 * time.Minute, 7_900, 8_100},
			{10*time.Minute + time.Second, 20 * time.Minute, 99_000, 101_000},
			{20*time.Minute + time.Second, 20*time.Minute + 2*time.Second, 9_700_000, 10_300_000},
			{30*time.Minute + time.Second, 40 * time.Minute, 99_000, 101_000},
		} {
			if got := in(c.from, c.to); got < c.least || got > c.most {
				t.Errorf("%s to %s: %d bytes a second, want %d to %d", c.from, c.to, got, c.least, c.most)
			}
		}
		if told.Load() != 4 {
			t.Errorf("the holders were told of %d changes, want the first rate and 3", told.Load())
		}
	})
}

// The cap of all sites holds where the site has none.
func TestTotalCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, sent, _ := paced(t, 1_000_000, wanprofile.Document{})
		p.set("s1", wanprofile.Profile{Cap: 10_000_000}, time.UTC)
		time.Sleep(10 * time.Second)
		if n := sent.Load(); n < 9_700_000 || n > 10_300_000 || !p.crowded() {
			t.Errorf("%d bytes in 10 s at 1 MB/s, crowded: %v", n, p.crowded())
		}
	})
}

// What a site may use is computed anew when its clock goes back too.
func TestClockGoesBack(t *testing.T) {
	clk := newClock(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	p := newPace(clk.now, 0, func(string, string) int64 { return 0 })
	profile, err := wanprofile.Document{Rules: []string{"Daily 08:00-20:00 blackout"}}.Profile()
	if err != nil {
		t.Fatal(err)
	}
	p.set("s1", profile, time.UTC)
	for hour, paused := range map[int]bool{12: true, 7: false, 21: false, 8: true} {
		clk.set(time.Date(2026, 11, 21, hour, 0, 0, 0, time.UTC))
		if p.terms("s1").Paused != paused {
			t.Errorf("at %d o'clock: paused is %v", hour, !paused)
		}
	}
}

// What was begun before a pause is finished at the rate there was, and never above the cap.
func TestRateOfTheRest(t *testing.T) {
	clk := newClock(time.Date(2026, 11, 21, 7, 59, 0, 0, time.UTC))
	p := newPace(clk.now, 0, func(string, string) int64 { return 0 })
	for _, c := range []struct {
		words wanprofile.Document
		want  int64
	}{
		{wanprofile.Document{Rules: []string{"Daily 08:00-20:00 blackout", "Daily 800kbit"}}, 100_000},
		{wanprofile.Document{Cap: "8Mbit", Rules: []string{"Daily 08:00-20:00 blackout", "Daily 800kbit"}}, 100_000},
		{wanprofile.Document{Cap: "8Mbit", Rules: []string{"Daily 08:00-20:00 blackout"}}, 1_000_000},
		{wanprofile.Document{Rules: []string{"Daily 08:00-20:00 blackout"}}, 0},
	} {
		profile, err := c.words.Profile()
		if err != nil {
			t.Fatal(err)
		}
		clk.set(time.Date(2026, 11, 21, 7, 59, 0, 0, time.UTC))
		p.set("s1", profile, time.UTC)
		clk.set(time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC))
		if !p.terms("s1").Paused || p.sites["s1"].rate() != c.want {
			t.Errorf("%+v: rate %d", c.words, p.sites["s1"].rate())
		}
	}
	p.set("s1", wanprofile.Profile{Cap: 50_000, Rules: []wanprofile.Rule{{Days: wall.EveryDay, Hours: wall.Hours{To: wall.WholeDay}, Blackout: true}}}, time.UTC)
	if r := p.sites["s1"].rate(); r != 50_000 {
		t.Errorf("a cap that came in the pause: rate %d", r)
	}
}
