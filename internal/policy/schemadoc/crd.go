package schemadoc

import (
	"bytes"
	"reflect"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/patchmesh/patchmesh/internal/policy"
)

// Status is what a controller would write of a policy. There is none yet: the type is here so that the resource has its
// status subresource from the first version on.
type Status struct {
	ObservedGeneration int    `json:"observedGeneration,omitempty" range:"0..2147483647" about:"Generation of the resource that this is about."`
	Revision           int    `json:"revision,omitempty" range:"0..2147483647" about:"Revision of the policy in force."`
	State              string `json:"state,omitempty" about:"Of the rollout, as meshctl rollout status shows it."`
	Nodes              int    `json:"nodes,omitempty" range:"0..2147483647" about:"Nodes that the policy selects."`
	Updated            int    `json:"updated,omitempty" range:"0..2147483647" about:"Of these, those that run the bundle."`
	Failed             int    `json:"failed,omitempty" range:"0..2147483647" about:"Of these, those that failed."`
	Message            string `json:"message,omitempty" about:"Why it is in that state."`
}

type definition struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   named    `yaml:"metadata"`
	Spec       resource `yaml:"spec"`
}

type named struct {
	Name string `yaml:"name"`
}

type resource struct {
	Group string `yaml:"group"`
	Names struct {
		Kind       string   `yaml:"kind"`
		ListKind   string   `yaml:"listKind"`
		Plural     string   `yaml:"plural"`
		Singular   string   `yaml:"singular"`
		ShortNames []string `yaml:"shortNames"`
	} `yaml:"names"`
	Scope    string    `yaml:"scope"`
	Versions []version `yaml:"versions"`
}

type version struct {
	Name    string             `yaml:"name"`
	Served  bool               `yaml:"served"`
	Storage bool               `yaml:"storage"`
	Schema  map[string]*Schema `yaml:"schema"`
	Sub     map[string]any     `yaml:"subresources"`
	Columns []column           `yaml:"additionalPrinterColumns"`
}

type column struct {
	Name     string `yaml:"name"`
	Type     string `yaml:"type"`
	JSONPath string `yaml:"jsonPath"`
	Priority int    `yaml:"priority,omitempty"` // 1: only with -o wide
}

// CRD is the CustomResourceDefinition of a PatchPolicy, apiextensions.k8s.io/v1, with a structural schema: every node
// has a type, and additionalProperties stands beside no properties.
func CRD() ([]byte, error) {
	d := dialect{kubernetes: true}
	s := d.of(policy.Fields())
	// The API server has its own rules for these three, and allows no others.
	s.Properties["apiVersion"], s.Properties["kind"] = &Schema{Type: "string"}, &Schema{Type: "string"}
	s.Properties["metadata"] = &Schema{Type: "object"}
	s.Required = []string{"spec"}
	s.Properties["spec"].Rules = []Rule{{
		Rule:    "!(has(self.rolloutStrategy) && has(self.schedule) && has(self.schedule.rolloutStrategy))",
		Message: "rolloutStrategy stands in spec or in spec.schedule, not in both",
	}}
	s.Properties["status"] = d.of(policy.FieldsOf(reflect.TypeFor[Status]()))
	s.Properties["status"].Description = "What became of it; written by a controller."
	group, name, _ := strings.Cut(policy.APIVersion, "/")
	v := version{
		Name: name, Served: true, Storage: true,
		Schema: map[string]*Schema{"openAPIV3Schema": s},
		Sub:    map[string]any{"status": map[string]any{}},
		Columns: []column{
			{Name: "Bundle", Type: "string", JSONPath: ".spec.bundleRef.name"},
			{Name: "Version", Type: "string", JSONPath: ".spec.bundleRef.version"},
			{Name: "Priority", Type: "integer", JSONPath: ".spec.priority", Priority: 1},
			{Name: "Suspend", Type: "boolean", JSONPath: ".spec.suspend"},
			{Name: "State", Type: "string", JSONPath: ".status.state"},
			{Name: "Updated", Type: "integer", JSONPath: ".status.updated"},
			{Name: "Failed", Type: "integer", JSONPath: ".status.failed"},
			{Name: "Nodes", Type: "integer", JSONPath: ".status.nodes"},
			{Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp"},
		},
	}
	c := definition{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"}
	c.Spec = resource{Group: group, Scope: "Namespaced", Versions: []version{v}}
	c.Spec.Names.Kind, c.Spec.Names.ListKind = policy.Kind, policy.Kind+"List"
	c.Spec.Names.Plural, c.Spec.Names.Singular, c.Spec.Names.ShortNames = "patchpolicies", "patchpolicy", []string{"pp"}
	c.Metadata.Name = c.Spec.Names.Plural + "." + group
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(c); err != nil {
		return nil, err
	}
	if err := e.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
