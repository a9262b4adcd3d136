package install_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/health"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
)

// cutAtCheck leaves a machine on which v1 is in force by the ledger and v2 by the link: cut off at the health check.
func cutAtCheck(t testing.TB) (b *installtest.Bench, v1, v2 *installtest.Bundle) {
	b = installtest.New(t, func(c *install.Config) { c.Health.Command = []string{"/bin/true"} })
	v1, v2 = b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
	in := installer(b)
	if r := in.Apply(context.Background(), b.Request(t, v1, installtest.Want{})); r.Exit != 0 {
		t.Fatalf("%+v", r)
	}
	in.Host = installtest.Host{Well: func(context.Context, health.Check) error { return errors.New("nobody answers") }}
	if r := in.Apply(context.Background(), b.Request(t, v2, installtest.Want{})); r.Reason != install.ReasonInterrupted {
		t.Fatalf("%+v", r)
	}
	return b, v1, v2
}

// A journal that cannot be read decides nothing: what was in force before is in force.
func TestGarbledJournal(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"torn":       func(b []byte) []byte { return b[:len(b)/2] },
		"empty":      func([]byte) []byte { return nil },
		"zeros":      func(b []byte) []byte { return make([]byte, len(b)) },
		"one bit":    func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"sealed lie": func([]byte) []byte { return ledger.Seal([]byte(`{"step":"prune"}`)) },
	} {
		t.Run(name, func(t *testing.T) {
			b, v1, v2 := cutAtCheck(t)
			p := filepath.Join(b.Config.State, "journal.json")
			j, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			installtest.WriteFile(t, p, spoil(j))
			r := installer(b).Recover(t.Context())
			want(t, r, nothing)
			if r.Recovered == "" {
				t.Error("it is not said that the journal was unreadable")
			}
			inForce(t, b, v1, v2)
			want(t, apply(t, b, v2, installtest.Want{}), done)
			inForce(t, b, v2)
		})
	}
}

// A ledger that is lost or decayed is made again, and the floor does not fall.
func TestLostLedger(t *testing.T) {
	b := installtest.New(t, nil)
	v1, v2, v3 := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2)), b.Bundle(t, spec("3", 3))
	p := filepath.Join(b.Config.State, "installed.json")
	for _, v := range []*installtest.Bundle{v1, v2, v3} {
		want(t, apply(t, b, v, installtest.Want{}), done)
	}
	for name, spoil := range map[string]func() error{
		"lost":    func() error { return os.Remove(p) },
		"damaged": func() error { return os.WriteFile(p, bytes.Repeat([]byte{7}, 500), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			r := apply(t, b, v2, installtest.Want{})
			if want(t, r, tooOld); !strings.Contains(r.Recovered, "installed.json was "+name) { // once: it is there again then
				t.Errorf("nobody is told: %q", r.Recovered)
			}
			r = apply(t, b, v3, installtest.Want{})
			if want(t, r, nothing); r.Recovered != "" {
				t.Error(r.Recovered)
			}
			inForce(t, b, v3)
			want(t, installer(b).Rollback(t.Context(), "pos"), "success 0 Installed RolledBackByOperator ")
			inForce(t, b, v2)
			want(t, installer(b).Retry(t.Context(), "pos"), "success 0 Installed FailuresForgotten ")
			want(t, apply(t, b, v3, installtest.Want{}), done)
		})
	}
	// With nothing to make it again from, a decayed ledger stops everything: this is no fresh machine.
	if err := os.RemoveAll(filepath.Join(b.Config.State, "evidence")); err != nil {
		t.Fatal(err)
	}
	installtest.WriteFile(t, p, []byte("decayed"))
	want(t, apply(t, b, v3, installtest.Want{}), "deferred 1 Deferred StateDamaged E4103")
	inForce(t, b, v3)
}

