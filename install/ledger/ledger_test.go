package ledger_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
)

func rel(sequence uint64, variant byte) ledger.Release {
	m := &manifest.Manifest{Name: "pos", Version: string('a' + rune(sequence)), Sequence: sequence, Target: manifest.Target{Format: manifest.FormatFiles}}
	return ledger.ReleaseOf(m, manifest.Digest{byte(sequence), variant})
}

// Whatever happens, the floor, the trusted time and the policy revisions never fall, the file comes back as it was
// written, and what Admit lets through is never older than anything committed.
func TestNeverFalls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := ledger.New()
		var highest uint64
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			before := l.Bundle("pos").Floor
			r := rel(rapid.Uint64Range(1, 9).Draw(t, "sequence"), rapid.ByteRange(0, 1).Draw(t, "variant"))
			admitted := l.Admit(r, false) == nil
			if admitted && r.Sequence < highest {
				t.Fatalf("sequence %d is admitted after %d", r.Sequence, highest)
			}
			was := l.Time
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				if admitted {
					l.Commit(r, rapid.IntRange(1, 3).Draw(t, "keep"), time.Unix(rapid.Int64Range(0, 100).Draw(t, "time"), 0))
					highest = max(highest, r.Sequence)
				}
			case 1:
				l.Fail("pos", ledger.Trial{Checksum: r.Checksum, Attempts: rapid.IntRange(0, 3).Draw(t, "attempts")})
			case 2:
				l.Hold("pos", r.Checksum, "x")
			case 3:
				l.Withdraw(r, rel(r.Sequence-1, 0).Dir)
			case 4:
				l.Forget("pos")
			}
			if l.Bundle("pos").Floor.Sequence < before.Sequence || l.Time.Before(was) {
				t.Fatalf("floor or time fell: %+v, was %+v", l.Bundle("pos").Floor, before)
			}
			b, err := l.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if l, err = ledger.Parse(b); err != nil {
				t.Fatalf("does not come back: %v", err)
			}
		}
	})
}

// The floors of what is numbered never fall, those of the seeder's numbers count within a revision, and none of them moves
// the operators'.
func TestFloorsNeverFall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := ledger.New()
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			name, site := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"), rapid.SampledFrom([]string{"s1", "s2"}).Draw(t, "site")
			mark := policy.Mark{Revision: rapid.Uint64Range(1, 3).Draw(t, "revision"), Number: rapid.Uint64Range(1, 9).Draw(t, "number")}
			grant, back, order := l.Grants[site][name], l.Delegated[name], l.Orders[name]
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				if l.Granted(site, name, mark) != grant.Before(mark) {
					t.Fatalf("grant %+v after %+v", mark, grant)
				}
			case 1:
				if l.CarryOut(name, mark.Number, name, mark.Revision) != back.Before(mark) || l.Orders[name] != order {
					t.Fatalf("the seeder's order %+v after %+v moves the operators' %d to %d", mark, back, order, l.Orders[name])
				}
			case 2:
				if l.CarryOut(name, mark.Number, "", 0) != (mark.Number > order) || l.Delegated[name] != back {
					t.Fatalf("order %d after %d", mark.Number, order)
				}
			}
			if l.Grants[site][name].Before(grant) || l.Delegated[name].Before(back) || l.Orders[name] < order {
				t.Fatalf("a floor fell: %+v", l)
			}
			b, err := l.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if l, err = ledger.Parse(b); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestTrials(t *testing.T) {
	l := ledger.New()
	r := rel(1, 0)
	if l.Fail("pos", ledger.Trial{Checksum: r.Checksum}) {
		t.Error("a failure that does not count is written down")
	}
	for n := 1; n <= ledger.MaxAttempts; n++ {
		if l.Held("pos", r.Checksum) != nil {
			t.Fatalf("held after %d attempts", n-1)
		}
		l.Fail("pos", ledger.Trial{Checksum: r.Checksum, Attempts: n})
	}
	if l.Held("pos", r.Checksum) == nil {
		t.Error("not held when the attempts are used up")
	}
	if l.Held("pos", rel(2, 0).Checksum) != nil {
		t.Error("another checksum is held")
	}
}

// Every single flipped bit is noticed: a ledger that decayed must not be taken for one with a lower floor.
func TestEveryBit(t *testing.T) {
	l := ledger.New()
	l.Commit(rel(7, 0), 2, time.Unix(1, 0).UTC())
	b, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 * len(b) {
		b[i/8] ^= 1 << (i % 8)
		if _, err := ledger.Parse(b); err == nil {
			t.Fatalf("bit %d flipped and nobody noticed", i)
		}
		b[i/8] ^= 1 << (i % 8)
	}
	if _, err := ledger.Parse(b); err != nil {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	l := ledger.New()
	l.Commit(rel(7, 0), 2, time.Unix(1, 0).UTC())
	l.Hold("pos", manifest.Digest{1}, "x")
	l.Granted("s1", "pos", policy.Mark{Revision: 3, Number: 9})
	l.CarryOut("pos", 7, "", 0)
	l.CarryOut("pos", 8, "pos", 3)
	b, err := l.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[65:])
	f.Add([]byte(`{"schema":"patchmesh.io/installed/v1","policies":{},"bundles":{"pos":null}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, doc := range [][]byte{b, ledger.Seal(b)} {
			l, err := ledger.Parse(doc)
			if err != nil {
				continue
			}
			again, err := l.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ledger.Parse(again); err != nil {
				t.Fatalf("does not come back: %v", err)
			}
			for name := range l.Bundles {
				l.Dirs(name)
				_ = l.Admit(rel(1, 0), false)
			}
		}
	})
}
