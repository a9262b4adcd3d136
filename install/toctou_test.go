package install_test

import (
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/internal/chunk"
)

// adversary owns the chunk store and swaps what lies there as fast as it can: good bytes, wrong bytes of the same
// length, too few, too many, links out of the store, directories. Whoever looks twice will see two things.
type adversary struct {
	stop  atomic.Bool
	swaps atomic.Int64
	wait  sync.WaitGroup
}

const marker = "EVIL"

func unleash(t *testing.T, b *installtest.Bench, v *installtest.Bundle, oneIn int) *adversary {
	t.Helper()
	good := map[chunk.ID][]byte{}
	for _, id := range v.Chunks {
		data, err := os.ReadFile(b.ChunkPath(id))
		if err != nil {
			t.Fatal(err)
		}
		good[id] = data
	}
	outside := filepath.Join(b.Dir, "outside")
	installtest.WriteFile(t, outside, []byte(marker+" from outside"))
	a := new(adversary)
	for worker := range 2 {
		a.wait.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(worker)))
			tmp := filepath.Join(b.Store, ".evil-"+string('a'+rune(worker)))
			for !a.stop.Load() {
				id := v.Chunks[rnd.IntN(len(v.Chunks))]
				p, data := b.ChunkPath(id), good[id]
				bad := append([]byte(marker), data[min(len(marker), len(data)):]...)
				switch rnd.IntN(oneIn) {
				default: // the good bytes again, so that a check may pass
					os.WriteFile(tmp, data, 0o644)
				case 0: // the same length
					os.WriteFile(tmp, bad, 0o644)
				case 1: // in place, while somebody may be reading
					if f, err := os.OpenFile(p, os.O_WRONLY, 0); err == nil {
						f.Write(bad)
						f.Close()
					}
					a.swaps.Add(1)
					continue
				case 2:
					os.WriteFile(tmp, append(bad, bad...), 0o644)
				case 3:
					os.Remove(tmp)
					os.Symlink(outside, tmp)
				}
				os.Rename(tmp, p)
				a.swaps.Add(1)
			}
		})
	}
	return a
}

func (a *adversary) end() int64 {
	a.stop.Store(true)
	a.wait.Wait()
	return a.swaps.Load()
}

func toctouSpec() installtest.Spec {
	s := installtest.Spec{Name: "pos", Version: "1", Sequence: 1, Files: map[string]string{}}
	for i := range 12 {
		s.Files["f"+string('a'+rune(i))] = strings.Repeat(string('a'+rune(i)), 3000)
	}
	return s
}

// Whatever the owner of the store does, only verified bytes come into force.
func TestSwappedUnderway(t *testing.T) {
	b := installtest.New(t, nil)
	v := b.Bundle(t, toctouSpec())
	req := b.Request(t, v, installtest.Want{})
	a := unleash(t, b, v, 200)
	rounds, installed, refused := 300, 0, 0
	for range rounds {
		r := installer(b).Apply(t.Context(), req)
		got, err := b.InForce("pos", v)
		if err != nil {
			t.Errorf("wrong bytes in force: %v", err)
			break
		}
		switch {
		case r.Exit == install.ExitDone && got == v:
			installed++
		case r.Exit == install.ExitChecksum || r.Exit == install.ExitDeferred:
			refused++
			if got != nil {
				t.Errorf("refused, and %s is in force", version(got))
			}
		default:
			t.Errorf("%+v", r)
		}
		for _, dir := range []string{b.Config.Root, b.Config.State} {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	swaps := a.end()
	t.Logf("%d rounds, %d swaps: %d refused, %d installed, 0 with wrong bytes", rounds, swaps, refused, installed)
	if refused == 0 || installed == 0 {
		t.Error("always the same: the adversary and the executor do not meet")
	}
}

// The positive control: who verifies the store first and copies from it afterwards installs wrong bytes.
func TestSwappedUnderwayIsNoticed(t *testing.T) {
	b := installtest.New(t, nil)
	v := b.Bundle(t, toctouSpec())
	a := unleash(t, b, v, 6)
	defer a.end()
	for range 100_000 {
		if wrong := verifyThenCopy(b, v); wrong {
			return
		}
	}
	t.Error("verify first, copy later was never caught: the adversary is too slow to prove anything")
}

// verifyThenCopy does one file the wrong way and reports whether wrong bytes came through.
func verifyThenCopy(b *installtest.Bench, v *installtest.Bundle) bool {
	id := v.Index.Files[0].Chunks[0].ID
	check, err := os.ReadFile(b.ChunkPath(id))
	if err != nil || sha256.Sum256(check) != id {
		return false
	}
	f, err := os.Open(b.ChunkPath(id))
	if err != nil {
		return false
	}
	defer f.Close()
	copied, err := io.ReadAll(f)
	return err == nil && sha256.Sum256(copied) != id
}
