package main

import (
	"encoding"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/status"
)

// documents are what the commands print with -o json, and -o yaml where they have it.
var documents = []struct {
	command string
	value   any
}{
	{"status", status.Fleet{}},
	{"status SITE", status.Site{}},
	{"status SITE/NODE, node get, and each of node list", status.Seen{}},
	{"why SITE/NODE", answerWhy{}},
	{"why SITE", answerWhySite{}},
	{"site get, and each of site list", siteRow{}},
	{"policy get, and each of policy list", api.PolicyInfo{}},
	{"each of policy history", api.PolicyRevision{}},
	{"diff", api.Plan{}},
	{"rollout status POLICY, and each of rollout status and rollout history", api.Rollout{}},
	{"each of events", api.RecordedReport{}},
	{"each of order list", api.OrderInfo{}},
	{"each of bundle list", api.BundleInfo{}},
	{"doctor", diagnosis{}},
}

const jsonHead = `# What meshctl prints for programs

` + "`-o json`" + ` prints one document, ` + "`-o yaml`" + ` the same in YAML, ` + "`-o jsonl`" + ` one document a line. Fields are added, never renamed and
never removed; ` + "`?`" + ` may be missing. Times are RFC 3339 in UTC, sizes bytes, rates bytes per second. What a program should go by is the
exit status (at the end of every ` + "`--help`" + `) and these fields, not the screens. There is no colour, so NO_COLOR has nothing to turn off.

An error is one line of JSON on standard error: ` + "`apiVersion, kind: Error, code, exit, message, done?, hint?`" + `. The codes: ` + "`meshctl explain`" + `.

A test writes this list from the types: ` + "`go test ./cmd/meshctl -run TestFields -update`" + `.
`

// TestFields holds docs/meshctl-json.md to the types: a field that goes, is called otherwise, or is of another form is an
// error. One that is new harms nobody; the list is to be written anew.
func TestFields(t *testing.T) {
	var b strings.Builder
	b.WriteString(jsonHead)
	l := fieldList{seen: map[reflect.Type]bool{}}
	b.WriteString("\n| command | document |\n|---|---|\n")
	for _, d := range documents {
		fmt.Fprintf(&b, "| %s | %s |\n", d.command, l.name(reflect.TypeOf(d.value)))
	}
	for len(l.todo) > 0 {
		next := l.todo[0]
		l.todo = l.todo[1:]
		l.fields(next, next)
	}
	b.WriteString(l.text.String())
	const path = "../../docs/meshctl-json.md"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range gone(string(want), b.String()) {
		t.Errorf("%s promises what is not there any more: %s", path, gone)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Logf("%s does not say all (go test -update writes it anew):\n%s", path, d)
	}
}

// The check finds a field that is gone and one of another form, and lets a new one pass.
func TestFieldsControl(t *testing.T) {
	was := "## Site\n- `site` string\n- `nodes` number\n## Node\n- `site` string\n"
	is := "## Site\n- `site` string\n- `nodes` list of Node\n- `new` string\n## Node\n"
	if got := strings.Join(gone(was, is), "; "); got != "## Site - `nodes` number; ## Node - `site` string" {
		t.Error(got)
	}
}

// gone are the lines of a list that another lacks, each with its document.
func gone(was, is string) (out []string) {
	in := func(text string) (lines []string, have map[string]bool) {
		have = map[string]bool{}
		head := ""
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "## ") {
				head = line
			} else if strings.HasPrefix(line, "- `") {
				lines = append(lines, head+" "+line)
				have[head+" "+line] = true
			}
		}
		return lines, have
	}
	lines, _ := in(was)
	_, have := in(is)
	for _, line := range lines {
		if !have[line] {
			out = append(out, line)
		}
	}
	return out
}

// fieldList is the list as far as it is written.
type fieldList struct {
	text strings.Builder
	seen map[reflect.Type]bool
	todo []reflect.Type
}

// name is that of a document, which is to be listed.
func (l *fieldList) name(t reflect.Type) string {
	if !l.seen[t] {
		l.seen[t] = true
		l.todo = append(l.todo, t)
	}
	return strings.TrimPrefix(t.String(), "main.")
}

// fields writes a line for each field of a document; embedded ones are the document's own.
func (l *fieldList) fields(t, of reflect.Type) {
	if t == of {
		fmt.Fprintf(&l.text, "\n## %s\n\n", l.name(of))
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			l.fields(f.Type, of)
			continue
		case !f.IsExported() || name == "-":
			continue
		case name == "":
			name = f.Name
		}
		if strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero") {
			name += "?"
		}
		fmt.Fprintf(&l.text, "- `%s` %s\n", name, l.form(f.Type))
	}
}

// form says how a type looks in JSON.
func (l *fieldList) form(t reflect.Type) string {
	text, own := reflect.TypeFor[encoding.TextMarshaler](), reflect.TypeFor[json.Marshaler]()
	switch {
	case t.Kind() == reflect.Pointer:
		return l.form(t.Elem())
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t.Implements(text) || reflect.PointerTo(t).Implements(text):
		return "string"
	case t.Implements(own):
		return "as it says"
	}
	switch t.Kind() {
	case reflect.Struct:
		return l.name(t)
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return "base64"
		}
		return "list of " + l.form(t.Elem())
	case reflect.Map:
		return "map of " + l.form(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "string"
	}
	return "number"
}
