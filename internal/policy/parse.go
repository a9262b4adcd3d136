package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// Parse reads a policy. Places in messages are LINE:COLUMN.
func Parse(text []byte) (*Policy, error) { return ParseFile("", text) }

// ParseFile is Parse for a file whose name goes into messages, as FILE:LINE:COLUMN. Every wrong field is reported at
// once, and if there is none, every wrong value. The error is a *problem.Error with the code of the first:
// InvalidPolicy or InvalidWindow.
func ParseFile(name string, text []byte) (*Policy, error) {
	r := &reader{file: name, fields: Fields(), values: make(map[string]*yaml.Node)}
	root, err := r.document(text)
	if err != nil {
		return nil, err
	}
	r.walk(root, r.fields, "")
	if err := r.problem(); err != nil {
		return nil, err // a misspelt field would be reported as missing too
	}
	p := r.policy()
	if err := r.problem(); err != nil {
		return nil, err
	}
	return p, nil
}

// reader collects what is wrong while it walks the nodes.
type reader struct {
	file   string
	fields *Field                // the document's
	values map[string]*yaml.Node // what is written, by path
	found  []issue
}

// maxIssues bounds a message.
const maxIssues = 50

type issue struct {
	code problem.Code
	line int
	text string
}

func (r *reader) place(n *yaml.Node) string {
	at := fmt.Sprintf("%d:%d", n.Line, n.Column)
	if r.file != "" {
		at = r.file + ":" + at
	}
	return at
}

func (r *reader) invalid(n *yaml.Node, format string, args ...any) {
	r.note(problem.InvalidPolicy, n, fmt.Sprintf(format, args...))
}

func (r *reader) note(code problem.Code, n *yaml.Node, text string) {
	r.found = append(r.found, issue{code: code, line: n.Line, text: r.place(n) + ": " + text})
}

func (r *reader) problem() error {
	if len(r.found) == 0 {
		return nil
	}
	slices.SortStableFunc(r.found, func(a, b issue) int { return a.line - b.line })
	first := r.found[0]
	e := problem.New(first.code, "%s", first.text).WithDone("the policy was not applied; what was in force stays in force").
		WithNext("correct the file and run the command again")
	var rest []string
	for i, f := range r.found[1:] {
		if i == maxIssues {
			rest = append(rest, fmt.Sprintf("and %d more", len(r.found)-1-i))
			break
		}
		rest = append(rest, f.text)
	}
	if len(rest) > 0 {
		e.Cause = errors.New("also " + strings.Join(rest, "; "))
	}
	return e
}

var yamlError = regexp.MustCompile(`^yaml: line (\d+): (.*)$`)

// document parses the text as one YAML document whose root is a mapping.
func (r *reader) document(text []byte) (*yaml.Node, error) {
	invalid := func(format string, args ...any) error {
		return problem.New(problem.InvalidPolicy, format, args...).
			WithDone("the policy was not applied; what was in force stays in force")
	}
	prefix := ""
	if r.file != "" {
		prefix = r.file + ":"
	}
	if len(text) > MaxBytes {
		return nil, invalid("%s the policy has %d bytes, at most %d", prefix, len(text), MaxBytes)
	}
	if !utf8.Valid(text) || bytes.HasPrefix(text, []byte("\uFEFF")) {
		return nil, invalid("%s the policy is not plain UTF-8", prefix)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	if err := d.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, invalid("%s the policy is empty", prefix)
		}
		if m := yamlError.FindStringSubmatch(err.Error()); m != nil {
			if strings.Contains(m[2], "cannot start any token") {
				m[2] += ": indent with spaces, not tabs, and put a text that begins with @ or ` in quotes"
			}
			return nil, invalid("%s%s: %s", prefix, m[1], m[2])
		}
		return nil, invalid("%s %s", prefix, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, invalid("%s the file holds more than one document: give each policy its own file", prefix)
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, invalid("%s: the policy is not a mapping of fields", r.place(root))
	}
	return root, nil
}
