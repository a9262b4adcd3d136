package install

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/install/snapshot"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/policy"
)

// What a policy that says nothing of snapshots asks for.
const (
	anyProvider     = "auto"
	defaultKeep     = policy.DefaultSnapshots
	defaultKeepDays = policy.DefaultSnapshotDays
)

// Providers are those that keep a machine's state, the cheapest of those that keep all of it first; Timeshift does not.
func Providers(c Config) []snapshot.Provider {
	dir := filepath.Join(c.State, "snapshots")
	return []snapshot.Provider{
		&snapshot.Btrfs{Dir: dir, Now: time.Now},
		&snapshot.LVM{Dir: filepath.Join(dir, "lvm"), Now: time.Now},
		&snapshot.Copy{Dir: dir, Now: time.Now},
		&snapshot.Timeshift{Dir: filepath.Join(dir, "timeshift"), Now: time.Now},
	}
}

// scope is what is kept of the machine: all but what the configuration leaves out, and what belongs to the executor. Whom it
// trusts is not put back either: a key that was taken away since must stay away.
func (c Config) scope() snapshot.Scope {
	sc := snapshot.Scope{Root: c.Machine, Exclude: append(DefaultExclude(), c.Snapshot.Exclude...)}
	for _, own := range []string{c.State, c.Root, c.Trust} {
		if rel, err := filepath.Rel(c.Machine, own); err == nil && filepath.IsLocal(rel) {
			sc.Exclude = append(sc.Exclude, filepath.Join("/", rel))
		}
	}
	sc.Exclude = slices.DeleteFunc(sc.Exclude, c.holdsDatabase)
	return sc
}

// holdsDatabase reports whether the machine's database of packages lies below a path. What was installed and what is said to
// be installed go back together or not at all, so no such path is left out.
func (c Config) holdsDatabase(path string) bool {
	for _, db := range []string{"/var/lib/dpkg", "/var/lib/rpm", "/usr/lib/sysimage/rpm", "/root/.rpmdb"} { // the last one is Debian's rpm
		rel, err := filepath.Rel(path, db)
		if err == nil && filepath.IsLocal(rel) && exists(filepath.Join(c.Machine, db)) {
			return true
		}
	}
	return false
}

// wish is what the policy says of snapshots. A rollback that a person asks for has no policy.
func (s *session) wish(t journal.Transaction) policy.Snapshot {
	w := policy.Snapshot{Required: true, Keep: defaultKeep, MaxAgeDays: defaultKeepDays}
	if t.Kind == journal.Apply && s.verified != nil && s.verified.wanted.Rollback.Snapshot.Provider != "" {
		w = s.verified.wanted.Rollback.Snapshot
	}
	return w
}

// choose finds who is to keep the state: the one that the policy names, or the first that can. why says that the
// transaction cannot be: nobody can, and the policy does not do without.
func (s *session) choose(ctx context.Context, w policy.Snapshot, need int64) (provider, why string) {
	var no []string
	for _, p := range s.Providers {
		if w.Provider != p.Name() && w.Provider != anyProvider && w.Provider != "" {
			continue
		}
		err := p.Usable(ctx, s.Config.scope(), need)
		if err == nil {
			return p.Name(), ""
		}
		no = append(no, p.Name()+": "+err.Error())
	}
	if !w.Required {
		return journal.None, ""
	}
	if len(no) == 0 {
		no = []string{fmt.Sprintf("provider %q, and the policy requires a snapshot", w.Provider)}
	}
	return "", strings.Join(no, "; ")
}

// provider finds one by its name; nil: this program has none of that name.
func (s *session) provider(name string) snapshot.Provider {
	for _, p := range s.Providers {
		if p.Name() == name {
			return p
		}
	}
	return nil
}

func (s *session) takeSnapshot(ctx context.Context, t journal.Transaction) (journal.Transaction, error) {
	p := s.provider(t.Packages.Provider)
	if p == nil {
		return t, nil
	}
	kept, err := p.Take(ctx, s.Config.scope(), t.Packages.ID)
	if err != nil {
		return t, fmt.Errorf("snapshot: %w", err)
	}
	t.Packages.Snapshot = kept.Name
	return t, nil
}

