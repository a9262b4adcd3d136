package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/bed/postgres"
)

// kills is how often each loop kills: 5, or 100 with PATCHMESH_LONG=1.
func kills() int {
	if os.Getenv("PATCHMESH_LONG") == "1" {
		return 100
	}
	return 5
}

// The seeder, or its database server, is killed again and again while reports come in. What was acknowledged is there,
// and everything is there once.
func TestKillDuringReports(t *testing.T) {
	t.Run("seeder on SQLite", func(t *testing.T) {
		flags, _ := keys(t, t.TempDir())
		killLoop(t, flags, func(p *process, state string) *process {
			p.kill(t)
			return launch(t, state, flags...)
		})
	})
	t.Run("on PostgreSQL", func(t *testing.T) {
		server := postgres.Start(t)
		t.Run("seeder", func(t *testing.T) {
			flags, _ := keys(t, t.TempDir())
			flags = append(flags, "--database", server.Fresh())
			killLoop(t, flags, func(p *process, state string) *process {
				p.kill(t)
				return launch(t, state, flags...)
			})
		})
		t.Run("server", func(t *testing.T) {
			flags, _ := keys(t, t.TempDir())
			flags = append(flags, "--database", server.Fresh())
			killLoop(t, flags, func(p *process, _ string) *process {
				server.Kill()
				server.Restart()
				return p
			})
		})
	})
}

func killLoop(t *testing.T, flags []string, kill func(p *process, state string) *process) {
	state := filepath.Join(t.TempDir(), "st")
	p := launch(t, state, flags...)
	r := join(t, p, "s1")
	const window, each = 200, 300
	rounds := kills()
	total := uint64(rounds * each)
	chance := rand.New(rand.NewPCG(1, 2))
	acked := map[uint64]bool{}
	for round := range rounds + 1 {
		s := r.session(t, p)
		stop := min(len(acked)+1+chance.IntN(each), int(total))
		if round == rounds {
			stop = int(total)
		}
		for seq, inFlight := uint64(1), 0; len(acked) < stop; {
			for ; inFlight < window && seq <= total; seq++ {
				if !acked[seq] {
					s.Send(r.report(t, seq))
					inFlight++
				}
			}
			select {
			case n := <-r.acks:
				acked[n] = true
				inFlight--
			case <-time.After(20 * time.Second):
				t.Fatalf("round %d: %d of %d acknowledged, then silence\n%s", round, len(acked), stop, p.stderr)
			}
		}
		if round < rounds {
			p = kill(p, state)
			for len(r.acks) > 0 { // those that were on their way count: the seeder said it has them
				acked[<-r.acks] = true
			}
		}
		count := countReports(t, p)
		for n := range acked {
			if count[n] == 0 {
				t.Errorf("round %d: report %d was acknowledged and is lost", round, n)
			}
		}
		for n, c := range count {
			if c != 1 {
				t.Errorf("round %d: report %d is there %d times", round, n, c)
			}
		}
	}
	p.signal(t, os.Interrupt)
	fsck := []string{"fsck", "--state", state}
	if len(flags) > 4 {
		fsck = append(fsck, flags[4:]...)
	}
	if out, err := command(t, fsck...).CombinedOutput(); err != nil {
		t.Errorf("fsck: %v\n%s", err, out)
	}
	t.Logf("%d kills, %d reports acknowledged", rounds, len(acked))
}

func countReports(t *testing.T, p *process) map[uint64]int {
	t.Helper()
	count := map[uint64]int{}
	for after := int64(0); ; {
		page, err := p.admin.Reports(t.Context(), api.ReportQuery{After: after, Limit: 1000})
		if err != nil {
			t.Fatalf("%v\n%s", err, p.stderr)
		}
		for _, x := range page.Reports {
			count[x.Body.Seq]++
		}
		if len(page.Reports) == 0 {
			return count
		}
		after = page.Next
	}
}
