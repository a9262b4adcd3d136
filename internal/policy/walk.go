package policy

import (
	"fmt"
	"strings"
	"unicode"

	yaml "go.yaml.in/yaml/v3"
)

// walk compares a node with the field it stands for, and notes what is written.
func (r *reader) walk(n *yaml.Node, f *Field, path string) {
	switch f.Kind {
	case Object:
		if r.mapping(n, path) {
			r.values[path] = n
			r.object(n, f, path)
		}
	case List:
		if r.sequence(n, path) {
			r.values[path] = n
			for i, entry := range n.Content {
				r.walk(entry, f.Entry, fmt.Sprintf("%s[%d]", path, i))
			}
		}
	case Pairs:
		if r.mapping(n, path) {
			r.values[path] = n
			r.free(n, path)
		}
	default:
		if !r.plain(n, path) {
			return
		}
		if n.Kind != yaml.ScalarNode {
			r.invalid(n, "%s must be a single value", path)
			return
		}
		r.values[path] = n
	}
}

func (r *reader) object(n *yaml.Node, f *Field, path string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, ok := r.key(n, i, path)
		if !ok {
			continue
		}
		at := join(path, name)
		if c := f.Field(name); c != nil {
			r.walk(n.Content[i+1], c, at)
			continue
		}
		hint := ""
		if near := f.nearest(name); near != "" {
			hint = fmt.Sprintf(", did you mean %s?", near)
		} else if other := r.fields.elsewhere(name, path); other != "" {
			hint = ", did you mean " + other + "?"
		} else if path != "" {
			hint = ": it has " + names(f)
		}
		r.invalid(n.Content[i], "%s is not a field of %s%s", at, Kind, hint)
	}
}

// names lists the fields of an object.
func names(f *Field) string {
	var all []string
	for _, c := range f.Fields {
		all = append(all, c.Name)
	}
	return strings.Join(all, ", ")
}

// mapping reports whether n is a mapping without anchor or alias.
func (r *reader) mapping(n *yaml.Node, path string) bool {
	if !r.plain(n, path) {
		return false
	}
	if n.Kind != yaml.MappingNode || n.Tag != "!!map" {
		r.invalid(n, "%s must be a mapping of fields", nonEmpty(path, "the policy"))
		return false
	}
	return true
}

// sequence reports whether n is a list of a bearable length, without anchor or alias.
func (r *reader) sequence(n *yaml.Node, path string) bool {
	switch {
	case !r.plain(n, path):
	case n.Kind != yaml.SequenceNode:
		r.invalid(n, "%s must be a list", path)
	case len(n.Content) > MaxListed:
		r.invalid(n, "%s has %d entries, at most %d", path, len(n.Content), MaxListed)
	default:
		return true
	}
	return false
}

// plain refuses anchors and aliases: a reader of the text should see what it says where it says it.
func (r *reader) plain(n *yaml.Node, path string) bool {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		r.invalid(n, "%s uses an anchor or an alias: write the value out", nonEmpty(path, "the policy"))
		return false
	}
	return true
}

// key returns the i-th key of a mapping, once.
func (r *reader) key(n *yaml.Node, i int, path string) (string, bool) {
	key := n.Content[i]
	if !r.plain(key, path) {
		return "", false
	}
	if key.Kind != yaml.ScalarNode || key.Tag != "!!str" {
		r.invalid(key, "%q is not a field name", join(path, key.Value))
		return "", false
	}
	for j := 0; j < i; j += 2 {
		if n.Content[j].Value == key.Value {
			r.invalid(key, "%s is given twice", join(path, key.Value))
			return "", false
		}
	}
	return key.Value, true
}

// free checks a mapping of free keys to texts.
func (r *reader) free(n *yaml.Node, path string) {
	if len(n.Content)/2 > MaxLabels {
		r.invalid(n, "%s has %d entries, at most %d", path, len(n.Content)/2, MaxLabels)
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, ok := r.key(n, i, path)
		if !ok {
			continue
		}
		if !validLabel(name, 1) {
			r.invalid(n.Content[i], "%s: %q is not a key: want 1 to 256 printable characters", path, name)
		}
		r.text(n.Content[i+1], join(path, name))
	}
}

// text checks that a node is a text. A bare 1.10 or yes is not: YAML makes a number or a truth value of it.
func (r *reader) text(n *yaml.Node, path string) (string, bool) {
	switch {
	case !r.plain(n, path):
	case n.Kind != yaml.ScalarNode:
		r.invalid(n, "%s must be a single value", path)
	case n.Tag != "!!str":
		r.invalid(n, "%s must be a text: write it in quotes, %q", path, n.Value)
	case !validLabel(n.Value, 0):
		r.invalid(n, "%s has more than 256 characters or one that cannot be printed", path)
	default:
		return n.Value, true
	}
	return "", false
}

func validLabel(s string, least int) bool {
	return len(s) >= least && len(s) <= 256 && !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func nonEmpty(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
