// Package window says when an install may start: maintenance windows in a time zone, dates on which nothing starts,
// and how long before the end a start is too late. It limits starts only; what has started finishes. The rules W1 to
// W7 are those of the design's policy.md, section 2.
//
// It does not know whose clock it is and does not correct it: that is for the caller (W6).
//
// Pure: time and zone are handed in. Safe for concurrent use.
package window

import "time"

// Reason is why nothing may start now, of the closed list of reasons for a deferral.
type Reason string

// The reasons.
const (
	Closed   Reason = "WindowClosed" // no window is open, or too little of it is left
	Blackout Reason = "Blackout"
	TooEarly Reason = "NotBefore"
)

// Verdict is the answer for one instant.
type Verdict struct {
	Start  bool      // an install may start now
	Reason Reason    // why not; empty when it may
	Text   string    // the same for a person: "Tue 02:00-04:00 America/New_York", "Black Friday"
	Opens  time.Time // of the window that is open, or of the next one; zero: it has been open for more than a week
	Closes time.Time // its end; zero: it stays open for more than two weeks
	Next   time.Time // when not: the first instant at which one may; zero: none within two years
}
