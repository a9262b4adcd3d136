// Package ledger is what the executor remembers between transactions: for every bundle name the release in force,
// the releases kept for going back, the highest sequence ever accepted (the floor), and how often the present
// candidate has failed. It is pure: package install reads and writes the file. A Ledger belongs to one goroutine.
package ledger

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Schema identifies the file.
const Schema = "patchmesh.io/installed/v1"

// MaxBytes bounds the file.
const MaxBytes = 4 << 20

// MaxAttempts is how often one checksum is tried before the executor leaves it alone. Three outlasts two power
// cuts in a row and still ends a crash loop within the first hour.
const MaxAttempts = 3

// Release is a bundle as it lies on disk.
type Release struct {
	Dir      string          `json:"dir"` // name of its directory under releases/
	Bundle   string          `json:"bundle"`
	Version  string          `json:"version"`
	Sequence uint64          `json:"sequence"`
	Checksum manifest.Digest `json:"checksum"`
	Format   manifest.Format `json:"format"`
	Since    time.Time       `json:"since"` // when it came into force, by the machine's own clock

	// Of deb and rpm, when the packages were installed and not only laid out.
	Packages string    `json:"packages,omitempty"` // digest of the machine's package database right after
	Snapshot *Snapshot `json:"snapshot,omitempty"` // of the state before, while it is kept
}

// Installed reports whether the release is more than files that were laid out for somebody else to install.
func (r Release) Installed() bool { return r.Format == manifest.FormatFiles || r.Packages != "" }

// Snapshot is the state of a machine from before a release, kept by a provider of install/snapshot.
type Snapshot struct {
	ID       string    `json:"id"`
	Provider string    `json:"provider"`
	Name     string    `json:"name"` // in the provider's words
	Old      string    `json:"old"`  // the directory of the release that was in force then; empty: none
	Taken    time.Time `json:"taken"`
	Until    time.Time `json:"until"` // not used for going back after that
}

// ReleaseOf names the release that a manifest makes.
func ReleaseOf(m *manifest.Manifest, d manifest.Digest) Release {
	return Release{
		Dir: m.Version + "-" + d.Short(), Bundle: m.Name, Version: m.Version,
		Sequence: m.Sequence, Checksum: d, Format: m.Target.Format,
	}
}

// Floor is the highest sequence accepted so far and the checksum that carried it.
type Floor struct {
	Sequence uint64          `json:"sequence"`
	Checksum manifest.Digest `json:"checksum"`
}

// Trial counts the tries of a checksum that is not in force. Held means: not again by itself.
type Trial struct {
	Checksum manifest.Digest `json:"checksum"`
	Attempts int             `json:"attempts"`
	Held     bool            `json:"held"`
	Reason   string          `json:"reason"`
	Detail   string          `json:"detail"`
}

// Bundle is everything remembered about one name.
type Bundle struct {
	Floor    Floor     `json:"floor"`
	Current  *Release  `json:"current"`
	Previous []Release `json:"previous"` // newest first
	Trial    *Trial    `json:"trial"`
}

// Ledger is the whole memory.
type Ledger struct {
	Schema   string             `json:"schema"`
	Time     time.Time          `json:"time"` // newest signature time of anything that came into force
	Policies map[string]uint64  `json:"policies"`
	Orders   map[string]uint64  `json:"orders,omitempty"` // by bundle name: the last one of an operator that was carried out
	Bundles  map[string]*Bundle `json:"bundles"`

	// What the seeder numbers has floors of its own, which bar nothing of an operator's.
	Delegated map[string]policy.Mark            `json:"delegated,omitempty"` // by policy: the last order of the seeder that was carried out
	Grants    map[string]map[string]policy.Mark `json:"grants,omitempty"`    // by site and policy: the newest grant that was seen
}

// New returns the memory of a machine on which nothing was ever installed.
func New() *Ledger {
	return &Ledger{Schema: Schema, Policies: map[string]uint64{}, Bundles: map[string]*Bundle{}}
}

// Bundle returns the record of a name, empty when there is none.
func (l *Ledger) Bundle(name string) Bundle {
	if b := l.Bundles[name]; b != nil {
		return *b
	}
	return Bundle{}
}

// Admit decides whether a bundle may come into force as far as order is concerned. Sequences only grow; the bundle
// that carries the floor may come back after a rollback, and any other only where the policy allows a downgrade.
func (l *Ledger) Admit(r Release, downgrade bool) error {
	b := l.Bundle(r.Bundle)
	for _, have := range b.known() {
		if have.Version == r.Version && have.Checksum != r.Checksum {
			return problem.New(problem.ChecksumMismatch, "bundle %s %s is %s here, the request has %s", r.Bundle, r.Version, have.Checksum, r.Checksum).
				WithDone("nothing was changed").WithNext("publish the change under a new version and a higher sequence")
		}
	}
	if downgrade {
		return nil
	}
	if r.Sequence < b.Floor.Sequence || (r.Sequence == b.Floor.Sequence && r.Checksum != b.Floor.Checksum) {
		return problem.New(problem.SequenceTooOld, "bundle %s %s has sequence %d, this node has accepted %d", r.Bundle, r.Version, r.Sequence, b.Floor.Sequence).
			WithDone("nothing was changed").WithNext("build it again with a higher sequence if it is really wanted")
	}
	return nil
}