// Both at once, cut off in mid-air: the release that was on its way is not taken for one that was in force.
func TestLostLedgerInTheMiddle(t *testing.T) {
	b, v1, v2 := cutAtCheck(t)
	if err := os.Remove(filepath.Join(b.Config.State, "installed.json")); err != nil {
		t.Fatal(err)
	}
	in := installer(b)
	in.Host = installtest.Host{Well: func(context.Context, health.Check) error { return &health.UnhealthyError{Last: errors.New("not well")} }}
	want(t, in.Recover(t.Context()), unhealthy)
	inForce(t, b, v1, v2)
}

// A release that decayed is not gone back to.
func TestDecayedRelease(t *testing.T) {
	b := installtest.New(t, nil)
	v1, v2 := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
	for _, v := range []*installtest.Bundle{v1, v2} {
		want(t, apply(t, b, v, installtest.Want{}), done)
	}
	for name, spoil := range map[string]func(dir string) error{
		"one bit":    func(d string) error { return os.WriteFile(d+"/version", []byte("1\x0b"), 0o644) },
		"extra file": func(d string) error { return os.WriteFile(d+"/extra", nil, 0o644) },
		"missing":    func(d string) error { return os.Remove(d + "/empty") },
		"mode":       func(d string) error { return os.Chmod(d+"/bin/run.sh", 0o644) },
		"link":       func(d string) error { return errors.Join(os.Remove(d+"/empty"), os.Symlink("/dev/null", d+"/empty")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(b.Config.Root, "pos", "releases", v1.Dir())
			keep := t.TempDir()
			if out, err := exec.Command("cp", "-a", dir+"/.", keep).CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
			if err := spoil(dir); err != nil {
				t.Fatal(err)
			}
			want(t, installer(b).Rollback(t.Context(), "pos"), badSum)
			inForce(t, b, v2)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("cp", "-a", keep, dir).CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		})
	}
	want(t, installer(b).Rollback(t.Context(), "pos"), "success 0 Installed RolledBackByOperator ")
}

// The way back can fail: then it says so, keeps the journal, and the next run goes on from there.
func TestRollbackFails(t *testing.T) {
	b, v1, v2 := cutAtCheck(t)
	old := filepath.Join(b.Config.Root, "pos", "releases", v1.Dir())
	hidden := filepath.Join(b.Dir, "hidden")
	if err := os.Rename(old, hidden); err != nil {
		t.Fatal(err)
	}
	in := installer(b)
	in.Host = installtest.Host{Well: func(context.Context, health.Check) error { return &health.UnhealthyError{Last: errors.New("not well")} }}
	want(t, in.Recover(t.Context()), "rollback_failed 5 InstallFailed RollbackFailed E5102")
	want(t, in.Apply(t.Context(), b.Request(t, v2, installtest.Want{})), "rollback_failed 5 InstallFailed RollbackFailed E5102")
	if err := os.Rename(hidden, old); err != nil {
		t.Fatal(err)
	}
	want(t, in.Recover(t.Context()), unhealthy)
	inForce(t, b, v1, v2)
}

// A machine that dies in every health check tries three times and then leaves it alone.
func TestCrashLoop(t *testing.T) {
	b, v1, v2 := cutAtCheck(t)
	in := installer(b)
	in.Host = installtest.Host{Well: func(context.Context, health.Check) error { return errors.New("the machine goes down") }}
	for range ledger.MaxAttempts - 1 {
		want(t, in.Recover(t.Context()), "deferred 1 Deferred Interrupted E5101")
	}
	want(t, in.Recover(t.Context()), "rolled_back 4 Quarantined TooManyAttempts E5101")
	inForce(t, b, v1, v2)
	want(t, apply(t, b, v2, installtest.Want{}), "install_failure 4 Quarantined TooManyAttempts E5101")
	inForce(t, b, v1, v2)
}

