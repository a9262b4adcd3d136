package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// quarantine is what a node holds against itself, the last one: something that it was to install, or has installed, did
// not verify. From the next cycle on it fetches, serves and reports as before and starts no new installation, of no
// bundle. What the executor has begun it finishes, and going back is always allowed: that leads to what was good.
//
// It ends by a check that finds nothing, or by a person's signed order. The check is the executor's (install.Audit): every
// release that is in force or kept is read whole and compared with what was signed; and if a policy still asks for the
// bundle that it is about, that too is verified as an install would do it, byte for byte in the store.
//
// Pure: a value, and rules that return the next one. It is kept in STATE/quarantine.json, written before it is acted on.
type quarantine struct {
	Schema   string          `json:"schema"`
	ID       string          `json:"id"`
	Reason   string          `json:"reason"`
	Code     problem.Code    `json:"code"`
	Detail   string          `json:"detail"`
	Bundle   string          `json:"bundle"`
	Version  string          `json:"version"`
	Checksum manifest.Digest `json:"checksum"`
	Since    time.Time       `json:"since"` // by the node's clock
	Checks   int             `json:"checks"`
	Found    string          `json:"found"`          // by the last check
	Next     time.Time       `json:"next"`           // of the next check; zero: at once
	Ended    time.Time       `json:"ended,omitzero"` // zero: it is in force
	By       string          `json:"by"`
	Why      string          `json:"why"`
	Told     bool            `json:"told"` // a report of it, and of its end, is in the outbox or was
}

const (
	quarantineSchema = "patchmesh.io/quarantine/v1"
	quarantineName   = "quarantine.json"
	maxQuarantine    = 16 << 10 // bytes of the file

	// ReasonQuarantined: an installation waits for the end of the node's quarantine.
	ReasonQuarantined     = "Quarantined"
	reasonQuarantineEnded = "QuarantineEnded"
	reasonVerifiedAgain   = "VerifiedAgain"
	byCheck               = "check"
)

// failure is something that did not verify.
type failure struct {
	id       string // that a new quarantine takes: another one each time
	at       time.Time
	code     problem.Code
	reason   string
	detail   string
	bundle   string
	version  string
	checksum manifest.Digest
}

// distrusts are the codes of bytes that are not what was signed. A bundle that is genuine, and is too old, revoked, for
// another machine or not wanted here, is refused and says nothing against the node.
func distrusts(c problem.Code) bool {
	switch c {
	case problem.ChecksumMismatch, problem.SignatureInvalid, problem.ChunkCorrupt, problem.IndexInvalid, problem.ManifestInvalid:
		return true
	}
	return false
}

// failureOf reads a result of the executor: false if it accuses nobody.
func failureOf(r install.Result) (failure, bool) {
	f := failure{code: r.Code, reason: r.Reason, detail: r.Detail, bundle: r.Bundle, version: r.Version}
	if r.Checksum != nil {
		f.checksum = *r.Checksum
	}
	return f, r.Outcome == install.VerificationFailure && distrusts(r.Code)
}

// held reports whether the quarantine is in force.
func (q quarantine) held() bool { return q.ID != "" && q.Ended.IsZero() }

// fail notes a failure. The first one stands; one more is shown as what was found last.
func (q quarantine) fail(now time.Time, f failure) quarantine {
	if q.held() {
		q.Found = clip(fmt.Sprintf("again: %s (%s) of %s %s", f.reason, f.code, f.bundle, f.version), maxMessage)
		return q
	}
	since := f.at.UTC().Truncate(time.Microsecond)
	if !since.After(q.Ended) { // the clock was set back; who reads the reports goes by the order of these times
		since = q.Ended.Add(time.Microsecond)
	}
	return quarantine{Schema: quarantineSchema, ID: f.id, Reason: clip(f.reason, maxMessage), Code: f.code, Detail: clip(f.detail, maxMessage),
		Bundle: clip(f.bundle, maxMessage), Version: clip(f.version, maxMessage), Checksum: f.checksum, Since: since, Next: now.Add(retryFirst)}
}

// due reports whether it is time to check. A clock that was set back does not make it wait for longer than it would.
func (q quarantine) due(now time.Time) bool {
	return q.held() && (!now.Before(q.Next) || q.Next.Sub(now) > retryMost)
}

