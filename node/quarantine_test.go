package node

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

const someID, otherID = "00000000000000aa", "00000000000000bb"

func falseBytes(id string, at time.Time) failure {
	return failure{id: id, at: at, code: problem.ChunkCorrupt, reason: "ChunkCorrupt", detail: "chunk 214", bundle: "app", version: "2.0", checksum: manifest.Digest{2}}
}

func releaseOf(id string) *order.Order {
	return &order.Order{Kind: order.Release, Sequence: 7, Quarantine: id, Reason: "disk replaced"}
}

var (
	cleanBill = install.Result{Outcome: install.Success, Reason: install.ReasonVerified, Detail: "read whole: app 1.0"}
	foundBad  = install.Result{Outcome: install.VerificationFailure, Reason: "ChecksumMismatch", Code: problem.ChecksumMismatch, Detail: "release 1.0 is damaged"}
	notNow    = install.Result{Outcome: install.Deferred, Reason: "Locked", Detail: "apt runs"}
	nothing   = install.Result{Outcome: install.Success, Reason: install.ReasonNothingToDo}
)

// A quarantine is told as a conversation: what happened, minutes after the beginning, and where it stands then.
func TestQuarantineTranscript(t *testing.T) {
	t0 := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	type turn struct {
		at   string // since t0
		what string
		do   func(q quarantine, now time.Time) quarantine
		want string // held, checks, when the next one is, what was found; or how it ended
	}
	fail := func(id string) func(quarantine, time.Time) quarantine {
		return func(q quarantine, now time.Time) quarantine { return q.fail(now, falseBytes(id, now)) }
	}
	look := func(r install.Result) func(quarantine, time.Time) quarantine {
		return func(q quarantine, now time.Time) quarantine {
			if !q.due(now) {
				t.Errorf("no check is due at %v", now)
			}
			q = q.begin(now)
			return q.checked(now, q.ID, r)
		}
	}
	idle := func(q quarantine, now time.Time) quarantine {
		if q.due(now) {
			t.Errorf("a check is due at %v", now)
		}
		return q
	}
	give := func(id string) func(quarantine, time.Time) quarantine {
		return func(q quarantine, now time.Time) quarantine { return q.release(now, releaseOf(id)) }
	}
	say := func(q quarantine) string {
		switch {
		case q.ID == "":
			return "none"
		case q.held():
			next := "at once"
			if !q.Next.IsZero() {
				next = q.Next.Sub(t0).String()
			}
			return strings.TrimSpace(fmt.Sprintf("held %s, %d checks, next %s; %s", q.ID[14:], q.Checks, next, q.Found))
		}
		return fmt.Sprintf("ended %s after %s by %s: %s", q.ID[14:], q.Ended.Sub(q.Since), q.By, q.Why)
	}
	for name, turns := range map[string][]turn{
		"checked again and again, and clean in the end": {
			{"0s", "nothing", idle, "none"},
			{"0s", "false bytes", fail(someID), "held aa, 0 checks, next 30s;"},
			{"29s", "too early", idle, "held aa, 0 checks, next 30s;"},
			{"30s", "still false", look(foundBad), "held aa, 1 checks, next 1m0s; ChecksumMismatch: release 1.0 is damaged"},
			{"1m0s", "could not be looked at", look(notNow), "held aa, 2 checks, next 2m0s; Locked: apt runs"},
			{"2m0s", "an answer to something else", look(nothing), "held aa, 3 checks, next 4m0s; NothingToDo:"},
			{"4m0s", "clean", look(cleanBill), "ended aa after 4m0s by check: read whole: app 1.0"},
			{"24h0m0s", "nothing more", idle, "ended aa after 4m0s by check: read whole: app 1.0"},
		},
		"released by a person": {
			{"0s", "false bytes", fail(someID), "held aa, 0 checks, next 30s;"},
			{"30s", "still false", look(foundBad), "held aa, 1 checks, next 1m0s; ChecksumMismatch: release 1.0 is damaged"},
			{"40s", "an order for another one", give(otherID), "held aa, 1 checks, next 1m0s; ChecksumMismatch: release 1.0 is damaged"},
			{"50s", "the order", give(someID), "ended aa after 50s by order 7: disk replaced"},
			{"1m0s", "another failure", fail(otherID), "held bb, 0 checks, next 1m30s;"},
			{"1m1s", "the order again", give(someID), "held bb, 0 checks, next 1m30s;"},
			{"1m30s", "clean", look(cleanBill), "ended bb after 30s by check: read whole: app 1.0"},
		},
		"a second failure changes nothing but what is shown": {
			{"0s", "false bytes", fail(someID), "held aa, 0 checks, next 30s;"},
			{"10s", "again", fail(otherID), "held aa, 0 checks, next 30s; again: ChunkCorrupt (E2103) of app 2.0"},
		},
		"hurried, by a restart or by what was fetched again": {
			{"0s", "false bytes", fail(someID), "held aa, 0 checks, next 30s;"},
			{"1s", "hurry", func(q quarantine, _ time.Time) quarantine { return q.hurry() }, "held aa, 0 checks, next at once;"},
			{"1s", "clean", look(cleanBill), "ended aa after 1s by check: read whole: app 1.0"},
			{"2s", "hurry", func(q quarantine, _ time.Time) quarantine { return q.hurry() }, "ended aa after 1s by check: read whole: app 1.0"},
		},
		"an answer that comes late": {
			{"0s", "false bytes", fail(someID), "held aa, 0 checks, next 30s;"},
			{"5s", "the order", give(someID), "ended aa after 5s by order 7: disk replaced"},
			{"6s", "another failure", fail(otherID), "held bb, 0 checks, next 36s;"},
			{"7s", "clean, of the first", func(q quarantine, now time.Time) quarantine { return q.checked(now, someID, cleanBill) }, "held bb, 0 checks, next 36s;"},
		},
		"a clock that is set back": {
			{"48h0m0s", "false bytes, in the future", fail(someID), "held aa, 0 checks, next 48h0m30s;"},
			{"0s", "clean", look(cleanBill), "ended aa after 0s by check: read whole: app 1.0"},
			{"1s", "false bytes again", fail(otherID), "held bb, 0 checks, next 31s;"},
			{"5s", "the order, no earlier than the one before ended", give(otherID), "ended bb after 0s by order 7: disk replaced"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var q quarantine
			for _, tn := range turns {
				after, err := time.ParseDuration(tn.at)
				if err != nil {
					t.Fatal(err)
				}
				q = tn.do(q, t0.Add(after))
				if got := say(q); got != tn.want {
					t.Fatalf("%s, %s:\n got %s\nwant %s", tn.at, tn.what, got, tn.want)
				}
			}
		})
	}
}

