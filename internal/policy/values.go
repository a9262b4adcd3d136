package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v3"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/wall"
)

// near is the node at a path, or the nearest one above it that is written.
func (r *reader) near(path string) *yaml.Node {
	for r.values[path] == nil && path != "" {
		path = path[:max(0, strings.LastIndexByte(path, '.'))]
	}
	return r.values[path]
}

// required reads a text that has to be there and, if the field has such, one of its words.
func (r *reader) required(path string) (string, bool) {
	if r.values[path] == nil {
		r.invalid(r.near(path), "%s is missing", path)
		return "", false
	}
	if f := r.fields.At(path); f.Enum != nil {
		return r.word(path), true
	}
	return r.text(r.values[path], path)
}

// name reads a name; a field without a default must have one.
func (r *reader) name(path string) string {
	if fallback := r.fields.At(path).Default; fallback != "" && r.values[path] == nil {
		return fallback
	}
	v, ok := r.required(path)
	if ok && !manifest.ValidName(v) {
		r.invalid(r.values[path], "%s %q: want lower-case letters, digits, . _ -, at most 64", path, v)
	}
	return v
}

func (r *reader) pairs(path string) map[string]string {
	n := r.values[path]
	if n == nil || len(n.Content) == 0 {
		return nil
	}
	m := make(map[string]string)
	for i := 0; i+1 < len(n.Content); i += 2 {
		m[n.Content[i].Value] = n.Content[i+1].Value
	}
	return m
}

// texts reads a list of texts.
func (r *reader) texts(path string) (list []string) {
	if n := r.values[path]; n != nil {
		for i, entry := range n.Content {
			if v, ok := r.text(entry, fmt.Sprintf("%s[%d]", path, i)); ok {
				list = append(list, v)
			}
		}
	}
	return list
}

func (r *reader) boolean(path string) bool {
	fallback := r.fields.At(path).Default == "true"
	n := r.values[path]
	switch {
	case n == nil:
		return fallback
	case n.Tag == "!!bool" && (n.Value == "true" || n.Value == "false"):
		return n.Value == "true"
	}
	r.invalid(n, "%s %q is not true or false", path, n.Value)
	return fallback
}

// number reads a whole number in the field's range.
func (r *reader) number(path string) int {
	f, n := r.fields.At(path), r.values[path]
	fallback, _ := strconv.Atoi(f.Default) // none: 0
	if n == nil {
		return fallback
	}
	v, err := strconv.Atoi(n.Value)
	if n.Tag != "!!int" || err != nil || strconv.Itoa(v) != n.Value || v < f.Min || v > f.Max { // 010 is eight to some
		of := "whole number"
		if f.Unit != "" {
			of = "number of " + f.Unit
		}
		r.invalid(n, "%s %q is not a %s from %d to %d", path, n.Value, of, f.Min, f.Max)
		return fallback
	}
	return v
}

func (r *reader) minutes(path string) time.Duration {
	return time.Duration(r.number(path)) * time.Minute
}

// size reads 100 or "5%".
func (r *reader) size(path string) Size {
	n := r.values[path]
	text := r.fields.At(path).Default
	if n != nil {
		text = n.Value
	}
	if text == "" && n == nil {
		return Size{}
	}
	s, err := ParseSize(text)
	if err == nil && (s.String() != text || n != nil && n.Tag != "!!int" && (n.Tag != "!!str" || s.Percent == 0)) {
		err = fmt.Errorf("%q is not a size: write %s", text, s)
	}
	if err != nil {
		r.invalid(n, "%s: %v", path, err)
	}
	return s
}

// word reads one of the words of the field.
func (r *reader) word(path string) string {
	f, n := r.fields.At(path), r.values[path]
	if n == nil {
		return f.Default
	}
	v, ok := r.text(n, path)
	if ok && !slices.Contains(f.Enum, v) {
		of := "one of "
		if len(f.Enum) == 1 {
			of = ""
		}
		r.invalid(n, "%s %q is not %s%s", path, v, of, strings.Join(f.Enum, ", "))
	}
	return v
}

// date reads a date, which YAML takes for a time unless it is in quotes.
func (r *reader) date(path string) (d wall.Date, text string) {
	n := r.values[path]
	if n == nil {
		return d, ""
	}
	d, err := wall.ParseDate(n.Value)
	if n.Tag != "!!str" && n.Tag != "!!timestamp" || err != nil {
		r.invalid(n, "%s %.40q is not a date: write it as 2026-11-20", path, n.Value)
	}
	return d, n.Value
}

// instant reads RFC 3339; null is the same as leaving it out.
func (r *reader) instant(path string) time.Time {
	n := r.values[path]
	if n == nil || n.Tag == "!!null" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, n.Value)
	if n.Tag != "!!str" && n.Tag != "!!timestamp" || err != nil || t.Year() < 2000 || t.Year() > 2200 {
		r.invalid(n, "%s %.40q is not a time: write it as 2026-11-20T02:00:00Z, or with an offset, 2026-11-20T02:00:00-06:00", path, n.Value)
		return time.Time{}
	}
	return t.UTC()
}

// duration reads "30d", "36h", "90m" or several together.
func (r *reader) duration(path string, most time.Duration) time.Duration {
	n := r.values[path]
	if n == nil {
		return 0
	}
	v, ok := r.text(n, path)
	if !ok {
		return 0
	}
	var d time.Duration
	rest := v
	if head, tail, ok := strings.Cut(v, "d"); ok {
		days, err := strconv.ParseUint(head, 10, 16)
		if err != nil {
			rest = "?"
		} else if d, rest = time.Duration(days)*24*time.Hour, tail; rest == "" {
			rest = "0s"
		}
	}
	more, err := time.ParseDuration(rest)
	if err != nil || strings.ContainsAny(v, "+-") || more > most || d+more < time.Minute || d+more > most {
		r.invalid(n, "%s %.40q is not a time from 1m to %dd: write it as 30d, 36h or 90m", path, v, most/(24*time.Hour))
		return 0
	}
	return d + more
}
