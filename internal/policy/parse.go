package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Parse reads a policy. Places in messages are LINE:COLUMN.
func Parse(text []byte) (*Policy, error) { return ParseFile("", text) }

// ParseFile is Parse for a file whose name goes into messages, as FILE:LINE:COLUMN. Every wrong field is reported at
// once, and if there is none, every wrong value. The error is a *problem.Error with the code of the first:
// UnsupportedField or InvalidPolicy.
func ParseFile(name string, text []byte) (*Policy, error) {
	r := &reader{file: name, values: make(map[string]*yaml.Node)}
	root, err := r.document(text)
	if err != nil {
		return nil, err
	}
	r.walk(root, schema(), "")
	if err := r.problem(); err != nil {
		return nil, err // a misspelt field would be reported as missing too
	}
	p := r.policy(root)
	if err := r.problem(); err != nil {
		return nil, err
	}
	return p, nil
}

// reader collects what is wrong while it walks the nodes.
type reader struct {
	file   string
	values map[string]*yaml.Node // supported fields by path: scalars, lists, and mappings with free keys
	found  []issue
}

// maxIssues bounds a message; the full PatchPolicy has fewer unsupported fields.
const maxIssues = 50

type issue struct {
	code problem.Code
	line int
	text string
	next string
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
	e := problem.New(first.code, "%s", first.text).WithDone("the policy was not applied; what was in force stays in force")
	if e.Next = first.next; e.Next == "" {
		e.Next = "correct the file and run the command again"
	}
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

// walk compares a mapping with the schema and notes the supported values.
func (r *reader) walk(n *yaml.Node, f *field, path string) {
	if !r.mapping(n, path) {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name, ok := r.key(n, i, path)
		if !ok {
			continue
		}
		at := join(path, name)
		child := f.children[name]
		switch {
		case child == nil:
			hint := ""
			if near := f.nearest(name); near != "" {
				hint = fmt.Sprintf(", did you mean %s?", near)
			}
			r.invalid(key, "%s is not a field of %s%s", at, Kind, hint)
		case !child.supported:
			r.unsupported(key, value, child, at)
		case child.children != nil:
			r.walk(value, child, at)
		case child.free:
			if r.mapping(value, at) {
				r.free(value, at)
				r.values[at] = value
			}
		case child.list:
			if r.sequence(value, at) {
				r.values[at] = value
			}
		case value.Kind != yaml.ScalarNode:
			r.invalid(value, "%s must be a single value", at)
		case r.plain(value, at):
			r.values[at] = value
		}
	}
}

// unsupported reports a field that is known and not acted on, by the full path of the first leaf that is written.
func (r *reader) unsupported(key, value *yaml.Node, f *field, path string) {
	if f.children != nil && value.Kind == yaml.MappingNode && len(value.Content) > 0 {
		for i := 0; i+1 < len(value.Content); i += 2 {
			name, ok := r.key(value, i, path)
			if !ok {
				continue
			}
			if child := f.children[name]; child != nil {
				r.unsupported(value.Content[i], value.Content[i+1], child, join(path, name))
			} else {
				r.invalid(value.Content[i], "%s is not a field of %s", join(path, name), Kind)
			}
		}
		return
	}
	r.found = append(r.found, issue{
		code: problem.UnsupportedField, line: key.Line,
		text: fmt.Sprintf("%s: %s is not supported yet", r.place(key), path),
		next: "remove the field; this version does not act on it, and does not pretend to",
	})
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

// policy reads the values that walk has noted.
func (r *reader) policy(root *yaml.Node) *Policy {
	if v, ok := r.required(root, "apiVersion"); ok && v != APIVersion {
		r.invalid(r.values["apiVersion"], "apiVersion %q is not %s", v, APIVersion)
	}
	if v, ok := r.required(root, "kind"); ok && v != Kind {
		r.invalid(r.values["kind"], "kind %q is not %s", v, Kind)
	}
	p := &Policy{
		Name:        r.name(root, "metadata.name", ""),
		Labels:      r.pairs("metadata.labels"),
		Annotations: r.pairs("metadata.annotations"),
		Bundle:      BundleRef{Name: r.name(root, "spec.bundleRef.name", DefaultBundle)},
		Match:       r.pairs("spec.targets.selector.matchLabels"),
		Downgrade:   r.boolean("spec.allowDowngrade", false),
		Reboot:      Reboot(r.word("spec.reboot", string(RebootNever), string(RebootIfRequired))),
		Rollback: Rollback{
			Enabled:              r.boolean("spec.rollback.enabled", true),
			HealthCheckURL:       r.healthURL("spec.rollback.healthCheckUrl"),
			HealthTimeoutSeconds: r.number("spec.rollback.healthCheckTimeoutSeconds", "seconds", DefaultHealthTimeout, MaxHealthTimeout),
			IntervalSeconds:      r.number("spec.rollback.healthCheckIntervalSeconds", "seconds", 0, 3600),
			HealthyForSeconds:    r.number("spec.rollback.healthyForSeconds", "seconds", 0, MaxHealthTimeout),
			Snapshot: Snapshot{
				Provider:   r.word("spec.rollback.snapshot.provider", "auto", "btrfs", "lvm-thin", "timeshift", "copy", ProviderNone),
				Required:   r.boolean("spec.rollback.snapshot.required", true),
				Keep:       r.number("spec.rollback.snapshot.keep", "snapshots", DefaultSnapshots, 100),
				MaxAgeDays: r.number("spec.rollback.snapshot.maxAgeDays", "days", DefaultSnapshotDays, 3650),
			},
		},
	}
	p.Schedule = r.schedule(root)
	r.agree(root, p)
	if r.values["metadata.namespace"] != nil {
		p.Namespace = r.name(root, "metadata.namespace", "")
	}
	if v, ok := r.required(root, "spec.bundleRef.version"); ok {
		if p.Bundle.Version = v; !manifest.ValidVersion(v) {
			r.invalid(r.values["spec.bundleRef.version"], "spec.bundleRef.version %q: want letters, digits, . + ~ _ : -, at most 64", v)
		}
	}
	if v, ok := r.required(root, "spec.bundleRef.checksum"); ok {
		d, err := manifest.ParseDigest(v)
		if err != nil {
			r.invalid(r.values["spec.bundleRef.checksum"], "spec.bundleRef.checksum: %v", err)
		}
		p.Bundle.Checksum = d
	}
	if len(p.Match) == 0 {
		at := root
		if n := r.values["spec.targets.selector.matchLabels"]; n != nil {
			at = n
		}
		r.invalid(at, "spec.targets.selector.matchLabels is empty or missing: name at least one label, so that no policy selects every machine by accident")
	}
	return p
}

func (r *reader) required(root *yaml.Node, path string) (string, bool) {
	n := r.values[path]
	if n == nil {
		r.invalid(root, "%s is missing", path)
		return "", false
	}
	return r.text(n, path)
}

// name reads a name; an empty fallback makes it required.
func (r *reader) name(root *yaml.Node, path, fallback string) string {
	if fallback != "" && r.values[path] == nil {
		return fallback
	}
	v, ok := r.required(root, path)
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

func (r *reader) boolean(path string, fallback bool) bool {
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

// number reads a whole number of something, from 1 on.
func (r *reader) number(path, of string, fallback, most int) int {
	n := r.values[path]
	if n == nil {
		return fallback
	}
	v, err := strconv.Atoi(n.Value)
	if n.Tag != "!!int" || err != nil || v < 1 || v > most {
		r.invalid(n, "%s %q is not a number of %s from 1 to %d", path, n.Value, of, most)
		return fallback
	}
	return v
}

// word reads one of some words, of which the first is the fallback.
func (r *reader) word(path string, words ...string) string {
	n := r.values[path]
	if n == nil {
		return words[0]
	}
	v, ok := r.text(n, path)
	if ok && !slices.Contains(words, v) {
		r.invalid(n, "%s %q is not one of %s", path, v, strings.Join(words, ", "))
	}
	return v
}

// healthURL reads the URL that a node asks whether it is healthy. It names the node itself: a policy must not be
// able to make ten thousand machines call somebody else.
func (r *reader) healthURL(path string) string {
	n := r.values[path]
	if n == nil {
		return ""
	}
	v, ok := r.text(n, path)
	if !ok {
		return ""
	}
	u, err := url.Parse(v)
	switch {
	case err != nil || u.Opaque != "" || u.User != nil || u.Host == "" || u.Scheme != "http":
		// The probe stays on the loopback, where a certificate would prove nothing.
		r.invalid(n, "%s %q is not an http URL", path, v)
	case !loopback(u.Hostname()):
		r.invalid(n, "%s %q does not name the node itself: the host must be localhost, 127.0.0.0/8 or [::1]", path, v)
	case u.Port() != "" && !validPort(u.Port()):
		r.invalid(n, "%s %q has no valid port", path, v)
	}
	return v
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Zone() == "" && a.IsLoopback()
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
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
