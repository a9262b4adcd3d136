package wanprofile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// Document is a profile in words, each in the one spelling: what the API carries.
type Document struct {
	Cap    string   `json:"cap"`
	PerDay string   `json:"perDay"`
	Rules  []string `json:"rules"`
}

// Document writes the profile in words.
func (p *Profile) Document() Document {
	d := Document{Cap: FormatRate(p.Cap), PerDay: FormatSize(p.PerDay), Rules: make([]string, 0, len(p.Rules))}
	for _, r := range p.Rules {
		d.Rules = append(d.Rules, r.String())
	}
	return d
}

// Text is the profile as YAML: one text for one profile, which Parse reads.
func (p *Profile) Text() string {
	d := p.Document()
	b := fmt.Sprintf("cap: %s\nperDay: %s\n", d.Cap, d.PerDay)
	for i, r := range d.Rules {
		if i == 0 {
			b += "rules:\n"
		}
		b += "  - " + r + "\n"
	}
	return b
}

// Profile reads the words. An empty cap or total is none. The error is a *problem.Error.
func (d Document) Profile() (Profile, error) {
	p, err := d.read(func(path string) string { return path })
	return p, err
}

// read reads the words; where says at which place of a text a field stands.
func (d Document) read(where func(path string) string) (p Profile, err error) {
	if d.Cap != "" {
		if p.Cap, err = ParseRate(d.Cap); err != nil {
			return Profile{}, invalid("%s: %v", where("cap"), err)
		}
	}
	if d.PerDay != "" {
		if p.PerDay, err = ParseSize(d.PerDay); err != nil {
			return Profile{}, invalid("%s: %v", where("perDay"), err)
		}
	}
	if len(d.Rules) > MaxRules {
		return Profile{}, invalid("%s: %d rules, at most %d", where("rules"), len(d.Rules), MaxRules)
	}
	for i, s := range d.Rules {
		r, err := ParseRule(s)
		if err != nil {
			return Profile{}, invalid("%s: %v", where(fmt.Sprintf("rules[%d]", i)), err)
		}
		p.Rules = append(p.Rules, r)
	}
	return p, nil
}

func invalid(format string, args ...any) *problem.Error {
	return problem.New(problem.InvalidProfile, format, args...).WithDone("the profile was not applied; what was in force stays in force").
		WithNext("write rules as DAYS HH:MM-HH:MM RATE, e.g. Mon-Fri 08:00-20:00 2Mbit")
}

var yamlError = regexp.MustCompile(`^yaml: line (\d+): (.*)$`)

// Parse reads a profile from YAML or JSON. name is the file's, for messages, which say FILE:LINE:COLUMN; it may be
// empty. Unknown and repeated fields, anchors and further documents are errors. The error is a *problem.Error.
func Parse(name string, text []byte) (Profile, error) {
	prefix := ""
	if name != "" {
		prefix = name + ":"
	}
	root, err := document(prefix, text)
	if err != nil {
		return Profile{}, err
	}
	at := func(n *yaml.Node) string { return fmt.Sprintf("%s%d:%d", prefix, n.Line, n.Column) }
	if err := plain(root, at); err != nil {
		return Profile{}, err
	}
	var d Document
	places := map[string]string{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if places[key.Value] != "" {
			return Profile{}, invalid("%s: %q is given twice", at(key), key.Value)
		}
		places[key.Value] = at(value)
		switch key.Value {
		case "cap":
			d.Cap, err = word(value, at)
		case "perDay":
			d.PerDay, err = word(value, at)
		case "rules":
			if value.Kind != yaml.SequenceNode {
				return Profile{}, invalid("%s: rules is not a list", at(value))
			}
			for k, item := range value.Content {
				var s string
				if s, err = word(item, at); err != nil {
					break
				}
				d.Rules = append(d.Rules, s)
				places[fmt.Sprintf("rules[%d]", k)] = at(item)
			}
		default:
			return Profile{}, invalid("%s: %.40q is not a field of a WAN profile: want cap, perDay, rules", at(key), key.Value)
		}
		if err != nil {
			return Profile{}, err
		}
	}
	return d.read(func(path string) string { return places[path] + ": " + path })
}

// document parses the text as one YAML document whose root is a mapping.
func document(prefix string, text []byte) (*yaml.Node, error) {
	if len(text) > MaxBytes {
		return nil, invalid("%s the profile has %d bytes, at most %d", prefix, len(text), MaxBytes)
	}
	if !utf8.Valid(text) || bytes.HasPrefix(text, []byte("\uFEFF")) {
		return nil, invalid("%s the profile is not plain UTF-8", prefix)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, invalid("%s the profile is empty", prefix).WithNext("a profile without any limit is: cap: 0")
		}
		e := invalid("%s %s", prefix, strings.TrimPrefix(err.Error(), "yaml: "))
		if m := yamlError.FindStringSubmatch(err.Error()); m != nil {
			e = invalid("%s%s: %s", prefix, m[1], m[2])
		}
		return nil, e.WithNext(`put a rule that begins with * into quotes, or write Daily`)
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, invalid("%s the file holds more than one document", prefix)
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, invalid("%s%d:%d: the profile is not a mapping of cap, perDay and rules", prefix, root.Line, root.Column)
	}
	return root, nil
}

// plain refuses anchors and aliases anywhere: a text says what it says where it says it.
func plain(n *yaml.Node, at func(*yaml.Node) string) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return invalid("%s: an anchor or an alias: write the value out, with a rule that begins with * in quotes", at(n))
	}
	for _, c := range n.Content {
		if err := plain(c, at); err != nil {
			return err
		}
	}
	return nil
}

// word is a text or a number as it is written.
func word(n *yaml.Node, at func(*yaml.Node) string) (string, error) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" && n.Tag != "!!int" && n.Tag != "!!float" || n.Value == "" {
		return "", invalid("%s: want a single value", at(n))
	}
	return n.Value, nil
}
