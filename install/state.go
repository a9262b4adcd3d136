package install

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/install/release"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Names in the state directory.
const (
	lockName      = "lock"
	installedName = "installed.json"
	journalName   = "journal.json"
	evidenceName  = "evidence"
	foreseenName  = "foreseen.json" // of a transaction of packages, beside the journal
	managerName   = "manager"       // the package manager's private directory, during a transaction
	logName       = "log"           // what package managers said
)

// state is the state directory under the lock.
type state struct {
	dir  string
	lock *os.File
}

func diskFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// lockState takes the lock, or says who is told so.
func lockState(dir string) (*state, error) {
	if err := release.MakeDir(dir); err != nil {
		return nil, err
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if err := checkOwner(dir, fi); err != nil {
		return nil, problem.New(problem.InvalidFile, "the state directory cannot be trusted").Because(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, problem.New(problem.Locked, "another mesh-install is at work on %s", dir).WithDone("nothing was changed").WithNext("try again when it has ended")
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	s := &state{dir, f}
	if err := durable.Sweep(dir); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close gives the lock back at once, also while a program is just being started and has not closed its copy yet.
func (s *state) close() {
	_ = unix.Flock(int(s.lock.Fd()), unix.LOCK_UN)
	s.lock.Close()
}

func (s *state) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// readLedger reads what is remembered. A file that is lost or damaged is made again from the evidence, which holds
// the signed manifest of every release that is kept: so the floor does not fall. A machine on which nothing was ever
// installed gets its file at once, so that a missing file always means a lost one where there is evidence. What is not in the
// evidence is forgotten then, and lost says so for people.
func (s *state) readLedger(root string, open *journal.Transaction, now time.Time) (_ *ledger.Ledger, lost string, _ error) {
	b, err := os.ReadFile(s.path(installedName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	var damage error
	if err == nil {
		l, err := ledger.Parse(b)
		if err == nil {
			return l, "", nil
		}
		damage = err
	}
	l, err := s.rebuild(root, open, now)
	if err != nil {
		return nil, "", err
	}
	if damage != nil && len(l.Bundles) == 0 {
		return nil, "", problem.New(problem.StoreDamaged, "%s is damaged and there is nothing to make it again from", s.path(installedName)).
			Because(damage).WithDone("nothing was changed").WithNext("restore the file, or remove it if this machine never had anything installed")
	}
	if len(l.Bundles) > 0 {
		what := "lost"
		if damage != nil {
			what = "damaged"
		}
		lost = installedName + " was " + what + " and is made again from the releases on the disk; which orders, grants and revisions of policies were seen is forgotten"
	}
	return l, lost, s.writeLedger(l)
}

// rebuild makes the ledger from the evidence and the links. What an open transaction was about to bring is not taken
// for something that was there before.
func (s *state) rebuild(root string, open *journal.Transaction, now time.Time) (*ledger.Ledger, error) {
	l := ledger.New()
	names, err := dirNames(s.path(evidenceName))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		d, err := release.Open(root, name)
		if err != nil {
			return nil, err
		}
		current, err := d.Current()
		if err != nil {
			return nil, err
		}
		coming := ""
		if open != nil && open.New.Bundle == name && open.Step != journal.Prune {
			if coming = open.New.Dir; current == coming {
				current = open.Old
			}
		}
		kept, err := s.keptReleases(d, name, coming)
		if err != nil {
			return nil, err
		}
		for _, r := range kept { // the oldest first, so that the newest becomes the first of the previous ones
			r.Since = now.UTC().Truncate(time.Second)
			l.Commit(r, len(kept), time.Time{})
		}
		i := slices.IndexFunc(kept, func(r ledger.Release) bool { return r.Dir == current })
		if i >= 0 {
			l.Commit(kept[i], len(kept), time.Time{})
		} else if len(kept) > 0 {
			l.Withdraw(kept[len(kept)-1], "")
		}
	}
	return l, nil
}

// keptReleases are the releases of a name with a manifest in the evidence, by sequence. What cannot be read is
// half-written evidence of a release that never came into force.
func (s *state) keptReleases(d *release.Dir, name, coming string) ([]ledger.Release, error) {
	dirs, err := dirNames(s.path(evidenceName, name))
	if err != nil {
		return nil, err
	}
	var kept []ledger.Release
	for _, dir := range dirs {
		has, err := d.Has(dir)
		if err != nil {
			return nil, err
		}
		r, err := s.evidenceRelease(name, dir)
		var path *fs.PathError
		if errors.As(err, &path) && !errors.Is(err, fs.ErrNotExist) {
			return nil, err // a disk that does not answer must not make the floor fall
		}
		if err == nil && has && dir != coming {
			kept = append(kept, r)
		}
	}
	slices.SortFunc(kept, func(a, b ledger.Release) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return kept, nil
}

func dirNames(dir string) ([]string, error) {
	es, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range es {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, err
}

func (s *state) writeLedger(l *ledger.Ledger) error {
	b, err := l.Encode()
	if err != nil {
		return err
	}
	return s.write(installedName, b)
}

// readJournal returns the open transaction, nil when there is none, and whether a journal was there that cannot be
// read.
func (s *state) readJournal() (t *journal.Transaction, garbled bool, err error) {
	b, err := os.ReadFile(s.path(journalName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	got, err := journal.Parse(b)
	if err != nil {
		return nil, true, nil
	}
	return &got, false, nil
}

func (s *state) writeJournal(t journal.Transaction) error {
	b, err := t.Encode()
	if err != nil {
		return err
	}
	return s.write(journalName, b)
}

func (s *state) removeJournal() error { return durable.Remove(s.path(journalName)) }

func (s *state) write(name string, b []byte) error { return durable.WriteFile(s.path(name), b, 0o644) }

// sweep removes what belongs to a transaction and is of no use without its journal.
func (s *state) sweep() error {
	return errors.Join(durable.Remove(s.path(foreseenName)), os.RemoveAll(s.path(managerName)), pruneTranscripts(s.path(logName)))
}

// writeEvidence keeps the signed manifest and the index of a release: what "rollback" checks files against, and what
// the ledger can be made again from.
func (s *state) writeEvidence(v *verified, index []byte) error {
	dir := s.path(evidenceName, v.release.Bundle, v.release.Dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, b := range map[string][]byte{"manifest.json": v.docs.Doc, "manifest.json.asc": v.docs.Sig, "index.json": index} {
		if err := durable.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	for _, p := range []string{filepath.Dir(dir), s.path(evidenceName), s.dir} {
		if err := durable.SyncDir(p); err != nil {
			return err
		}
	}
	return nil
}

func (s *state) evidenceRelease(name, dir string) (ledger.Release, error) {
	b, err := os.ReadFile(s.path(evidenceName, name, dir, "manifest.json"))
	if err != nil {
		return ledger.Release{}, err
	}
	m, err := manifest.Parse(b)
	if err != nil {
		return ledger.Release{}, err
	}
	r := ledger.ReleaseOf(m, manifest.DigestOf(b))
	if r.Bundle != name || r.Dir != dir {
		return ledger.Release{}, fmt.Errorf("evidence %s/%s is of %s/%s", name, dir, r.Bundle, r.Dir)
	}
	return r, nil
}

// evidenceIndex is the index of a release that was in force, checked against its manifest and that against its name.
func (s *state) evidenceIndex(r ledger.Release) (*manifest.Index, error) {
	dir := s.path(evidenceName, r.Bundle, r.Dir)
	mb, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		return nil, err
	}
	if manifest.DigestOf(mb) != r.Checksum {
		return nil, fmt.Errorf("evidence %s: the manifest is not %s", dir, r.Checksum)
	}
	m, err := manifest.Parse(mb)
	if err != nil {
		return nil, err
	}
	xb, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return nil, err
	}
	return manifest.ParseIndex(m, xb)
}

// pruneEvidence removes what belongs to no release that is kept.
func (s *state) pruneEvidence(name string, keep []string) error {
	dirs, err := dirNames(s.path(evidenceName, name))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if slices.Contains(keep, dir) {
			continue
		}
		if err := os.RemoveAll(s.path(evidenceName, name, dir)); err != nil {
			return err
		}
	}
	if len(keep) == 0 {
		os.Remove(s.path(evidenceName, name)) // only succeeds when empty, which is what is meant
	}
	return nil
}

// settle makes every link name what the ledger says and sweeps, when there is no journal to go by. If there is one
// that cannot be read, then whatever the ledger does not know was in the middle of coming and goes.
func (s *state) settle(root string, l *ledger.Ledger, garbled bool) error {
	names, err := dirNames(root)
	if err != nil {
		return err
	}
	for _, name := range names {
		d, err := release.Open(root, name)
		if err != nil {
			continue // not a bundle's directory
		}
		b := l.Bundle(name)
		current, err := d.Current()
		if err != nil {
			return err
		}
		has := false
		if b.Current != nil {
			if has, err = d.Has(b.Current.Dir); err != nil {
				return err
			}
		}
		switch {
		case has && current != b.Current.Dir:
			err = d.Switch(b.Current.Dir)
		case b.Current == nil && garbled && current != "":
			err = d.Switch("")
		}
		if err != nil {
			return err
		}
		if err := d.Sweep(); err != nil {
			return err
		}
		if !garbled {
			continue
		}
		if err := errors.Join(d.Prune(l.Dirs(name)), s.pruneEvidence(name, l.Dirs(name))); err != nil {
			return err
		}
	}
	return nil
}
