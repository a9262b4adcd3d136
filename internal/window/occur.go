package window

import (
	"iter"
	"time"

	"github.com/patchmesh/patchmesh/internal/wall"
)

// Occurrence is a window on the date on which it begins: [Opens, Closes).
type Occurrence struct {
	Window        Window
	Date          wall.Date
	Opens, Closes time.Time
}

// Exists is false where changing the clocks has left nothing of it (rule W4).
func (o Occurrence) Exists() bool { return o.Opens.Before(o.Closes) }

// Length is how long it is; 0 if it does not exist.
func (o Occurrence) Length() time.Duration { return max(0, o.Closes.Sub(o.Opens)) }

// Occurrences are those of all windows that begin on a date from first to last, in the order of dates, and also the ones
// that do not exist.
func (s Set) Occurrences(zone *time.Location, first, last wall.Date) iter.Seq[Occurrence] {
	return func(yield func(Occurrence) bool) {
		for k := range first.Until(last) + 1 {
			d := first.Add(k)
			for _, w := range s {
				if !w.Days.Has(d.Weekday()) {
					continue
				}
				o := Occurrence{Window: w, Date: d}
				if o.Opens, o.Closes = w.On(d, zone); !yield(o) {
					return
				}
			}
		}
	}
}

// Skipped are the occurrences that do not exist (rule W4) and would have opened from one instant to before another, in the
// order of their dates.
func (r *Rules) Skipped(from, to time.Time) (out []Occurrence) {
	first, last := wall.DateOf(from.In(r.Zone)).Add(-1), wall.DateOf(to.In(r.Zone))
	for o := range r.Windows.Occurrences(r.Zone, first, last) {
		if !o.Exists() && !o.Opens.Before(from) && o.Opens.Before(to) {
			out = append(out, o)
		}
	}
	return out
}
