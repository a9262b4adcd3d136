package main

import (
	"errors"
	"io/fs"
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
	seeder := func(t *testing.T, more ...string) {
		flags, _ := keys(t, t.TempDir())
		flags = append(flags, more...)
		held(t, kills(), flags, accident{kill: func(p *process, state string) *process {
			p.kill(t)
			return launch(t, state, flags...)
		}})
	}
	t.Run("seeder on SQLite", func(t *testing.T) { seeder(t) })
	t.Run("on PostgreSQL", func(t *testing.T) {
		server := postgres.Start(t)
		t.Run("seeder", func(t *testing.T) { seeder(t, "--database", server.Fresh()) })
		t.Run("server", func(t *testing.T) {
			flags, _ := keys(t, t.TempDir())
			held(t, kills(), append(flags, "--database", server.Fresh()), accident{kill: func(p *process, _ string) *process {
				server.Kill()
				server.Restart()
				return p
			}})
		})
	})
}

// The control: a disk that forgets what was written since the round began, as if it had been acknowledged before it was
// kept. The same loop finds that reports are lost.
func TestKillWithForgetfulDisk(t *testing.T) {
	flags, _ := keys(t, t.TempDir())
	kept := t.TempDir()
	database := func(t *testing.T, from, to string) {
		t.Helper()
		for _, name := range []string{"seeder.db", "seeder.db-wal"} {
			b, err := os.ReadFile(filepath.Join(from, name))
			if errors.Is(err, fs.ErrNotExist) {
				err = os.RemoveAll(filepath.Join(to, name))
			} else if err == nil {
				err = os.WriteFile(filepath.Join(to, name), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	loss := killLoop(t, 2, flags, accident{
		before: func(state string) { database(t, state, kept) },
		kill: func(p *process, state string) *process {
			p.kill(t)
			database(t, kept, state)
			if err := os.RemoveAll(filepath.Join(state, "seeder.db-shm")); err != nil {
				t.Fatal(err)
			}
			return launch(t, state, flags...)
		},
	})
	if loss.lost == 0 {
		t.Errorf("the loop found nothing: %+v", loss)
	}
	t.Logf("%+v", loss)
}

// accident is what happens in each round: before reports are sent, and after some were acknowledged.
type accident struct {
	before func(state string)
	kill   func(p *process, state string) *process
}

// losses are what a loop of kills found.
type losses struct{ kills, acknowledged, lost, twice int }

// held fails the test if anything was lost.
func held(t *testing.T, rounds int, flags []string, a accident) {
	t.Helper()
	l := killLoop(t, rounds, flags, a)
	if l.lost > 0 || l.twice > 0 {
		t.Errorf("%+v", l)
	}
	t.Logf("%d kills, %d reports acknowledged, %d lost, %d there twice", l.kills, l.acknowledged, l.lost, l.twice)
}

func killLoop(t *testing.T, rounds int, flags []string, a accident) (out losses) {
	state := filepath.Join(t.TempDir(), "st")
	p := launch(t, state, flags...)
	r := join(t, p, "s1")
	const window, each = 200, 300
	total := uint64(rounds * each)
	chance := rand.New(rand.NewPCG(1, 2))
	acked, lost, twice := map[uint64]bool{}, map[uint64]bool{}, map[uint64]bool{}
	for round := range rounds + 1 {
		if a.before != nil {
			a.before(state)
		}
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
			p = a.kill(p, state)
			out.kills++
			for len(r.acks) > 0 { // those that were on their way count: the seeder said it has them
				acked[<-r.acks] = true
			}
		}
		count := countReports(t, p)
		for n := range acked {
			if count[n] == 0 {
				lost[n] = true
			}
		}
		for n, c := range count {
			if c != 1 {
				twice[n] = true
			}
		}
	}
	p.signal(t, os.Interrupt)
	fsck := []string{"fsck", "--state", state}
	if len(flags) > 4 {
		fsck = append(fsck, flags[4:]...)
	}
	if text, err := command(t, fsck...).CombinedOutput(); err != nil {
		t.Errorf("fsck: %v\n%s", err, text)
	}
	out.acknowledged, out.lost, out.twice = len(acked), len(lost), len(twice)
	return out
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
