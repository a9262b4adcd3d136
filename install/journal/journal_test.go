package journal_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/manifest"
)

func transaction() journal.Transaction {
	m := &manifest.Manifest{Name: "pos", Version: "2", Sequence: 2, Target: manifest.Target{Format: manifest.FormatFiles}}
	return journal.Transaction{
		Schema: journal.Schema, Kind: journal.Apply, Step: journal.Stage, Attempt: 1,
		New: ledger.ReleaseOf(m, manifest.Digest{2}), Old: "1-010000000000",
	}
}

// The transitions, as a transcript: one line for each step, when it went well and when it did not.
func TestAdvance(t *testing.T) {
	var got strings.Builder
	for _, kind := range []journal.Kind{journal.Apply, journal.Rollback} {
		for _, step := range []journal.Step{
			journal.Stage, journal.Switch, journal.Check, journal.Commit, journal.Prune, journal.Undo, journal.Discard, journal.Close,
		} {
			tr := transaction()
			tr.Kind, tr.Step = kind, step
			ok := journal.Advance(tr, nil)
			no := journal.Advance(tr, &journal.Fault{Class: journal.Failed, Reason: "why"})
			re := journal.Resume(tr, "")
			fmt.Fprintf(&got, "%-8s %-7s  well: %-7s  not: %-7s  after a crash: %s\n", kind, step, ok.Step, no.Step, re.Step)
		}
	}
	want := `
apply    stage    well: switch   not: discard  after a crash: undo
apply    switch   well: check    not: undo     after a crash: switch
apply    check    well: commit   not: undo     after a crash: switch
apply    commit   well: prune    not: undo     after a crash: switch
apply    prune    well: close    not: close    after a crash: prune
apply    undo     well: discard  not: undo     after a crash: undo
apply    discard  well: close    not: discard  after a crash: undo
apply    close    well: close    not: close    after a crash: close
rollback stage    well: switch   not: discard  after a crash: undo
rollback switch   well: commit   not: undo     after a crash: switch
rollback check    well: commit   not: undo     after a crash: switch
rollback commit   well: prune    not: undo     after a crash: switch
rollback prune    well: close    not: close    after a crash: prune
rollback undo     well: discard  not: undo     after a crash: undo
rollback discard  well: close    not: discard  after a crash: undo
rollback close    well: close    not: close    after a crash: close
`
	if got.String() != want[1:] {
		t.Errorf("got\n%s", got.String())
	}
}

// A crash loop between switch and commit ends: the fourth try turns round, and what it leaves is held.
func TestAttempts(t *testing.T) {
	tr := transaction()
	tr.Step = journal.Check
	for range ledger.MaxAttempts - 1 {
		if tr = journal.Resume(tr, ""); tr.Step != journal.Switch {
			t.Fatalf("attempt %d goes to %s", tr.Attempt, tr.Step)
		}
	}
	if tr = journal.Resume(tr, ""); tr.Step != journal.Undo || !tr.Trial().Held {
		t.Errorf("attempt %d goes to %s, held %t", tr.Attempt, tr.Step, tr.Trial().Held)
	}
}

// disk is the machine as the steps see it.
type disk struct {
	link, force string // what "current" and the ledger name: "", old or new
	staged      bool
	file        *journal.Transaction
}

// Whatever fails, is cut off, or cannot be written down, in whatever order: when a transaction is closed, link and
// ledger name the same release, that release is there, and a release that failed is not.
func TestAnyFate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := transaction()
		if rapid.Bool().Draw(t, "first") {
			start.Old = ""
		}
		d := disk{link: start.Old, force: start.Old}
		fate := func(what string) bool { return rapid.IntRange(0, 3).Draw(t, what) == 0 }
		save := func(tr journal.Transaction) bool {
			if fate("not saved") {
				if rapid.Bool().Draw(t, "but written") { // the rename was done, the flush failed
					d.file = &tr
				}
				return false
			}
			d.file = &tr
			return true
		}
		act := func(tr journal.Transaction) bool {
			bad, half := fate("fails"), rapid.Bool().Draw(t, "effect although it fails")
			if tr.Step == journal.Switch && !d.staged {
				return false
			}
			if !bad || half {
				switch tr.Step {
				case journal.Stage:
					d.staged = true
				case journal.Switch:
					d.link = tr.New.Dir
				case journal.Commit:
					d.force = tr.New.Dir
				case journal.Undo:
					d.link = tr.Old
				case journal.Discard:
					if d.force == tr.New.Dir { // withdrawn
						d.force = tr.Old
					}
					d.staged = false
				case journal.Check, journal.Prune, journal.Close:
				case journal.Preflight, journal.Snapshot, journal.Transact, journal.Repair, journal.Verify, journal.Reboot:
				}
			}
			return !bad
		}
		// run is what package install does with the machine; false: it was cut off or stopped with the journal kept.
		run := func(tr journal.Transaction) bool {
			for tr.Step != journal.Close {
				if fate("killed") {
					return false
				}
				var f *journal.Fault
				if !act(tr) {
					if tr.Step == journal.Undo || tr.Step == journal.Discard {
						return false
					}
					f = &journal.Fault{Class: journal.Failed, Reason: "fails"}
				}
				if fate("killed between") {
					return false
				}
				tr = journal.Advance(tr, f)
				if tr.Step != journal.Close && !save(tr) {
					tr, _ = journal.Unwritten(tr, &journal.Fault{Class: journal.Deferred, Reason: "not saved"})
				}
			}
			d.file = nil
			return true
		}
		if !save(start) {
			d.file = &start // the worst case: it is there although the caller gave up
		} else {
			run(start)
		}
		for n := 0; d.file != nil; n++ {
			if n > 1000 {
				t.Fatal("never ends")
			}
			next := journal.Resume(*d.file, "")
			if save(next) {
				run(next)
			}
		}
		if d.link != d.force {
			t.Fatalf("current names %q, the ledger %q", d.link, d.force)
		}
		if d.link == start.New.Dir && !d.staged {
			t.Fatal("what is in force is not there")
		}
	})
}

func FuzzParse(f *testing.F) {
	b, err := transaction().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	if b, err = ofPackages().Encode(); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(ledger.Seal([]byte(`{"schema":"patchmesh.io/journal/v1","step":"undo"}`)))
	f.Add(b[:len(b)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, doc := range [][]byte{b, ledger.Seal(b)} { // a fuzzer does not find a sha256 by itself
			tr, err := journal.Parse(doc)
			if err != nil {
				continue
			}
			again, err := tr.Encode()
			if err != nil {
				t.Fatal(err)
			}
			back, err := journal.Parse(again)
			if err != nil {
				t.Fatalf("does not come back: %v", err)
			}
			if third, err := back.Encode(); err != nil || !bytes.Equal(third, again) {
				t.Fatalf("comes back as something else: %v", err)
			}
		}
	})
}
