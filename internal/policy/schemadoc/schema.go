// Package schemadoc writes what a PatchPolicy may say for other programs: a JSON Schema for editors and a Kubernetes
// CustomResourceDefinition, both from the types that the strict reader is made from (policy.Fields). They are weaker
// than the reader: what several fields say together, and forms such as that of a window, it alone checks. Whatever the
// reader accepts they accept. Nothing that a node runs links the package. Pure; safe for concurrent use.
package schemadoc

import (
	"strconv"

	"github.com/patchmesh/patchmesh/internal/policy"
)

// Schema is the part of JSON Schema that both documents use. Its fields are in the order in which they are written.
type Schema struct {
	Schema      string             `json:"$schema,omitempty" yaml:"$schema,omitempty"`
	ID          string             `json:"$id,omitempty" yaml:"$id,omitempty"`
	Title       string             `json:"title,omitempty" yaml:"title,omitempty"`
	Description string             `json:"description,omitempty" yaml:"description,omitempty"`
	Type        string             `json:"type,omitempty" yaml:"type,omitempty"`
	AnyOf       []*Schema          `json:"anyOf,omitempty" yaml:"anyOf,omitempty"`
	IntOrString bool               `json:"x-kubernetes-int-or-string,omitempty" yaml:"x-kubernetes-int-or-string,omitempty"`
	Nullable    bool               `json:"nullable,omitempty" yaml:"nullable,omitempty"` // Kubernetes only
	Enum        []string           `json:"enum,omitempty" yaml:"enum,omitempty"`
	Default     any                `json:"default,omitempty" yaml:"default,omitempty"`
	Pattern     string             `json:"pattern,omitempty" yaml:"pattern,omitempty"`
	Format      string             `json:"format,omitempty" yaml:"format,omitempty"` // Kubernetes only: elsewhere a mere note
	Minimum     *int               `json:"minimum,omitempty" yaml:"minimum,omitempty"`
	Maximum     *int               `json:"maximum,omitempty" yaml:"maximum,omitempty"`
	MaxLength   int                `json:"maxLength,omitempty" yaml:"maxLength,omitempty"`
	Items       *Schema            `json:"items,omitempty" yaml:"items,omitempty"`
	MaxItems    int                `json:"maxItems,omitempty" yaml:"maxItems,omitempty"`
	Properties  map[string]*Schema `json:"properties,omitempty" yaml:"properties,omitempty"`
	Required    []string           `json:"required,omitempty" yaml:"required,omitempty"`
	Additional  any                `json:"additionalProperties,omitempty" yaml:"additionalProperties,omitempty"` // false, or a *Schema
	MaxEntries  int                `json:"maxProperties,omitempty" yaml:"maxProperties,omitempty"`
	Not         *Schema            `json:"not,omitempty" yaml:"not,omitempty"`
	Rules       []Rule             `json:"x-kubernetes-validations,omitempty" yaml:"x-kubernetes-validations,omitempty"`
}

// Rule is a condition in the Common Expression Language, as the API server of Kubernetes checks it.
type Rule struct {
	Rule    string `json:"rule" yaml:"rule"`
	Message string `json:"message" yaml:"message"`
}

// Forms of the texts that have one. They are as wide as the reader.
const (
	shareForm = `^([1-9][0-9]?|100)%$`
	dateForm  = `^[0-9]{4}-[0-9]{2}-[0-9]{2}$`
	spanForm  = `^([0-9]+d)?([0-9.]+(ns|us|µs|μs|ms|s|m|h))*$`
)

// dialect is what the two documents say differently.
type dialect struct{ kubernetes bool }

// of makes the schema of a field.
func (d dialect) of(f *policy.Field) *Schema {
	s := &Schema{Description: f.About, Enum: f.Enum, Pattern: f.Pattern}
	switch f.Kind {
	case policy.Object:
		s.Type = "object"
		d.properties(s, f)
	case policy.List:
		s.Type, s.Items, s.MaxItems = "array", d.of(f.Entry), policy.MaxListed
	case policy.Pairs:
		s.Type, s.Additional, s.MaxEntries = "object", &Schema{Type: "string", MaxLength: maxText}, policy.MaxLabels
	case policy.Number:
		s.Type, s.Minimum, s.Maximum = "integer", &f.Min, &f.Max
		if f.Unit != "" {
			s.Description += " In " + f.Unit + "."
		}
	case policy.Truth:
		s.Type = "boolean"
	case policy.Share:
		least, most := 1, policy.MaxCount
		s.AnyOf = []*Schema{{Type: "integer", Minimum: &least, Maximum: &most}, {Type: "string", Pattern: shareForm}}
		s.IntOrString = d.kubernetes
		if d.kubernetes { // a type there is only allowed beside, not in, such a choice
			s.AnyOf = []*Schema{{Type: "integer"}, {Type: "string"}}
			s.Pattern, s.Minimum, s.Maximum = shareForm, &least, &most // each is of one of the two types
		}
	case policy.DateDay:
		s.Type, s.Pattern = "string", dateForm
	case policy.Span:
		s.Type, s.Pattern, s.MaxLength = "string", spanForm, maxText
	case policy.Moment:
		if d.kubernetes {
			s.Type, s.Nullable, s.Format = "string", true, "date-time"
		} else {
			s.AnyOf = []*Schema{{Type: "string", Format: "date-time"}, {Type: "null"}}
		}
	default:
		s.Type = "string"
		if f.Enum == nil {
			s.MaxLength = maxText
		}
	}
	s.Default = value(f)
	return s
}

// maxText is the longest text of the reader, in bytes; a schema counts characters, of which there are no more.
const maxText = 256

func (d dialect) properties(s *Schema, f *policy.Field) {
	s.Properties = make(map[string]*Schema)
	for _, c := range f.Fields {
		s.Properties[c.Name] = d.of(c)
		if c.Required {
			s.Required = append(s.Required, c.Name)
		}
	}
	if !d.kubernetes { // the API server drops or refuses unknown fields by itself
		s.Additional = false
	}
}

// value is the default as a value of its type.
func value(f *policy.Field) any {
	switch {
	case f.Default == "":
		return nil
	case f.Kind == policy.Truth:
		return f.Default == "true"
	case f.Kind == policy.Number:
		n, err := strconv.Atoi(f.Default)
		if err != nil {
			return nil
		}
		return n
	}
	return f.Default
}
