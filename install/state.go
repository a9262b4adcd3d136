package install

import (
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
)

// state is the state directory under the lock.
type state struct {
	dir  string
	lock *os.File
}

func diskFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// lockState takes the lock, or says who is told so.
func lockState(dir string) (*state, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
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

func (s *state) close() { s.lock.Close() }

func (s *state) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// readLedger reads what is remembered. A file that is lost or damaged is made again from the evidence, which holds
// the signed manifest of every release that came into force and is still kept: so the floor does not fall.
func (s *state) readLedger(root string, now time.Time) (*ledger.Ledger, error) {
	b, err := os.ReadFile(s.path(installedName))
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return nil, err
	}
	var damage error
	if !missing {
		l, err := ledger.Parse(b)
		if err == nil {
			return l, nil
		}
		damage = err
	}
	l, found, err := s.rebuild(root, now)
	switch {
	case err != nil:
		return nil, err
	case found:
		return l, s.writeLedger(l)
	case damage != nil:
		return nil, problem.New(problem.StoreDamaged, "%s is damaged and there is nothing to make it again from", s.path(installedName)).
			Because(damage).WithDone("nothing was changed").WithNext("restore the file, or remove it if this machine never had anything installed")
	}
	return ledger.New(), nil
}

func (s *state) rebuild(root string, now time.Time) (*ledger.Ledger, bool, error) {
	l := ledger.New()
	names, err := dirNames(s.path(evidenceName))
	if err != nil {
		return nil, false, err
	}
	found := false
	for _, name := range names {
		d, err := release.Open(root, name)
		if err != nil {
			return nil, false, err
		}
		current, err := d.Current()
		if err != nil {
			return nil, false, err
		}
		dirs, err := dirNames(s.path(evidenceName, name))
		if err != nil {
			return nil, false, err
		}
		var kept []ledger.Release
		for _, dir := range dirs {
			r, err := s.evidenceRelease(name, dir)
			if err != nil || !d.Has(dir) {
				continue // half-written evidence of a release that never came into force
			}
			r.Since = now.UTC().Truncate(time.Second)
			kept = append(kept, r)
		}
		slices.SortFunc(kept, func(a, b ledger.Release) int { return int(min(max(int64(a.Sequence)-int64(b.Sequence), -1), 1)) })
		for _, r := range kept { // the oldest first, so that the newest becomes the first of the previous ones
			l.Commit(r, len(kept), time.Time{})
			found = true
		}
		for _, r := range kept {
			if r.Dir == current {
				l.Commit(r, len(kept), time.Time{})
			}
		}
	}
	return l, found, nil
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
	return durable.WriteFile(s.path(installedName), b, 0o644)
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
	return durable.WriteFile(s.path(journalName), b, 0o644)
}

func (s *state) removeJournal() error { return durable.Remove(s.path(journalName)) }

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

// settle makes every link name what the ledger says: the oracle when no journal can be read.
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
		switch {
		case err != nil:
			return err
		case b.Current != nil && current != b.Current.Dir && d.Has(b.Current.Dir):
			err = d.Switch(b.Current.Dir)
		case b.Current == nil && garbled && current != "":
			err = d.Switch("")
		}
		if err != nil {
			return err
		}
		if garbled {
			if err := d.Sweep(); err != nil {
				return err
			}
			if err := d.Prune(l.Dirs(name)); err != nil {
				return err
			}
			if err := s.pruneEvidence(name, l.Dirs(name)); err != nil {
				return err
			}
		}
	}
	return nil
}
