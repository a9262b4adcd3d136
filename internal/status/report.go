package status

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// Report is a durable statement in a node's outbox: an outcome or a change of phase. The node signs Body's bytes
// with its identity key; the seeder keeps each (node, Seq) once.
type Report struct {
	Site string `json:"site"`
	Node string `json:"node"`
	Seq  uint64 `json:"seq"`
	Body []byte `json:"body"` // ReportBody as JSON, exactly as signed
	Sig  []byte `json:"sig"`
}

// ReportBody is what a report says. A reader passes over fields that it does not know: newer nodes say more.
type ReportBody struct {
	Site     string          `json:"site"`
	Node     string          `json:"node"`
	Seq      uint64          `json:"seq"`
	Occurred time.Time       `json:"occurred"`
	Phase    Phase           `json:"phase"`
	Outcome  string          `json:"outcome,omitempty"` // success, deferred, verification_failure, install_failure, rolled_back, rollback_failed
	Reason   string          `json:"reason"`
	Code     string          `json:"code,omitempty"`
	Policy   string          `json:"policy,omitempty"`
	Revision uint64          `json:"revision,omitempty"`
	Bundle   string          `json:"bundle,omitempty"`
	Version  string          `json:"version,omitempty"`
	Checksum manifest.Digest `json:"checksum"`
	Detail   string          `json:"detail,omitempty"` // at most MaxReportDetail
	Order    uint64          `json:"order,omitempty"`  // the operator's order that this is the outcome of, by its sequence

	// While the node is under quarantine, by its own word, and once when that is over.
	Quarantine *Quarantine `json:"quarantine,omitempty"`

	// Of an outcome that is final: what makes the report a receipt.
	Receipt *Receipt `json:"receipt,omitempty"`

	// Of an install: all left out where there is nothing to say.
	Packages []packages.Change `json:"packages,omitempty"` // what changed, at most MaxReportPackages
	More     int               `json:"more,omitempty"`     // how many more changed
	Seconds  int64             `json:"seconds,omitempty"`  // how long the install took; of Staged, from when the bundle was asked for until it was here
	Snapshot string            `json:"snapshot,omitempty"` // of the state before, in the provider's words
	Reboot   []string          `json:"reboot,omitempty"`   // why the machine has to be started again
	Next     *time.Time        `json:"next,omitempty"`     // of a deferral: the next try
	Log      string            `json:"log,omitempty"`      // the last lines of the package manager, at most MaxReportLog
}

// Limits of a report, in bytes unless said otherwise. A usual package takes 90 bytes, so that as many as are allowed fit
// beside the log.
const (
	MaxReportBody     = 24 << 10 // as JSON
	MaxReportPackages = 200      // packages
	MaxReportLog      = 4 << 10
	MaxReportDetail   = 2 << 10
	MaxReboot         = 256 // of Node.Reboot, and of one line of ReportBody.Reboot
	maxReboots        = 8   // lines
	maxWord           = 256
)

// Fit returns the report as it may be sent: text that a terminal can show, and within the limits. What is least missed
// is shortened first: the list of packages, of which More keeps the count, then the beginning of the log, then details.
func (b ReportBody) Fit() ReportBody {
	b.Reason, b.Code, b.Snapshot = word(b.Reason), word(b.Code), word(b.Snapshot)
	b.Detail = Clip(b.Detail, MaxReportDetail)
	b.Log = tail(Clean(b.Log), MaxReportLog)
	if b.Quarantine != nil {
		q := b.Quarantine.Clipped()
		b.Quarantine = &q
	}
	var reboot []string
	for _, r := range b.Reboot[:min(len(b.Reboot), maxReboots)] {
		reboot = append(reboot, word(r))
	}
	b.Reboot = reboot
	if len(b.Packages) > 0 {
		b.Packages = slices.Clone(b.Packages) // the caller's are not ours to change
		for i, c := range b.Packages {
			b.Packages[i] = packages.Change{Name: word(c.Name), Arch: word(c.Arch), From: word(c.From), To: word(c.To)}
		}
		b.keep(MaxReportPackages)
	}
	for b.size() > MaxReportBody {
		switch {
		case len(b.Packages) > 0:
			b.keep(len(b.Packages) * 7 / 8)
		case len(b.Log) > 0:
			b.Log = tail(b.Log, len(b.Log)/2)
		case len(b.Detail) > 0:
			b.Detail = Clip(b.Detail, len(b.Detail)/2)
		default:
			return b // every field left is short
		}
	}
	return b
}

// keep leaves at most n packages in the list.
func (b *ReportBody) keep(n int) {
	if over := len(b.Packages) - n; over > 0 {
		b.Packages, b.More = b.Packages[:n], b.More+over
	}
}

func (b *ReportBody) size() int {
	j, err := json.Marshal(b)
	if err != nil {
		return 0 // a time beyond the year 9999: whoever signs it says so
	}
	return len(j)
}

func word(s string) string { return strings.Map(oneLine, Clip(s, maxWord)) }

func oneLine(r rune) rune {
	if r == '\n' || r == '\t' {
		return ' '
	}
	return r
}

// Clean makes text one that a terminal shows as it is: valid UTF-8, with no control characters but ends of lines and
// tabs. What a program wrote over on its line stands on lines of its own.
func Clean(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\r':
			return '\n'
		case r == '\n' || r == '\t' || unicode.IsPrint(r) && r != utf8.RuneError:
			return r
		}
		return '?'
	}, s)
}

// Clip is text, cleaned, in at most so many bytes.
func Clip(s string, most int) string {
	s = Clean(s)
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// tail is the end of cleaned text in at most so many bytes, beginning with a line where one begins.
func tail(s string, most int) string {
	if len(s) <= most {
		return s
	}
	s = s[len(s)-most:]
	if i := strings.IndexByte(s, '\n'); i >= 0 && i < len(s)-1 {
		return s[i+1:]
	}
	for len(s) > 0 && !utf8.RuneStart(s[0]) {
		s = s[1:]
	}
	return s
}