// A file system that is full, in any way: the old release stays, nothing is left behind, the attempts are not counted,
// and when there is room it goes through.
func TestDiskFull(t *testing.T) {
	for _, c := range []struct {
		name, options string
		state         bool // the state directory's file system, instead of the root's
		reserve       int64
	}{
		{name: "blocks", options: "size=1m"},
		{name: "reserve", options: "size=8m", reserve: 7 << 20},
		{name: "inodes", options: "size=8m,nr_inodes=22"},
		{name: "state", options: "size=256k", state: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := installtest.New(t, nil)
			dir := b.Config.Root
			if c.state {
				dir = b.Config.State
			}
			mount(t, dir, c.options)
			v1 := b.Bundle(t, spec("1", 1))
			s := spec("2", 2)
			for i := range 20 {
				s.Files[fmt.Sprintf("big/%d", i)] = strings.Repeat(fmt.Sprintf("%09d\n", i), 7000)
			}
			v2 := b.Bundle(t, s)
			want(t, apply(t, b, v1, installtest.Want{}), done)
			b.Config.ReserveBytes = c.reserve
			hog := filepath.Join(dir, "hog")
			if c.state {
				fill(t, hog)
			}
			for range 5 { // more often than the attempts that count
				want(t, apply(t, b, v2, installtest.Want{}), "deferred 1 Deferred DiskFull E4101")
				inForce(t, b, v1, v2)
				if _, err := os.Stat(filepath.Join(b.Config.Root, "pos", "releases", v2.Dir())); !os.IsNotExist(err) {
					t.Fatalf("something is left: %v", err)
				}
			}
			if err := errors.Join(os.RemoveAll(hog), unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=64m,nr_inodes=10000")); err != nil {
				t.Fatal(err)
			}
			want(t, apply(t, b, v2, installtest.Want{}), done)
			inForce(t, b, v2)
		})
	}
}

func mount(t *testing.T, dir, options string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options+",mode=0755"); err != nil {
		t.Skip("needs the right to mount a tmpfs: run as root")
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

// fill takes all the room that is left.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 512))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// FuzzJournal puts any bytes in the place of the journal of a run that was cut off after the switch. Whatever they
// are, one of the two releases is in force, whole, the ledger says which, and the floor has not fallen.
func FuzzJournal(f *testing.F) {
	if err := os.WriteFile("/dev/shm/.patchmesh-test", nil, 0o600); err == nil { // memory: a flush costs nothing there
		os.Remove("/dev/shm/.patchmesh-test")
		f.Setenv("TMPDIR", "/dev/shm")
	}
	b, v1, v2 := cutAtCheck(f)
	template := f.TempDir()
	good, err := os.ReadFile(filepath.Join(b.Config.State, "journal.json"))
	if err != nil {
		f.Fatal(err)
	}
	parts := map[string]string{b.Config.Root: "root", b.Config.State: "state"}
	for from, to := range parts {
		installtest.CopyTree(f, from, filepath.Join(template, to))
	}
	doc := good[65:]
	f.Add(good)
	f.Add(doc)
	f.Add(good[:100])
	f.Add([]byte{})
	for _, step := range []string{"stage", "switch", "commit", "prune", "undo", "discard", "close"} {
		f.Add(bytes.Replace(doc, []byte(`"check"`), []byte(`"`+step+`"`), 1))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		for _, j := range [][]byte{doc, ledger.Seal(doc)} {
			for to, from := range parts {
				installtest.CopyTree(t, filepath.Join(template, from), to)
			}
			installtest.WriteFile(t, filepath.Join(b.Config.State, "journal.json"), j)
			in := installer(b)
			in.Host = installtest.Host{Well: func(context.Context, health.Check) error { return nil }}
			r := in.Recover(context.Background())
			now, err := b.InForce("pos", v1, v2)
			if err != nil || now == nil {
				t.Fatalf("in force: %v, %v (%+v)", version(now), err, r)
			}
			st, err := install.ReadStatus(b.Config)
			if err != nil || st.Damage != "" {
				t.Fatalf("status: %v %s", err, st.Damage)
			}
			pos := st.Installed.Bundle("pos")
			if pos.Floor.Sequence < 1 {
				t.Fatalf("the floor fell to %d", pos.Floor.Sequence)
			}
			if r.Exit != install.ExitRollbackFailed && (pos.Current == nil || pos.Current.Dir != now.Dir()) {
				t.Fatalf("the ledger names %+v, in force is %s (%+v)", pos.Current, now.Version, r)
			}
		}
	})
}