// The codes that put a node under quarantine, and those that do not: a bundle that is genuine and not wanted here accuses
// nobody.
func TestWhatIsDistrusted(t *testing.T) {
	for code, want := range map[problem.Code]bool{
		problem.ChecksumMismatch: true, problem.SignatureInvalid: true, problem.ChunkCorrupt: true, problem.IndexInvalid: true, problem.ManifestInvalid: true,
		problem.SequenceTooOld: false, problem.TargetMismatch: false, problem.InvalidPolicy: false, problem.Denied: false, problem.OrderTooOld: false,
		problem.UnsupportedField: false, problem.InstallFailed: false, problem.HealthFailed: false, problem.BundleRevoked: false, "": false,
	} {
		if _, got := failureOf(install.Result{Outcome: install.VerificationFailure, Phase: status.Quarantined, Code: code}); got != want {
			t.Errorf("%s: %v", code, got)
		}
		if _, got := failureOf(install.Result{Outcome: install.Deferred, Phase: status.Deferred, Code: code}); got {
			t.Errorf("a deferral with %s counts", code)
		}
	}
}

// While a life is held by the quarantine it starts nothing, in its window or without one, and goes on by itself after.
func TestQuarantineHoldsInstalls(t *testing.T) {
	d := newDiary(t, newYork, "2026-11-24 01:00", tuesday)
	d.staged, d.hold = true, waits(ReasonQuarantined, time.Date(2026, 12, 1, 7, 10, 0, 0, time.UTC))
	d.until("2026-12-02 00:00").want("Tue 01:00 Staged Complete", "Tue 01:00 Scheduled WindowClosed", "Tue 02:00 Scheduled Quarantined",
		"Tue 04:00 Deferred Quarantined", "Tue 02:10 Installing InstallerRunning", "Tue 02:15 Installed Installed")
}

