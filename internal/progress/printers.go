package progress

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// How often a running stage is printed. A bar should move; a log should not fill up.
const (
	barEvery   = 100 * time.Millisecond
	linesEvery = 10 * time.Second
	jsonEvery  = time.Second
)

// Bar returns a printer for a terminal of width() columns: one line that is drawn over.
func Bar(w io.Writer, width func() int) Printer { return bar{w, width} }

type bar struct {
	w     io.Writer
	width func() int
}

func (bar) Every() time.Duration { return barEvery }

const barCells = 24

func (b bar) Print(s Snapshot) {
	line := fmt.Sprintf("%-12s ", s.Stage)
	if s.Total > 0 {
		full := int(min(s.Done, s.Total) * barCells / s.Total)
		line += fmt.Sprintf("[%s%s] %3d %%  ", strings.Repeat("#", full), strings.Repeat(".", barCells-full), percent(s))
	}
	line += amount(s) + rate(s)
	if s.State == Stopped {
		line += "  stopped"
	}
	if cols := b.width(); cols > 1 && len(line) >= cols {
		line = line[:cols-1]
	}
	end := ""
	if s.State == Done || s.State == Stopped {
		end = "\n"
	}
	fmt.Fprintf(b.w, "\r\x1b[K%s%s", line, end)
}

// Lines returns a printer for a log: a line now and then, and one at the end.
func Lines(w io.Writer) Printer { return lines{w} }

type lines struct{ w io.Writer }

func (lines) Every() time.Duration { return linesEvery }

func (l lines) Print(s Snapshot) {
	switch s.State {
	case Started: // its end is soon enough
	case Running:
		of := ""
		if s.Total > 0 {
			of = fmt.Sprintf(" (%d %%)", percent(s))
		}
		fmt.Fprintf(l.w, "%s: %s%s%s\n", s.Stage, amount(s), of, rate(s))
	case Done:
		fmt.Fprintf(l.w, "%s: done, %s in %.1f s\n", s.Stage, amount(s), s.Elapsed.Seconds())
	case Stopped:
		fmt.Fprintf(l.w, "%s: stopped at %s\n", s.Stage, amount(s))
	}
}

// JSON returns a printer for programs: one object a line.
func JSON(w io.Writer) Printer { return events{json.NewEncoder(w)} }

type events struct{ enc *json.Encoder }

func (events) Every() time.Duration { return jsonEvery }

// Event is one line of the JSON printer.
type Event struct {
	Event     string `json:"event"` // always "progress"
	Stage     string `json:"stage"`
	State     State  `json:"state"`
	Done      int64  `json:"done"`
	Total     int64  `json:"total"` // 0 if not known
	Unit      Unit   `json:"unit"`
	ElapsedMS int64  `json:"elapsedMs"`
}

func (e events) Print(s Snapshot) {
	e.enc.Encode(Event{"progress", s.Stage, s.State, s.Done, s.Total, s.Unit, s.Elapsed.Milliseconds()})
}

func percent(s Snapshot) int64 { return min(s.Done, s.Total) * 100 / s.Total }

func amount(s Snapshot) string {
	one := func(n int64) string {
		if s.Unit == Bytes {
			return FormatBytes(n)
		}
		return fmt.Sprint(n)
	}
	text := one(s.Done)
	if s.Total > 0 && s.Done != s.Total {
		text += " of " + one(s.Total)
	}
	if s.Unit != Bytes {
		text += " " + string(s.Unit)
	}
	return text
}

func rate(s Snapshot) string {
	if s.Unit != Bytes || s.Elapsed < time.Second {
		return ""
	}
	return "  " + FormatBytes(int64(float64(s.Done)/s.Elapsed.Seconds())) + "/s"
}

// FormatBytes writes a size in IEC units: "0 B", "205 MiB", "3.4 GiB". Two digits at least from KiB on, rounded to nearest.
func FormatBytes(n int64) string {
	if n < 0 {
		return "-" + FormatBytes(-n)
	}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	const units = "KMGTPE"
	v, unit := float64(n), -1
	for v >= 1023.5 && unit < len(units)-1 {
		v /= 1024
		unit++
	}
	if v < 9.95 {
		return fmt.Sprintf("%.1f %ciB", v, units[unit])
	}
	return fmt.Sprintf("%.0f %ciB", v, units[unit])
}
