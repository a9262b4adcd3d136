package journal_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/manifest"
)

func ofPackages() journal.Transaction {
	tr := transaction()
	tr.New = ledger.ReleaseOf(&manifest.Manifest{Name: "os", Version: "2", Sequence: 2, Target: manifest.Target{Format: manifest.FormatDeb}}, manifest.Digest{2})
	tr.Packages = journal.Packages{ID: "mesh-1", Provider: "copy", Keep: 2}
	return tr
}

// The transitions, as a transcript, with a snapshot and without one.
func TestAdvancePackages(t *testing.T) {
	var got strings.Builder
	for _, provider := range []string{"copy", journal.None} {
		for _, step := range []journal.Step{
			journal.Stage, journal.Preflight, journal.Snapshot, journal.Transact, journal.Repair, journal.Verify, journal.Switch, journal.Reboot,
			journal.Check, journal.Commit, journal.Prune, journal.Undo, journal.Discard, journal.Close,
		} {
			tr := ofPackages()
			tr.Step, tr.Packages.Provider, tr.Packages.Touched = step, provider, true
			why := &journal.Fault{Class: journal.Failed, Reason: "why"}
			un, must := journal.Unwritten(tr, why)
			fmt.Fprintf(&got, "%-4s %-9s  well: %-9s  not: %-7s  after a crash: %-7s  not written: %s %t\n", provider, step,
				journal.Advance(tr, nil).Step, journal.Advance(tr, why).Step, journal.Resume(tr, "").Step, un.Step, must)
		}
	}
	want := `
copy stage      well: preflight  not: discard  after a crash: discard  not written: stage false
copy preflight  well: snapshot   not: discard  after a crash: discard  not written: discard true
copy snapshot   well: transact   not: discard  after a crash: discard  not written: discard true
copy transact   well: verify     not: undo     after a crash: undo     not written: discard true
copy repair     well: verify     not: undo     after a crash: undo     not written: undo false
copy verify     well: switch     not: undo     after a crash: undo     not written: undo false
copy switch     well: check      not: undo     after a crash: verify   not written: undo false
copy reboot     well: check      not: undo     after a crash: reboot   not written: undo false
copy check      well: commit     not: undo     after a crash: verify   not written: undo false
copy commit     well: prune      not: undo     after a crash: verify   not written: undo false
copy prune      well: close      not: close    after a crash: prune    not written: close false
copy undo       well: discard    not: undo     after a crash: undo     not written: undo false
copy discard    well: close      not: discard  after a crash: discard  not written: discard true
copy close      well: close      not: close    after a crash: close    not written: close false
none stage      well: preflight  not: discard  after a crash: discard  not written: stage false
none preflight  well: snapshot   not: discard  after a crash: discard  not written: discard true
none snapshot   well: transact   not: discard  after a crash: discard  not written: discard true
none transact   well: verify     not: repair   after a crash: repair   not written: discard true
none repair     well: verify     not: undo     after a crash: repair   not written: undo false
none verify     well: switch     not: repair   after a crash: repair   not written: undo false
none switch     well: check      not: undo     after a crash: verify   not written: undo false
none reboot     well: check      not: undo     after a crash: reboot   not written: undo false
none check      well: commit     not: undo     after a crash: verify   not written: undo false
none commit     well: prune      not: undo     after a crash: verify   not written: undo false
none prune      well: close      not: close    after a crash: prune    not written: close false
none undo       well: discard    not: undo     after a crash: undo     not written: undo false
none discard    well: close      not: discard  after a crash: discard  not written: discard true
none close      well: close      not: close    after a crash: close    not written: close false
`
	if got.String() != want[1:] {
		t.Errorf("got\n%s", got.String())
	}
}

// A start of the machine is asked for a bounded number of times, and after it the machine is judged again.
func TestReboot(t *testing.T) {
	tr := ofPackages()
	tr.Step, tr.Packages.Boot, tr.Packages.MayReboot, tr.Packages.Reboot = journal.Switch, "monday", true, []string{"a new kernel"}
	tr = journal.Advance(tr, nil)
	if tr.Step != journal.Reboot || tr.Packages.Asked != 1 {
		t.Fatalf("%s, asked %d", tr.Step, tr.Packages.Asked)
	}
	if up := journal.Resume(tr, "tuesday"); up.Step != journal.Verify || !up.Packages.Rebooted || up.Attempt != tr.Attempt {
		t.Errorf("after the start: %s, attempt %d", up.Step, up.Attempt)
	}
	for range journal.MaxReboots - 1 {
		if tr = journal.Resume(tr, "monday"); tr.Step != journal.Reboot {
			t.Fatalf("asked %d: %s", tr.Packages.Asked, tr.Step)
		}
	}
	if tr = journal.Resume(tr, "monday"); tr.Step != journal.Verify {
		t.Fatalf("asked %d: %s", tr.Packages.Asked, tr.Step)
	}
	tr.Step = journal.Switch
	if tr = journal.Advance(tr, nil); tr.Step != journal.Check {
		t.Errorf("it is asked for once more: %s", tr.Step)
	}
}

