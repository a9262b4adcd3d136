package seeder

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

func openFleet(t testing.TB) *fleet.Store {
	t.Helper()
	db, err := fleet.Open(t.Context(), filepath.Join(t.TempDir(), "seeder.db"), func(*roster.Roster) (trust.Signed, error) {
		return trust.Signed{Doc: []byte("doc"), Sig: []byte("sig")}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	for _, name := range []string{"s1", "s2"} {
		if err := db.CreateSite(t.Context(), fleet.Site{Name: name, Timezone: "UTC", GossipKey: make([]byte, 32)}); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

func load(t testing.TB, db *fleet.Store) *ledger {
	t.Helper()
	l, err := loadLedger(t.Context(), db, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Whenever the seeder is killed, the day's total counts at least what was used, and the account with what it is in doubt
// of at least what was sent; after an orderly end both are exact.
func TestKilledSeeder(t *testing.T) {
	db := openFleet(t)
	rapid.Check(t, func(r *rapid.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // who would have to wait is told so
		if err := db.PutAccounts(t.Context(), []fleet.Account{{Site: "s1"}}); err != nil {
			r.Fatal(err)
		}
		l := load(t, db)
		const limit = 40 << 20
		var used, payload int64 // the truth: handed over to the network, whether it arrived or not
		var way []parcel
		for range rapid.IntRange(0, 60).Draw(r, "steps") {
			switch rapid.IntRange(0, 4).Draw(r, "step") {
			case 0, 1:
				n := rapid.Int64Range(1, 1<<20).Draw(r, "bytes")
				p, err := l.take(ctx, "s1", "2026-11-21", onWire(int(n)), limit)
				switch {
				case err == nil:
					used, payload, way = used+p.bytes, payload+n, append(way, p)
				case errors.Is(err, errDayFull):
					if used+onWire(int(n)) <= limit {
						r.Fatalf("%d of %d used, %d refused", used, limit, n)
					}
				}
			case 2:
				if len(way) > 0 {
					i := rapid.IntRange(0, len(way)-1).Draw(r, "parcel")
					l.sent(way[i], 1, way[i].bytes*1000/1046, 1)
					way = append(way[:i], way[i+1:]...)
				}
			case 3:
				if err := l.flush(t.Context(), rapid.SampledFrom([]func(*account) bool{(*account).changed, (*account).low}).Draw(r, "which"), false); err != nil {
					r.Fatal(err)
				}
			case 4:
				if err := l.flush(ctx, (*account).changed, false); err == nil && len(way) > 0 {
					r.Log("a write that was to fail did not")
				}
			}
		}
		clean := rapid.Bool().Draw(r, "orderly")
		if clean {
			for _, p := range way {
				l.sent(p, 1, p.bytes*1000/1046, 1)
			}
			if err := l.flush(t.Context(), (*account).changed, true); err != nil {
				r.Fatal(err)
			}
		}
		if used > limit {
			r.Fatalf("%d of %d used", used, limit)
		}
		again := load(t, db)
		today, a := again.today("s1", "2026-11-21"), again.site("s1")
		if today < used || today > limit || a.Payload+a.Unsure < payload*99/100-64 {
			r.Fatalf("used %d, said %d; sent %d, said %d and perhaps %d", used, today, payload, a.Payload, a.Unsure)
		}
		if clean && (today != used || a.Unsure != 0) {
			r.Fatalf("after an orderly end: used %d, said %d, in doubt %d", used, today, a.Unsure)
		}
	})
}

// The positive control: what is used without a promise is forgotten by a kill.
func TestKilledWithoutPromises(t *testing.T) {
	db := openFleet(t)
	l := load(t, db)
	l.broken = true
	if _, err := l.take(t.Context(), "s1", "2026-11-21", 1000, 0); err != nil {
		t.Fatal(err)
	}
	if again := load(t, db); again.today("s1", "2026-11-21") != 0 {
		t.Error("the account knows of bytes that nobody wrote down")
	}
}

// However many take at once, the total of the day holds, and none of it is left when somebody was refused a small chunk.
func TestDayHolds(t *testing.T) {
	l := load(t, openFleet(t))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.run(ctx) }()
	const limit, n = 20 << 20, 100_000
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				p, err := l.take(ctx, "s1", "2026-11-21", n, limit)
				if err != nil {
					if !errors.Is(err, errDayFull) {
						t.Error(err)
					}
					return
				}
				taken.Add(n)
				l.sent(p, 1, n, n)
			}
		})
	}
	wg.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := taken.Load(); got > limit || got <= limit-n || l.today("s1", "2026-11-21") != got {
		t.Errorf("%d taken of %d, said %d", got, limit, l.today("s1", "2026-11-21"))
	}
	// The next day begins anew; a clock that goes back does not.
	if l.today("s1", "2026-11-22") != 0 {
		t.Error("the next day is used already")
	}
	l.broken = true
	if _, err := l.take(t.Context(), "s1", "2026-11-20", 1, 0); err != nil || l.today("s1", "2026-11-20") <= limit-n {
		t.Errorf("a clock set back gave %d of the day, %v", l.today("s1", "2026-11-20"), err)
	}
}

// A clock that was ahead, on a day whose total was used up, takes no other day's total from the site once it is right.
func TestDayAfterAClockThatWasAhead(t *testing.T) {
	l := load(t, openFleet(t))
	l.broken = true // no promises: nothing is written here
	if _, err := l.take(t.Context(), "s1", "2099-01-01", 1000, 0); err != nil {
		t.Fatal(err)
	}
	if n := l.today("s1", "2026-11-21"); n != 1000 {
		t.Errorf("%d bytes of today: what was sent is not to be forgotten", n)
	}
	if n := l.today("s1", "2026-11-22"); n != 0 {
		t.Errorf("%d bytes of the next day", n)
	}
}
