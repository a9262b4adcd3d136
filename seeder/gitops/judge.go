package gitops

import (
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// MaxAhead is how far a commit's time may lie in the seeder's future: a node takes no older one after it.
const MaxAhead = 10 * time.Minute

// Facts are what Judge has to know of a commit that the branch has now.
type Facts struct {
	Commit  *policy.Commit
	Signers []string // who signed it, by the keys that may sign policies
	Keys    []string // fingerprints in its keys/
	Now     time.Time

	Last     string // commit in force; "" for the first
	LastTime time.Time
	LastKeys []string // fingerprints in keys/ of the commit in force; they narrow who may sign the next
	Descends bool     // from Last
	Policy   []string // fingerprints that may sign policies at all
}

// Judge says why a commit may not follow the one in force, as a *problem.Error, or nil.
func Judge(f Facts) error {
	no := func(format string, args ...any) error { return refused(f.Commit.ID, format, args...) }
	narrow := f.LastKeys
	if f.Last == "" {
		narrow = f.Keys
	}
	switch {
	case f.Last != "" && !f.Descends:
		return refused(f.Commit.ID, "it does not come after %.12s, which is in force", f.Last).
			WithNext("the branch was rewritten: put the commit in force back into its history, for example by a merge")
	case f.Last != "" && !f.Commit.Time.After(f.LastTime):
		return no("its time %s is not later than that of the commit in force, %s", date(f.Commit.Time), date(f.LastTime))
	case f.Commit.Time.After(f.Now.Add(MaxAhead)):
		return no("its time %s is in the future", date(f.Commit.Time))
	case len(narrow) > 0 && !slices.ContainsFunc(f.Signers, func(s string) bool { return slices.Contains(narrow, s) }):
		return no("it is signed by %v, who is not in keys/", f.Signers)
	case len(f.Keys) > 0 && !slices.ContainsFunc(f.Keys, func(s string) bool { return slices.Contains(f.Policy, s) }):
		return no("none of its keys/ may sign policies: nobody could sign the next commit")
	}
	return nil
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Older says why a policy may not follow the one that it takes the place of, or nil: it asks for a bundle with a lower
// sequence, and neither reverts nor allows that.
func Older(next *policy.Policy, sequence, inForce uint64) error {
	if sequence >= inForce || next.Downgrade { // as what reverts does, see policy.Document.Parse
		return nil
	}
	return problem.New(problem.SequenceTooOld, "policy %s: bundle %s %s has sequence %d, the one in force has %d", next.Name, next.Bundle.Name, next.Bundle.Version, sequence, inForce).
		WithDone("the policy was not applied").
		WithNext("revert the commit that brought the newer one (git revert says which in its message), or set allowDowngrade: true")
}