// begin counts a check that is begun now, and says when the next one would be should nothing come of it.
func (q quarantine) begin(now time.Time) quarantine {
	q.Checks = min(q.Checks, math.MaxInt32) + 1
	q.Next = now.Add(q.pause())
	return q
}

// pause is the wait before another check: longer each time, an hour at most.
func (q quarantine) pause() time.Duration {
	return min(retryMost, retryFirst<<min(max(q.Checks-1, 0), 10))
}

// checked takes the answer to a check of the quarantine with this identity. Only a clean bill ends it: what could not be
// looked at, or by whom, is no yes.
func (q quarantine) checked(at time.Time, id string, r install.Result) quarantine {
	if !q.held() || q.ID != id {
		return q
	}
	if r.Outcome == install.Success && r.Reason == install.ReasonVerified {
		return q.end(at, byCheck, r.Detail)
	}
	q.Found = clip(r.Reason+": "+r.Detail, maxMessage)
	return q
}

// release ends the quarantine that a person's order names, and no other.
func (q quarantine) release(at time.Time, o *order.Order) quarantine {
	if !q.held() || o.Kind != order.Release || o.Quarantine != q.ID {
		return q
	}
	return q.end(at, fmt.Sprintf("order %d", o.Sequence), o.Reason)
}

func (q quarantine) end(at time.Time, by, why string) quarantine {
	if at = at.UTC().Truncate(time.Microsecond); at.Before(q.Since) { // the clock was set back
		at = q.Since
	}
	q.Ended, q.By, q.Why, q.Told, q.Next = at, by, clip(why, maxMessage), false, time.Time{}
	return q
}

// hurry has the next check made at once: what it would find may have changed.
func (q quarantine) hurry() quarantine {
	if q.held() {
		q.Next = time.Time{}
	}
	return q
}

// about reports whether the quarantine is about what a life is to install.
func (q quarantine) about(l *Life) bool {
	return l != nil && l.Target != nil && l.Target.Bundle == q.Bundle && l.Target.Checksum == q.Checksum
}

// verified: what a life is to install did not verify, and does now. It is tried again, the first time at once. It reports a
// change of phase.
func (l *Life) verified(now time.Time) bool {
	if Final(l.Phase) && (l.Phase != status.Quarantined || !distrusts(l.Code)) {
		return false
	}
	if l.Next = now; l.Tries > 1 {
		l.Next = now.Add(min(retryMost, retryFirst<<min(l.Tries-1, 10)))
	}
	if l.Phase != status.Quarantined {
		return false
	}
	l.Phase, l.Reason, l.Code, l.Detail, l.Outcome, l.Order = status.Pending, reasonVerifiedAgain, "", "", "", 0
	return true
}

// say is the quarantine for statements and reports.
func (q quarantine) say() *status.Quarantine {
	s := status.Quarantine{ID: q.ID, Reason: q.Reason, Code: string(q.Code), Detail: q.Detail, Bundle: q.Bundle, Version: q.Version, Checksum: q.Checksum,
		Since: q.Since, Found: q.Found, By: q.By, Why: q.Why}
	if !q.held() {
		at := q.Ended
		s.Ended = &at
	} else if at := q.Next.UTC().Truncate(time.Second); !q.Next.IsZero() {
		s.Next = &at
	}
	s = s.Clipped()
	return &s
}

// encode writes the file.
func (q quarantine) encode() ([]byte, error) { return json.Marshal(q) }

// decodeQuarantine reads the file strictly.
func decodeQuarantine(b []byte) (q quarantine, err error) {
	bad := func(f string, a ...any) (quarantine, error) {
		return quarantine{}, fmt.Errorf("quarantine: "+f, a...)
	}
	if len(b) > maxQuarantine {
		return bad("%d bytes: at most %d", len(b), maxQuarantine)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return bad("%w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return bad("something follows the document")
	}
	switch {
	case q.Schema != quarantineSchema:
		return bad("schema %q is not %q", q.Schema, quarantineSchema)
	case !order.ValidQuarantine(q.ID):
		return bad("identity %.40q is not one", q.ID)
	case q.Reason == "" || q.Code == "" || q.Since.IsZero():
		return bad("reason, code or time are missing")
	case q.Checks < 0:
		return bad("%d checks", q.Checks)
	case !q.Ended.IsZero() && q.Ended.Before(q.Since):
		return bad("it ends before it begins")
	}
	return q, nil
}