// restore puts the state back, and reports whether it was there.
func (s *session) restore(ctx context.Context, t journal.Transaction) (bool, error) {
	p := s.provider(t.Packages.Provider)
	if p == nil {
		return false, nil
	}
	has, err := s.keeps(ctx, p, t.Packages.ID)
	if err != nil || !has {
		return false, err
	}
	return true, p.Restore(ctx, s.Config.scope(), t.Packages.ID)
}

func (s *session) keeps(ctx context.Context, p snapshot.Provider, id string) (bool, error) {
	all, err := p.List(ctx, s.Config.scope())
	if slices.ContainsFunc(all, func(k snapshot.Snapshot) bool { return k.ID == id }) {
		return true, nil // whatever is wrong with others
	}
	return false, err
}

// restoreForeseen puts the state back from before a transaction whose journal cannot be read any more, if the file beside
// it can. What was committed stays: then a release names the snapshot.
func (s *session) restoreForeseen(ctx context.Context) error {
	b, err := os.ReadFile(s.state.path(foreseenName))
	if err != nil {
		return nil //nolint:nilerr // it was no transaction of packages, or nothing is known of it
	}
	var f foreseen
	if err := ledger.Unseal("foreseen", b, maxForeseen, &f); err != nil || !journal.ValidID(f.ID) {
		s.Log.Warn("foreseen unreadable", "err", err)
		return nil
	}
	if slices.ContainsFunc(s.ledger.Snapshots(), func(k ledger.Snapshot) bool { return k.ID == f.ID }) {
		return nil
	}
	if _, err := tool.KillLeft(ctx, f.ID); err != nil {
		return err
	}
	t := journal.Transaction{Packages: journal.Packages{ID: f.ID, Provider: f.Provider}}
	if err := s.awaitManagers(ctx); err != nil {
		return err
	}
	if _, err := s.restore(ctx, t); err != nil {
		return err
	}
	return flush(s.Config.Machine)
}

// dropSnapshot gives up the snapshot of a transaction. One that cannot be removed now goes with the next prune.
func (s *session) dropSnapshot(ctx context.Context, t journal.Transaction) {
	if p := s.provider(t.Packages.Provider); p != nil {
		if err := p.Delete(ctx, s.Config.scope(), t.Packages.ID); err != nil {
			s.Log.Warn("snapshot not removed", "id", t.Packages.ID, "err", err)
		}
	}
}

// pruneSnapshots keeps as many of the newest as the policy says, none that is too old, and none that no release names.
func (s *session) pruneSnapshots(ctx context.Context, t journal.Transaction) error {
	var keep []string
	oldest := s.Now().Add(-time.Duration(t.Packages.MaxAgeDays) * 24 * time.Hour)
	for _, k := range s.ledger.Snapshots() {
		if len(keep) < t.Packages.Keep && (t.Packages.MaxAgeDays == 0 || k.Taken.After(oldest)) {
			keep = append(keep, k.ID)
		}
	}
	for _, p := range s.Providers {
		all, err := p.List(ctx, s.Config.scope())
		if err != nil { // cannot be used here, most likely
			s.Log.Debug("snapshots not listed", "provider", p.Name(), "err", err)
			continue
		}
		for _, k := range all {
			if slices.Contains(keep, k.ID) {
				continue
			}
			if err := p.Delete(ctx, s.Config.scope(), k.ID); err != nil {
				return err
			}
		}
	}
	return s.change(func(l *ledger.Ledger) bool { return l.DropSnapshots(keep) })
}

// keptAs is the ledger's entry of a transaction's snapshot; nil when there is none.
func keptAs(t journal.Transaction) *ledger.Snapshot {
	p := t.Packages
	if !p.Touched || p.Provider == journal.None {
		return nil
	}
	k := &ledger.Snapshot{ID: p.ID, Provider: p.Provider, Name: p.Snapshot, Old: t.Old, Taken: t.New.Since}
	if p.MaxAgeDays > 0 {
		k.Until = k.Taken.Add(time.Duration(p.MaxAgeDays) * 24 * time.Hour)
	}
	return k
}