// Whatever happens in whatever order: nothing starts while the quarantine is in force, only a clean check or the order
// that names it ends it, and one of them always does.
func TestQuarantineProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q quarantine
		now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
		ids, before := 0, otherID // before: the identity of the last one that ended
		life := &Life{}
		life.aim(&status.Desired{Policy: "p", Revision: 1, Bundle: "app", Version: "1", Checksum: manifest.Digest{1}})
		facts := func() *targetFacts {
			f := &targetFacts{manifest: &manifest.Manifest{Name: "app", Version: "1"}, staged: true}
			f.manifest.Target = manifest.Target{OS: "debian", Release: "12", Arch: "amd64"}
			f.machine = manifest.Facts{OS: "debian", Release: "12", Arch: "amd64"}
			n := &Node{quarantine: q}
			if text, next, held := n.quarantineHold(); held {
				f.hold = &hold{now: now, Verdict: waits(ReasonQuarantined, now.Add(next))(now, nil).Verdict}
				f.hold.Text = text
			}
			return f
		}
		for range rapid.IntRange(1, 60).Draw(t, "turns") {
			was := q
			event := rapid.SampledFrom([]string{"fail", "clean", "bad", "later", "order", "old order", "time", "back", "restart", "hurry"}).Draw(t, "event")
			ended := false
			switch event {
			case "fail":
				ids++
				q = q.fail(now, falseBytes(fmt.Sprintf("%016x", ids), now))
			case "clean", "bad", "later":
				if q.due(now) {
					q = q.begin(now)
					q = q.checked(now, q.ID, map[string]install.Result{"clean": cleanBill, "bad": foundBad, "later": notNow}[event])
					ended = event == "clean"
				}
			case "order":
				q, ended = q.release(now, releaseOf(q.ID)), q.held()
			case "old order":
				q = q.release(now, releaseOf(before))
			case "time":
				now = now.Add(time.Duration(rapid.IntRange(0, 7200).Draw(t, "seconds")) * time.Second)
			case "back":
				now = now.Add(-time.Duration(rapid.IntRange(0, 86400).Draw(t, "seconds")) * time.Second)
			case "restart":
				b, err := q.encode()
				if err != nil {
					t.Fatal(err)
				}
				if q.ID != "" {
					read, err := decodeQuarantine(b)
					if err != nil || cmp.Diff(q, read) != "" {
						t.Fatalf("%v\n%s", err, cmp.Diff(q, read))
					}
					q = read.hurry()
				}
				life.resume()
			case "hurry":
				q = q.hurry()
			}
			if was.held() && !q.held() {
				before = q.ID
			}
			if was.held() && !q.held() != ended {
				t.Fatalf("%s: held %v after held", event, q.held())
			}
			if was.held() && q.held() && (q.ID != was.ID || q.Reason != was.Reason || q.Since != was.Since) {
				t.Fatalf("%s: it has become another one", event)
			}
			if v := life.step(now, facts(), nil); v.install {
				if q.held() {
					t.Fatalf("%s: an installation starts under quarantine", event)
				}
				life.finish(now, install.Result{Outcome: install.Deferred, Phase: status.Deferred, Reason: "DiskFull"})
			}
		}
		// Never stuck: within the longest wait there is a check, and after a clean one an installation starts.
		if q.held() {
			if !q.due(now) {
				now = now.Add(retryMost)
			}
			if !q.due(now) {
				t.Fatal("no check is ever due")
			}
			if over := q.release(now, releaseOf(q.ID)); over.held() {
				t.Fatal("a person cannot release it")
			}
			q = q.begin(now)
			if q = q.checked(now, q.ID, cleanBill); q.held() {
				t.Fatal("a clean check does not end it")
			}
		}
		for range 4 {
			if life.step(now.Add(2*mostNext), facts(), nil).install {
				return
			}
		}
		t.Fatalf("it is stuck: %+v", life)
	})
}

// The positive control of the property: without the quarantine the same life starts.
func TestWithoutQuarantineItStarts(t *testing.T) {
	life := &Life{}
	life.aim(&status.Desired{Policy: "p", Revision: 1, Bundle: "app", Version: "1", Checksum: manifest.Digest{1}})
	started := 0
	for range 4 {
		if life.step(time.Now(), &targetFacts{manifest: &manifest.Manifest{Name: "app", Version: "1"}, staged: true}, nil).install {
			started++
		}
	}
	if started != 1 {
		t.Errorf("started %d times", started)
	}
}

func FuzzQuarantine(f *testing.F) {
	now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	q := quarantine{}.fail(now, falseBytes(someID, now))
	for _, x := range []quarantine{q, q.begin(now).checked(now, someID, foundBad), q.release(now, releaseOf(someID))} {
		b, err := x.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"schema":"patchmesh.io/quarantine/v1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := decodeQuarantine(b)
		if err != nil {
			return
		}
		again, err := q.encode()
		if err != nil {
			t.Fatal(err)
		}
		if read, err := decodeQuarantine(again); len(again) <= maxQuarantine && (err != nil || !cmp.Equal(q, read)) {
			t.Fatalf("%v\n%s", err, cmp.Diff(q, read))
		}
		if s, err := json.Marshal(q.say()); err != nil || len(s) > 4<<10 {
			t.Fatalf("%d bytes to say, %v", len(s), err)
		}
		if end := now.Add(100 * 365 * 24 * time.Hour); q.held() && !q.due(end) {
			t.Fatalf("no check is due: %s", b)
		}
	})
}