// AdmitPolicy refuses a revision older than one acted on before.
func (l *Ledger) AdmitPolicy(name string, revision uint64) error {
	if have := l.Policies[name]; revision < have {
		return problem.New(problem.SequenceTooOld, "policy %s has revision %d, this node has acted on %d", name, revision, have).
			WithDone("nothing was changed")
	}
	return nil
}

// Attempts is how often a checksum has been tried without coming into force.
func (l *Ledger) Attempts(name string, d manifest.Digest) int {
	if t := l.Bundle(name).Trial; t != nil && t.Checksum == d {
		return t.Attempts
	}
	return 0
}

// Held returns the trial that keeps a checksum from being tried again, nil when there is none.
func (l *Ledger) Held(name string, d manifest.Digest) *Trial {
	if t := l.Bundle(name).Trial; t != nil && t.Checksum == d && (t.Held || t.Attempts >= MaxAttempts) {
		return t
	}
	return nil
}

// Commit puts a release in force: the one before becomes the newest previous, of which keep remain; the floor and
// the time rise and never fall.
func (l *Ledger) Commit(r Release, keep int, signed time.Time) {
	b := l.at(r.Bundle)
	if b.Current == nil || b.Current.Checksum != r.Checksum {
		if b.Current != nil {
			b.Previous = slices.Insert(b.Previous, 0, *b.Current)
		}
	}
	b.Current = &r
	b.Previous = slices.DeleteFunc(b.Previous, func(p Release) bool { return p.Checksum == r.Checksum })
	b.Previous = b.Previous[:min(keep, len(b.Previous))]
	if b.Trial != nil && b.Trial.Checksum == r.Checksum {
		b.Trial = nil
	}
	if r.Sequence > b.Floor.Sequence {
		b.Floor = Floor{r.Sequence, r.Checksum}
	}
	if signed.After(l.Time) {
		l.Time = signed
	}
}

// Accept remembers the newest revision of a policy that was acted on and reports whether that changed anything.
func (l *Ledger) Accept(policy string, revision uint64) bool {
	if policy == "" || revision <= l.Policies[policy] {
		return false
	}
	l.Policies[policy] = revision
	return true
}

// CarryOut remembers that an order about a bundle was carried out and reports whether that changed anything. under is the
// policy of an order of the seeder, with its revision; empty with an operator's.
func (l *Ledger) CarryOut(name string, order uint64, under string, revision uint64) bool {
	if order != 0 && under != "" {
		mark := policy.Mark{Revision: revision, Number: order}
		if !l.Delegated[under].Before(mark) {
			return false
		}
		if l.Delegated == nil {
			l.Delegated = map[string]policy.Mark{}
		}
		l.Delegated[under] = mark
		return true
	}
	if order <= l.Orders[name] {
		return false
	}
	if l.Orders == nil {
		l.Orders = map[string]uint64{}
	}
	l.Orders[name] = order
	return true
}

// Granted remembers the newest grant of a site for a policy and reports whether that changed anything.
func (l *Ledger) Granted(site, name string, mark policy.Mark) bool {
	if !l.Grants[site][name].Before(mark) {
		return false
	}
	if l.Grants == nil {
		l.Grants = map[string]map[string]policy.Mark{}
	}
	if l.Grants[site] == nil {
		l.Grants[site] = map[string]policy.Mark{}
	}
	l.Grants[site][name] = mark
	return true
}

// Fail remembers that a checksum did not come into force and reports whether that changed anything.
func (l *Ledger) Fail(name string, t Trial) bool {
	had := l.Bundle(name).Trial
	if t.Attempts <= 0 && !t.Held {
		if had == nil || had.Checksum != t.Checksum {
			return false
		}
		l.at(name).Trial = nil
		return true
	}
	if had != nil && *had == t {
		return false
	}
	l.at(name).Trial = &t
	return true
}

// Hold keeps a checksum from being installed again by itself: what an operator rolled back stays back.
func (l *Ledger) Hold(name string, d manifest.Digest, reason string) {
	l.at(name).Trial = &Trial{Checksum: d, Attempts: max(1, l.Attempts(name, d)), Held: true, Reason: reason}
}

// Withdraw makes the release in dir old the one in force again where r was, and reports whether that changed
// anything. The floor stays where it is.
func (l *Ledger) Withdraw(r Release, old string) bool {
	b := l.Bundles[r.Bundle]
	if b == nil || b.Current == nil || b.Current.Checksum != r.Checksum {
		return false
	}
	b.Current = nil
	if i := slices.IndexFunc(b.Previous, func(p Release) bool { return p.Dir == old }); i >= 0 {
		p := b.Previous[i]
		b.Current, b.Previous = &p, slices.Delete(b.Previous, i, i+1)
	}
	return true
}

