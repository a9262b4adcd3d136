package install

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// Exit statuses of mesh-install, as the scripts it replaces had them.
const (
	ExitDone           = 0 // done, or nothing to do
	ExitDeferred       = 1 // nothing was changed; try again later, or after what Detail names is put right
	ExitChecksum       = 2 // bytes are not what was signed: E2101, E2103, E2104
	ExitSignature      = 3 // not authorised for this machine: E2102, E2105, E2106, E1102, E1301, E1203
	ExitRolledBack     = 4 // the install failed and what was in force before is in force again
	ExitRollbackFailed = 5 // the way back failed as well, and "recover" tries again; or there was none, by the policy's will
)

// Outcome is what became of a request, in the words of status.ReportBody.
type Outcome string

// The outcomes.
const (
	Success             Outcome = "success"
	Deferred            Outcome = "deferred"
	VerificationFailure Outcome = "verification_failure"
	InstallFailure      Outcome = "install_failure"
	RolledBack          Outcome = "rolled_back"
	RollbackFailed      Outcome = "rollback_failed"
)

// Reasons beside those that a journal.Fault brings.
const (
	ReasonInstalled        = "Installed"
	ReasonNothingToDo      = "NothingToDo"
	ReasonInstallerMissing = "InstallerMissing" // of the daemon: it was told of no program to call
	ReasonLocked           = "Locked"
	ReasonDiskFull         = "DiskFull"
	ReasonNotStaged        = "NotStaged"
	ReasonInterrupted      = "Interrupted"
	ReasonStateDamaged     = "StateDamaged"
	ReasonUnusable         = "Unusable" // configuration, request or command line
	ReasonHealthCheck      = "HealthCheck"
	ReasonTooManyAttempts  = "TooManyAttempts"
	ReasonOperator         = "RolledBackByOperator"
	ReasonRebootPending    = "RebootPending"
	ReasonUnresolved       = "ClosureIncomplete" // something that is needed is not in the bundle
	ReasonRefused          = "PlanRefused"       // the package manager would do what the bundle does not allow
	ReasonBroken           = "DatabaseBroken"    // the machine's packages were not in order before
	ReasonPlanChanged      = "PlanChanged"
	ReasonUntrusted        = "PackageUntrusted"
	ReasonScript           = "ScriptFailed"
	ReasonNotAsForeseen    = "NotAsForeseen"    // the tool was content, and the machine is not as it should be
	ReasonNoSnapshot       = journal.NoSnapshot // it failed and nothing could be put back
	ReasonForgotten        = "FailuresForgotten"
	ReasonHeldBack         = "HeldBackByOperator" // before it was ever in force
	ReasonOrderTooOld      = "OrderTooOld"
	ReasonRevoked          = "BundleRevoked"
	ReasonCarriedOut       = "CarriedOutAlready"
	ReasonNoted            = "Noted" // of a notice: see NewNotice
	ReasonNoWayBack        = "NothingToGoBackTo"
	ReasonStale            = "RequestStale" // of an earlier run of the machine
	ReasonVerified         = "Verified"     // of an audit
)

// MaxResultBytes bounds what DecodeResult reads.
const MaxResultBytes = 4 << 20

// KindResult is the Kind of a Result.
const KindResult = "InstallResult"

// Result is what mesh-install prints. Fields may be added, never renamed or removed.
type Result struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	ID         string           `json:"id,omitempty"` // in Results: the request's, or one of its own
	Outcome    Outcome          `json:"outcome"`
	Exit       int              `json:"exit"`
	Phase      status.Phase     `json:"phase"`
	Reason     string           `json:"reason"`
	Code       problem.Code     `json:"code,omitempty"`
	Detail     string           `json:"detail,omitempty"`
	Bundle     string           `json:"bundle,omitempty"`
	Version    string           `json:"version,omitempty"`
	Sequence   uint64           `json:"sequence,omitempty"`
	Checksum   *manifest.Digest `json:"checksum,omitempty"`
	Installed  *ledger.Release  `json:"installed,omitempty"` // in force now, of this bundle name
	Previous   *ledger.Release  `json:"previous,omitempty"`  // in force before it
	Attempts   int              `json:"attempts,omitempty"`  // of this checksum, this one included
	Chunk      string           `json:"chunk,omitempty"`     // the chunk that is damaged or missing in the store
	Recovered  string           `json:"recovered,omitempty"` // what became of a transaction that an earlier run left
	Open       bool             `json:"open,omitempty"`      // not over: the journal is kept, and the next run goes on
	Isolation  string           `json:"isolation"`           // "network namespace", or "none: " and why
	Order      uint64           `json:"order,omitempty"`     // the operator's order that asked for it

	// Of packages; all left out where there is nothing to say.
	Changes  []packages.Change `json:"changes,omitempty"`  // what changed and stayed so
	Kept     []manager.Kept    `json:"kept,omitempty"`     // of the bundle, left alone, and why
	Findings []string          `json:"findings,omitempty"` // what was not as it should be, whatever the exit status was
	Snapshot string            `json:"snapshot,omitempty"` // of the state before
	Reboot   []string          `json:"reboot,omitempty"`   // why the machine has to be started again
	Seconds  int64             `json:"seconds,omitempty"`  // how long it took
	Log      string            `json:"log,omitempty"`      // the last lines of the package manager
	Next     *time.Time        `json:"next,omitempty"`     // of a deferral: when to ask again; absent: the daemon chooses

	// For receipts.
	Started    time.Time        `json:"started,omitzero"`     // by this machine's clock: of the transaction, or of a run without one
	Ended      time.Time        `json:"ended,omitzero"`       // the same
	Before     *ledger.Release  `json:"before,omitempty"`     // in force of this bundle name when the transaction began
	PackageSet *manifest.Digest `json:"packageSet,omitempty"` // of all packages of the machine after a transaction of packages: packages.SetDigest
}