// From every step that a journal can name, with link and ledger at either release and any answer about health, the
// machine comes to one release, whole, and the ledger names it: also from states that no crash is known to leave.
func TestAnyState(t *testing.T) {
	b, v1, v2 := cutAtCheck(t)
	template := t.TempDir()
	parts := map[string]string{b.Config.Root: "root", b.Config.State: "state"}
	for from, to := range parts {
		installtest.CopyTree(t, from, filepath.Join(template, to))
	}
	sealed, err := os.ReadFile(filepath.Join(b.Config.State, "journal.json"))
	if err != nil {
		t.Fatal(err)
	}
	open, err := journal.Parse(sealed)
	if err != nil {
		t.Fatal(err)
	}
	releases := map[string]*installtest.Bundle{"v1": v1, "v2": v2}
	for _, step := range []journal.Step{journal.Stage, journal.Switch, journal.Check, journal.Commit, journal.Prune, journal.Undo, journal.Discard, journal.Close} {
		for link, linked := range releases {
			for named, inLedger := range releases {
				for _, well := range []bool{true, false} {
					name := fmt.Sprintf("%s, link %s, ledger %s, healthy %t", step, link, named, well)
					for to, from := range parts {
						installtest.CopyTree(t, filepath.Join(template, from), to)
					}
					tr := open
					if tr.Step = step; step == journal.Undo || step == journal.Discard {
						tr.Fault = &journal.Fault{Class: journal.Failed, Reason: "test"}
					}
					j, err := tr.Encode()
					if err != nil {
						t.Fatal(err)
					}
					installtest.WriteFile(t, filepath.Join(b.Config.State, "journal.json"), j)
					l := ledger.New()
					l.Commit(ledger.ReleaseOf(v1.Manifest, v1.Digest), 2, installtest.Created)
					if inLedger == v2 {
						l.Commit(tr.New, 2, installtest.Created)
					}
					lb, err := l.Encode()
					if err != nil {
						t.Fatal(err)
					}
					installtest.WriteFile(t, filepath.Join(b.Config.State, "installed.json"), lb)
					current := filepath.Join(b.Config.Root, "pos", "current")
					if err := errors.Join(os.Remove(current), os.Symlink("releases/"+linked.Dir(), current)); err != nil {
						t.Fatal(err)
					}
					in := installer(b)
					in.Host = installtest.Host{Well: func(context.Context, health.Check) error {
						if well {
							return nil
						}
						return &health.UnhealthyError{Last: errors.New("not well")}
					}}
					r := in.Recover(t.Context())
					if r.Exit == install.ExitDeferred && r.Reason != install.ReasonInterrupted || r.Exit == install.ExitRollbackFailed {
						t.Errorf("%s: %+v", name, r)
					}
					now, err := b.InForce("pos", v1, v2)
					if err != nil || now == nil {
						t.Errorf("%s: in force %s, %v", name, version(now), err)
						continue
					}
					litter, err := b.Litter()
					if err != nil || len(litter) > 0 {
						t.Errorf("%s: litter %v, %v", name, litter, err)
					}
					st, err := install.ReadStatus(b.Config)
					if cur := st.Installed.Bundle("pos").Current; err != nil || cur == nil || cur.Dir != now.Dir() {
						t.Errorf("%s: the ledger names %+v, in force is %s (%v)", name, cur, now.Version, err)
					}
				}
			}
		}
	}
}