// machine is what the steps of packages change.
type machine struct {
	state string // of the packages: old, mixed, new
	kept  bool   // the snapshot is there, whole
	link  string
	force string
	lost  bool // a way back found no snapshot
}

// Whatever fails, is cut off, or cannot be written down, in whatever order: when a transaction is closed the packages
// are those of the old state or of the new one, the ledger says which, and no way back has ever missed its snapshot.
func TestAnyFateOfPackages(t *testing.T) {
	for range 100 { // the rarest fates take some ten thousand tries
		rapid.Check(t, anyFateOfPackages)
	}
}

func anyFateOfPackages(t *rapid.T) {
	start := ofPackages()
	start.Packages.Empty = rapid.Bool().Draw(t, "nothing to do")
	start.Packages.MayReboot = rapid.Bool().Draw(t, "may be started again")
	start.Packages.Provider = ""
	m := machine{state: "old", link: start.Old, force: start.Old}
	var file *journal.Transaction
	boot := 0
	fate := func(what string) bool { return rapid.IntRange(0, 4).Draw(t, what) == 0 }
	save := func(tr journal.Transaction) bool {
		if fate("not saved") {
			if rapid.Bool().Draw(t, "but written") {
				file = &tr
			}
			return false
		}
		file = &tr
		return true
	}
	act := func(tr journal.Transaction) (journal.Transaction, bool) {
		bad, half := fate("fails"), rapid.Bool().Draw(t, "effect although it fails")
		done := !bad || half
		switch tr.Step {
		case journal.Preflight:
			if !bad && !tr.Packages.Empty {
				tr.Packages.Provider = "copy"
			}
		case journal.Snapshot:
			if done {
				if m.state != "old" {
					t.Fatalf("a snapshot of %s packages", m.state)
				}
				m.kept = true
			}
		case journal.Transact:
			m.state = "mixed"
			if done {
				m.state = "new"
			}
			if rapid.Bool().Draw(t, "needs a start") {
				tr.Packages.Reboot, tr.Packages.Boot = []string{"why"}, fmt.Sprint(boot)
			}
		case journal.Verify:
			if !tr.Packages.Empty && m.state != "new" {
				return tr, false
			}
		case journal.Switch:
			if done {
				m.link = tr.New.Dir
			}
		case journal.Commit:
			if done {
				m.force = tr.New.Dir
			}
		case journal.Undo:
			if tr.Packages.Touched {
				if !m.kept && m.state != "old" {
					m.lost = true
				}
				m.state = "mixed"
				if done {
					m.state = "old"
				}
			}
			if done {
				m.link = tr.Old
			}
		case journal.Discard:
			if done {
				m.kept = false
				if m.force == tr.New.Dir {
					m.force = tr.Old
				}
			}
		case journal.Prune, journal.Stage, journal.Check, journal.Close, journal.Reboot, journal.Repair:
		}
		return tr, !bad
	}
	run := func(tr journal.Transaction) {
		for tr.Step != journal.Close {
			if fate("killed") {
				return
			}
			was := tr
			var f *journal.Fault
			var ok bool
			if tr, ok = act(tr); !ok {
				if tr.Step == journal.Undo || tr.Step == journal.Discard {
					return
				}
				f = &journal.Fault{Class: journal.Failed, Reason: "fails"}
			}
			if was.Step == journal.Reboot && ok {
				if rapid.Bool().Draw(t, "started again") {
					boot++
				}
				return
			}
			if fate("killed between") {
				return
			}
			tr = journal.Advance(tr, f)
			if tr.Step != journal.Close && !save(tr) {
				var must bool
				if tr, must = journal.Unwritten(tr, &journal.Fault{Class: journal.Deferred, Reason: "not saved"}); must && !save(tr) {
					return
				}
			}
		}
		file = nil
	}
	if !save(start) {
		file = &start
	} else {
		run(start)
	}
	for n := 0; file != nil; n++ {
		if n > 1000 {
			t.Fatal("never ends")
		}
		next := journal.Resume(*file, fmt.Sprint(boot))
		if save(next) {
			run(next)
		}
	}
	switch {
	case m.lost:
		t.Fatal("the way back found no snapshot")
	case m.link != m.force:
		t.Fatalf("current names %q, the ledger %q", m.link, m.force)
	case start.Packages.Empty && m.state != "old", !start.Packages.Empty && (m.state == "new") != (m.force == start.New.Dir), m.state == "mixed":
		t.Fatalf("the packages are %s, the ledger names %q", m.state, m.force)
	}
}
