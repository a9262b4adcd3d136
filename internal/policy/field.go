package policy

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Field is one field of the document, or the entry of a list, with what may be written there.
type Field struct {
	Name     string // empty for the document itself and for the entry of a list
	Kind     FieldKind
	About    string
	Required bool
	Enum     []string // words allowed, the first is the default
	Default  string   // when nothing is written; empty: none
	Unit     string   // of a Number
	Min, Max int      // of a Number, both included
	Pattern  string   // of a Text, a regular expression for editors
	Fields   []*Field // of an Object, in the order of the types
	Entry    *Field   // of a List
}

// FieldKind is the form of a field.
type FieldKind string

// The forms.
const (
	Object  FieldKind = "object"
	List    FieldKind = "list"
	Pairs   FieldKind = "pairs" // a mapping of the author's keys to texts
	Text    FieldKind = "text"
	Number  FieldKind = "number"
	Truth   FieldKind = "truth"
	Share   FieldKind = "share"   // CountOrShare
	Span    FieldKind = "span"    // Length
	Moment  FieldKind = "moment"  // Instant
	DateDay FieldKind = "dateday" // Date
)

// Fields is the document PatchPolicy, made from its types. Each call makes a tree of its own.
func Fields() *Field { return FieldsOf(reflect.TypeFor[PatchPolicy]()) }

// FieldsOf makes the tree of a type whose tags are as PatchPolicy says.
func FieldsOf(t reflect.Type) *Field {
	f := &Field{Kind: kindOf(t)}
	switch f.Kind {
	case Object:
		f.addFields(t)
	case List:
		f.Entry = FieldsOf(t.Elem())
	}
	return f
}

func kindOf(t reflect.Type) FieldKind {
	switch t {
	case reflect.TypeFor[CountOrShare]():
		return Share
	case reflect.TypeFor[Length]():
		return Span
	case reflect.TypeFor[Instant]():
		return Moment
	case reflect.TypeFor[Date]():
		return DateDay
	}
	switch t.Kind() {
	case reflect.Struct:
		return Object
	case reflect.Slice:
		return List
	case reflect.Map:
		return Pairs
	case reflect.Int:
		return Number
	case reflect.Bool:
		return Truth
	}
	return Text
}

func (f *Field) addFields(t reflect.Type) {
	for i := range t.NumField() {
		s := t.Field(i)
		if s.Anonymous {
			f.addFields(s.Type)
			continue
		}
		c := FieldsOf(s.Type)
		name, options, _ := strings.Cut(s.Tag.Get("json"), ",")
		c.Name, c.Required = name, options != "omitempty"
		c.About, c.Default, c.Unit, c.Pattern = s.Tag.Get("about"), s.Tag.Get("default"), s.Tag.Get("unit"), s.Tag.Get("pattern")
		if words := s.Tag.Get("enum"); words != "" {
			c.Enum = strings.Split(words, "|")
			if c.Default == "" && !c.Required {
				c.Default = c.Enum[0]
			}
		}
		if least, most, ok := strings.Cut(s.Tag.Get("range"), ".."); ok {
			c.Min, _ = strconv.Atoi(least) // a test holds the tags to their form
			c.Max, _ = strconv.Atoi(most)
		}
		f.Fields = append(f.Fields, c)
	}
}

// Field is the field of that name, or nil.
func (f *Field) Field(name string) *Field {
	i := slices.IndexFunc(f.Fields, func(c *Field) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return f.Fields[i]
}

// At is the field at a path such as spec.schedule.blackouts[0].from, or nil.
func (f *Field) At(path string) *Field {
	for part := range strings.SplitSeq(path, ".") {
		name, _, entry := strings.Cut(part, "[")
		if f = f.Field(name); f == nil {
			return nil
		}
		if entry {
			if f = f.Entry; f == nil {
				return nil
			}
		}
	}
	return f
}

// Walk calls visit for the field and all below it, with their paths; an entry of a list is path[].
func (f *Field) Walk(path string, visit func(path string, f *Field)) {
	visit(path, f)
	for _, c := range f.Fields {
		c.Walk(join(path, c.Name), visit)
	}
	if f.Entry != nil {
		f.Entry.Walk(path+"[]", visit)
	}
}

// nearest returns the name of the field that a misspelt one most resembles, or "".
func (f *Field) nearest(name string) string {
	best, distance := "", 4
	for _, c := range f.Fields {
		d := editDistance(strings.ToLower(name), strings.ToLower(c.Name))
		if d < distance && d <= (len(c.Name)+2)/3 {
			best, distance = c.Name, d
		}
	}
	return best
}

// elsewhere is the path of the first field of that name, below path if there is one there, or "".
func (f *Field) elsewhere(name, path string) (found string) {
	below := false
	f.Walk("", func(at string, c *Field) {
		here := strings.HasPrefix(at, path+".")
		if c.Name == name && !strings.Contains(at, "[]") && (found == "" || here && !below) && !strings.HasPrefix(at, nestedRollout) {
			found, below = at, here
		}
	})
	return found
}

// editDistance counts the insertions, deletions and replacements between two words (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