// Back makes the release in dir old the one in force again, after the machine was put back to it, and keeps the one
// that was in force, held back. An old that is empty or not known: nothing is in force. It may be done twice.
func (l *Ledger) Back(r Release, old string, keep int, reason string) {
	if l.Withdraw(r, old) {
		b := l.at(r.Bundle)
		r.Snapshot = nil
		b.Previous = slices.Insert(b.Previous, 0, r)
		b.Previous = b.Previous[:min(keep, len(b.Previous))]
	}
	l.Hold(r.Bundle, r.Checksum, reason)
}

// Snapshots lists the snapshots that releases were kept with, newest first.
func (l *Ledger) Snapshots() []Snapshot {
	var out []Snapshot
	for _, b := range l.Bundles {
		for _, r := range b.known() {
			if r.Snapshot != nil {
				out = append(out, *r.Snapshot)
			}
		}
	}
	slices.SortFunc(out, func(a, b Snapshot) int { return cmp.Or(b.Taken.Compare(a.Taken), cmp.Compare(a.ID, b.ID)) })
	return out
}

// DropSnapshots forgets the snapshots that are not kept, and reports whether that changed anything.
func (l *Ledger) DropSnapshots(keep []string) (changed bool) {
	drop := func(r *Release) {
		if r != nil && r.Snapshot != nil && !slices.Contains(keep, r.Snapshot.ID) {
			r.Snapshot, changed = nil, true
		}
	}
	for _, b := range l.Bundles {
		drop(b.Current)
		for i := range b.Previous {
			drop(&b.Previous[i])
		}
	}
	return changed
}

// Left reports whether the last try of any bundle ended for this reason.
func (l *Ledger) Left(reason string) bool {
	for _, b := range l.Bundles {
		if b.Trial != nil && b.Trial.Reason == reason {
			return true
		}
	}
	return false
}

// Forget drops the trial of a name and reports whether there was one.
func (l *Ledger) Forget(name string) bool {
	if b := l.Bundles[name]; b != nil && b.Trial != nil {
		b.Trial = nil
		return true
	}
	return false
}

// Dirs lists the release directories of a name that must stay.
func (l *Ledger) Dirs(name string) []string {
	b := l.Bundle(name)
	var out []string
	for _, r := range b.known() {
		out = append(out, r.Dir)
	}
	return out
}

func (b Bundle) known() []Release {
	if b.Current == nil {
		return b.Previous
	}
	return slices.Insert(slices.Clone(b.Previous), 0, *b.Current)
}

func (l *Ledger) at(name string) *Bundle {
	b := l.Bundles[name]
	if b == nil {
		b = &Bundle{Previous: []Release{}}
		l.Bundles[name] = b
	}
	return b
}

// Encode writes the sealed file.
func (l *Ledger) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(l, "", " ")
	if err != nil {
		return nil, fmt.Errorf("installed: %w", err)
	}
	return Seal(b), nil
}

// Parse reads a sealed file. Any damage is an error: a machine that forgot its floor is not a fresh machine.
func Parse(b []byte) (*Ledger, error) {
	l := new(Ledger)
	if err := Unseal("installed", b, MaxBytes, l); err != nil {
		return nil, err
	}
	if l.Schema != Schema || l.Policies == nil || l.Bundles == nil {
		return nil, fmt.Errorf("installed: schema %q is not %q, or a part is missing", l.Schema, Schema)
	}
	for name, b := range l.Bundles {
		if !manifest.ValidName(name) || b == nil {
			return nil, fmt.Errorf("installed: bundle %q has no valid record", name)
		}
		for _, r := range b.known() {
			if err := r.Validate(); err != nil || r.Bundle != name {
				return nil, fmt.Errorf("installed: bundle %q: release %q does not fit: %w", name, r.Dir, err)
			}
			if r.Sequence > b.Floor.Sequence {
				return nil, fmt.Errorf("installed: bundle %q: sequence %d is above the floor %d", name, r.Sequence, b.Floor.Sequence)
			}
		}
	}
	return l, nil
}

// Validate checks that a release's names can be used as names of directories.
func (r Release) Validate() error {
	if !manifest.ValidName(r.Bundle) || !manifest.ValidVersion(r.Version) || r.Dir != r.Version+"-"+r.Checksum.Short() {
		return fmt.Errorf("release %q of bundle %q version %q is not well named", r.Dir, r.Bundle, r.Version)
	}
	return nil
}

// ValidDir reports whether s may be the name of a release directory: VERSION-SHORTDIGEST.
func ValidDir(s string) bool {
	const short = 12
	n := len(s) - short - 1
	if n < 1 || s[n] != '-' || !manifest.ValidVersion(s[:n]) {
		return false
	}
	for _, c := range s[n+1:] {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
