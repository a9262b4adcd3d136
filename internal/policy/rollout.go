package policy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Rollout says in which order and how fast the nodes of a policy take a bundle, and when that has to stop. A policy
// without one has no order: each node starts when its own schedule lets it.
type Rollout struct {
	Batch            Size          // nodes, or sites, of a batch, of all time zones together; zero: all are one batch
	BatchDelay       time.Duration // between two batches
	FromStarted      bool          // delayFrom: Started counts it from the start of the batch before, Settled (default) from its end
	BySite           bool          // batchBy: Site, a batch is whole sites
	MaxUnavailable   Size          // nodes of one site that may be out of service at once; default 25 %, at least 1
	Canary           *Canary       // nil: none
	Budget           Budget
	ProgressDeadline time.Duration // a node that was let start and is not done by then settles as Deferred or Lost; default 60 min
	Strict           bool          // gating: Strict, a node needs a grant younger than GrantFresh
}

// Canary is the nodes that go first.
type Canary struct {
	Selector Selector
	Soak     time.Duration // after the last of them has settled
	Manual   bool          // promote: Manual, a person lets the rollout go on
}

// Budget is how many nodes may fail.
type Budget struct {
	Max        Size // of the nodes that have started and settled; default 2 %. More than that stops the rollout
	MinSamples int  // before so many have settled a percentage says nothing; default 20
	MaxPerSite int  // failures of one site; more than that stops the site, by itself; default 1
	Rollback   bool // onExceeded: Rollback, those of this revision go back; otherwise the rollout pauses
}

// Defaults and limits of a rollout.
const (
	MaxCount                = 1_000_000 // of a Size
	DefaultMaxUnavailable   = 25        // percent
	DefaultBudget           = 2         // percent
	DefaultMinSamples       = 20
	DefaultProgressDeadline = time.Hour
	GrantFresh              = 5 * time.Minute // how old a grant may be under gating: Strict
)

// Size is a number, or a share of one. The zero value is no limit, or the default of its field.
type Size struct {
	Count   int
	Percent int // 1 to 100; Count is then 0
}

// IsZero reports whether nothing was said.
func (s Size) IsZero() bool { return s == Size{} }

// Of is the size of n things: percentages round down, but at least to 1 (of nothing it is 0).
func (s Size) Of(n int) int {
	if s.Percent > 0 {
		return min(n, max(1, n*s.Percent/100))
	}
	return s.Count
}

// String is the form that ParseSize reads.
func (s Size) String() string {
	if s.Percent > 0 {
		return strconv.Itoa(s.Percent) + "%"
	}
	return strconv.Itoa(s.Count)
}

// ParseSize reads "100" or "5%".
func ParseSize(text string) (s Size, err error) {
	into, most := &s.Count, MaxCount
	number, percent := strings.CutSuffix(text, "%")
	if percent {
		into, most = &s.Percent, 100
	}
	if *into, err = strconv.Atoi(number); err != nil || *into < 1 || *into > most || number[0] == '+' {
		return Size{}, fmt.Errorf("%.40q is not a size: want a number from 1, or a percentage such as 5%%", text)
	}
	return s, nil
}

// Selector picks nodes by their labels: everything in it must hold. One that is empty picks nothing, unless All is set.
type Selector struct {
	All         bool
	Labels      map[string]string
	Expressions []Expression
}

// Expression is one condition of matchExpressions, as in Kubernetes.
type Expression struct {
	Key      string
	Operator Operator
	Values   []string // of In and NotIn
}

// Operator of an Expression.
type Operator string

// The operators. NotIn and DoesNotExist also hold for a node without the label.
const (
	In           Operator = "In"
	NotIn        Operator = "NotIn"
	Exists       Operator = "Exists"
	DoesNotExist Operator = "DoesNotExist"
)

// IsZero reports whether the selector says nothing.
func (s Selector) IsZero() bool { return !s.All && len(s.Labels) == 0 && len(s.Expressions) == 0 }

// Matches reports whether the selector picks a node with these labels.
func (s Selector) Matches(labels map[string]string) bool {
	for k, want := range s.Labels {
		if have, ok := labels[k]; !ok || have != want {
			return false
		}
	}
	for _, e := range s.Expressions {
		if !e.holds(labels) {
			return false
		}
	}
	return !s.IsZero()
}

// String writes the selector as Kubernetes does: env=prod,ring in (a,b),!frozen.
func (s Selector) String() string {
	var parts []string
	if s.All {
		parts = append(parts, "every node")
	}
	for _, k := range slices.Sorted(maps.Keys(s.Labels)) {
		parts = append(parts, k+"="+s.Labels[k])
	}
	for _, e := range s.Expressions {
		switch e.Operator {
		case In, NotIn:
			parts = append(parts, fmt.Sprintf("%s %s (%s)", e.Key, strings.ToLower(string(e.Operator)), strings.Join(e.Values, ",")))
		case Exists:
			parts = append(parts, e.Key)
		case DoesNotExist:
			parts = append(parts, "!"+e.Key)
		}
	}
	return strings.Join(parts, ",")
}

func (e Expression) holds(labels map[string]string) bool {
	have, ok := labels[e.Key]
	listed := false
	for _, v := range e.Values {
		listed = listed || v == have
	}
	switch e.Operator {
	case In:
		return ok && listed
	case NotIn:
		return !ok || !listed
	case Exists:
		return ok
	case DoesNotExist:
		return !ok
	}
	return false
}

// Staging says when the bundle has to be at the sites.
type Staging struct {
	StartBefore         time.Duration // how long before the window it begins; 0: at once
	RequireBeforeWindow bool          // a site that is not staged when its window opens waits for the next one
}

// FastTrack lets a new revision go without a canary.
type FastTrack struct {
	CVE       string
	Approvers []string // at least two
}