// WriteJSON writes the result as one JSON document.
func (r Result) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// WriteText writes the result for a person.
func (r Result) WriteText(w io.Writer) error {
	var b strings.Builder
	if r.Bundle != "" {
		fmt.Fprintf(&b, "%s %s: ", r.Bundle, r.Version)
	}
	fmt.Fprintf(&b, "%s, %s", r.Outcome, r.Reason)
	if r.Code != "" {
		fmt.Fprintf(&b, " (%s)", r.Code)
	}
	if r.Detail != "" {
		fmt.Fprintf(&b, "\n  why: %s", r.Detail)
	}
	if r.Installed != nil {
		fmt.Fprintf(&b, "\n  in force: %s, sequence %d", r.Installed.Version, r.Installed.Sequence)
	}
	for _, c := range r.Changes {
		fmt.Fprintf(&b, "\n  changed: %s %s -> %s", c.ID(), cmp.Or(c.From, "nothing"), cmp.Or(c.To, "gone"))
	}
	for _, k := range r.Kept {
		fmt.Fprintf(&b, "\n  left alone: %s %s, %s", k.ID(), k.Version, k.Why)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n  found: %s", f)
	}
	if r.Snapshot != "" {
		fmt.Fprintf(&b, "\n  snapshot: %s", r.Snapshot)
	}
	for _, why := range r.Reboot {
		fmt.Fprintf(&b, "\n  needs a start of the machine: %s", why)
	}
	if r.Next != nil {
		fmt.Fprintf(&b, "\n  next try: %s", r.Next.UTC().Format(time.RFC3339))
	}
	if r.Recovered != "" {
		fmt.Fprintf(&b, "\n  recovered: %s", r.Recovered)
	}
	_, err := fmt.Fprintf(w, "%s\n  isolation: %s\n", b.String(), r.Isolation)
	return err
}

// DecodeResult reads what WriteJSON wrote, for the daemon that called mesh-install.
func DecodeResult(b []byte) (Result, error) {
	var r Result
	if len(b) > MaxResultBytes {
		return r, fmt.Errorf("install result of %d bytes is too large", len(b))
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("install result: %w", err)
	}
	if err := r.validate(); err != nil {
		return r, fmt.Errorf("install result: %w", err)
	}
	return r, nil
}

func (r Result) validate() error {
	if r.Kind != KindResult || r.Outcome == "" || r.Phase == "" {
		return fmt.Errorf("kind %q with outcome %q and phase %q", r.Kind, r.Outcome, r.Phase)
	}
	return nil
}

// maxDetail bounds Detail in bytes; a report has room for 2 KiB.
const maxDetail = 1024

func newResult(o Outcome, exit int, phase status.Phase, reason string) Result {
	return Result{APIVersion: status.APIVersion, Kind: KindResult, Outcome: o, Exit: exit, Phase: phase, Reason: reason}
}

func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "")
	}
	return s
}

// Unusable is the result when the command line, the configuration or the request cannot be used.
func Unusable(err error) Result {
	r := newResult(Deferred, ExitDeferred, status.Deferred, ReasonUnusable)
	r.Code, r.Detail = problem.CodeOf(err), clip(err.Error())
	return r
}

// Cut is the result when the worker was killed: what it left is taken up by the next run.
func Cut(err error) Result {
	r := newResult(Deferred, ExitDeferred, status.Deferred, ReasonInterrupted)
	r.Code, r.Detail = problem.InstallFailed, clip(err.Error())
	return r
}
