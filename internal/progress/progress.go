// Package progress shows long work to whoever waits for it: one counter, three printers. A Reporter counts and
// decides when to print; a Printer knows the form: a bar on a terminal, a line now and then elsewhere, JSON events for
// programs. Progress goes to standard error, answers go to standard output.
//
// A nil *Reporter is valid and does nothing. All methods are safe for concurrent use.
package progress

import (
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// Unit says what is counted.
type Unit string

// The units.
const (
	Bytes  Unit = "bytes"
	Files  Unit = "files"
	Chunks Unit = "chunks"
)

// State is where a stage is in its life.
type State string

// The states.
const (
	Started State = "started"
	Running State = "running"
	Done    State = "done"
	Stopped State = "stopped" // given up before it was done
)

// Snapshot is what a printer prints.
type Snapshot struct {
	Stage   string
	State   State
	Done    int64
	Total   int64 // 0 if not known
	Unit    Unit
	Elapsed time.Duration // since the stage began
}

// Printer prints snapshots.
type Printer interface {
	// Print is never called concurrently.
	Print(Snapshot)
	// Every is the least time between two snapshots of a running stage.
	Every() time.Duration
}

// Reporter counts the progress of one stage after another.
type Reporter struct {
	printer Printer
	now     func() time.Time

	mu      sync.Mutex // owns everything below
	cur     Snapshot
	open    bool
	began   time.Time
	printed time.Time
}

// New returns a reporter that reads the time from now.
func New(p Printer, now func() time.Time) *Reporter { return &Reporter{printer: p, now: now} }

// For returns the usual reporter for an output: JSON events if asked for, a bar on a terminal, else lines.
func For(w io.Writer, json bool) *Reporter {
	f, isFile := w.(*os.File)
	switch {
	case json:
		return New(JSON(w), time.Now)
	case isFile && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb":
		return New(Bar(w, func() int {
			width, _, err := term.GetSize(int(f.Fd()))
			if err != nil {
				return 80
			}
			return width
		}), time.Now)
	default:
		return New(Lines(w), time.Now)
	}
}

// Stage begins a stage of total units, 0 if that is not known, and ends the one before it.
func (r *Reporter) Stage(name string, total int64, unit Unit) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end(Done)
	r.began = r.now()
	r.cur = Snapshot{Stage: name, State: Started, Total: total, Unit: unit}
	r.open = true
	r.print()
}

// Add counts n more units.
func (r *Reporter) Add(n int64) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.open {
		return
	}
	r.cur.Done += n
	if r.now().Sub(r.printed) >= r.printer.Every() {
		r.cur.State = Running
		r.print()
	}
}

// Done ends the stage.
func (r *Reporter) Done() { r.finish(Done) }

// Stop ends the stage if it is not done: call it before an error is printed.
func (r *Reporter) Stop() { r.finish(Stopped) }

func (r *Reporter) finish(s State) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end(s)
}

func (r *Reporter) end(s State) {
	if r.open {
		r.cur.State = s
		r.print()
		r.open = false
	}
}

func (r *Reporter) print() {
	r.printed = r.now()
	r.cur.Elapsed = r.printed.Sub(r.began)
	r.printer.Print(r.cur)
}
