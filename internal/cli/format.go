package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/patchmesh/patchmesh/internal/progress"
)

// Bytes writes a size in IEC units: "0 B", "205 MiB", "3.4 GiB".
func Bytes(n int64) string { return progress.FormatBytes(n) }

// Rate writes bytes per second as the bits per second that a link is sold by: "6.0 Mbit/s".
func Rate(bytesPerSecond int64) string {
	bits := float64(bytesPerSecond) * 8
	for _, u := range []string{"bit/s", "kbit/s", "Mbit/s"} {
		if bits < 1000 {
			return fmt.Sprintf("%.3g %s", bits, u)
		}
		bits /= 1000
	}
	return fmt.Sprintf("%.3g Gbit/s", bits)
}

// Age writes how long ago something was, with at most two units: "12s", "5m", "1h51m", "3d04h". A clock that went
// back gives "0s".
func Age(d time.Duration) string {
	switch d = max(d, 0).Truncate(time.Second); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		day := 24 * time.Hour
		return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
	}
}

// Count writes a number with its noun, and the noun's plural for anything but one: "1 node", "3 nodes".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Table prints rows in columns, two blanks apart, in plain ASCII. Cells must not hold tabs or newlines.
type Table struct{ rows [][]string }

// Row appends a row.
func (t *Table) Row(cells ...string) { t.rows = append(t.rows, cells) }

// Right pads a number so that a column of them is flush right.
func Right(width int, s string) string { return fmt.Sprintf("%*s", width, s) }

// WriteTo prints the table and no blanks at the ends of lines.
func (t *Table) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, r := range t.rows {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return 0, err
	}
	var out strings.Builder
	for line := range strings.Lines(b.String()) {
		out.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	n, err := io.WriteString(w, out.String())
	return int64(n), err
}

// Printable replaces what could move the cursor or end a line, because names and reasons come from other machines.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}

// JSON prints one document, indented.
func JSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
