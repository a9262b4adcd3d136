package schemadoc

import (
	"bytes"
	"encoding/json"

	"github.com/patchmesh/patchmesh/internal/policy"
)

// JSON is the JSON Schema of a PatchPolicy, draft 2020-12, for editors: one that knows it completes fields, shows what
// they do and underlines what is not one.
func JSON() ([]byte, error) {
	s := dialect{}.of(policy.Fields())
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.ID = "https://patchmgmt.io/schema/v1/patchpolicy.json"
	s.Title = policy.Kind + ", " + policy.APIVersion
	spec := s.Properties["spec"]
	spec.Not = &Schema{ // the strategy in both places
		Required:   []string{"schedule", "rolloutStrategy"},
		Properties: map[string]*Schema{"schedule": {Required: []string{"rolloutStrategy"}}},
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
