package schemadoc_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	yaml "go.yaml.in/yaml/v3"

	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/policy/schemadoc"
)

// The files that editors and clusters load are what the generator prints.
func TestFilesAreGenerated(t *testing.T) {
	for name, generate := range map[string]func() ([]byte, error){"patchpolicy.schema.json": schemadoc.JSON, "patchpolicy.crd.yaml": schemadoc.CRD} {
		want, err := generate()
		if err != nil {
			t.Fatal(err)
		}
		have, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(have)); d != "" {
			t.Errorf("docs/%s is out of date (-want +have): meshctl policy schema, meshctl policy crd\n%s", name, d)
		}
	}
}

func resolved(t testing.TB, text []byte) *jsonschema.Resolved {
	t.Helper()
	var s jsonschema.Schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func jsonSchema(t testing.TB) *jsonschema.Resolved {
	t.Helper()
	b, err := schemadoc.JSON()
	if err != nil {
		t.Fatal(err)
	}
	return resolved(t, b)
}

// crd is the definition as plain values, and its schema.
func crd(t testing.TB) (definition, schema map[string]any) {
	t.Helper()
	b, err := schemadoc.CRD()
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &definition); err != nil {
		t.Fatal(err)
	}
	version := definition["spec"].(map[string]any)["versions"].([]any)[0].(map[string]any)
	return definition, version["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any)
}

// plain is what an editor or a cluster makes of YAML: JSON values.
func plain(n *yaml.Node) any {
	switch n.Kind {
	case yaml.DocumentNode:
		return plain(n.Content[0])
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = plain(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, e := range n.Content {
			list = append(list, plain(e))
		}
		return list
	}
	switch n.Tag {
	case "!!int":
		if v, err := strconv.Atoi(n.Value); err == nil {
			return v
		}
	case "!!float":
		if v, err := strconv.ParseFloat(n.Value, 64); err == nil {
			return v
		}
	case "!!bool":
		return n.Value == "true"
	case "!!null":
		return nil
	}
	return n.Value
}

func value(t testing.TB, text []byte) any {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal(text, &n); err != nil {
		t.Fatal(err)
	}
	return plain(&n)
}

func golden(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func goldens(t testing.TB) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "testdata", "*.yaml"))
	if err != nil || len(files) < 5 {
		t.Fatalf("%d policies, %v", len(files), err)
	}
	all := map[string]string{}
	for _, f := range files {
		all[filepath.Base(f)] = golden(t, filepath.Base(f))
	}
	return all
}

// Both schemas pass what the reader accepts.
func TestGood(t *testing.T) {
	editor := jsonSchema(t)
	_, schema := crd(t)
	b, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	cluster := resolved(t, b)
	for name, text := range goldens(t) {
		if _, err := policy.Parse([]byte(text)); err != nil {
			t.Errorf("%s: the reader: %v", name, err)
		}
		if err := editor.Validate(value(t, []byte(text))); err != nil {
			t.Errorf("%s: the editor's schema: %v", name, err)
		}
		inCluster := strings.Replace(text, "    notBefore: null\n", "", 1) // "nullable" is no word of JSON Schema
		if err := cluster.Validate(value(t, []byte(inCluster))); err != nil {
			t.Errorf("%s: the cluster's schema: %v", name, err)
		}
	}
}

// What is wrong in its form is wrong to the reader and to both schemas, except where only says otherwise.
func TestBad(t *testing.T) {
	editor := jsonSchema(t)
	_, schema := crd(t)
	b, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	cluster := resolved(t, b)
	full, other, sample := golden(t, "full.yaml"), golden(t, "other.yaml"), golden(t, "sample.yaml")
	for _, c := range []struct {
		text, before, after string
		editorOnly          bool // a cluster drops unknown fields, has rules of its own for metadata and for two places
	}{
		{full, "apiVersion: patchmgmt.io/v1", "apiVersion: patchmgmt.io/v2", true},
		{full, "kind: PatchPolicy", "kind: Site", true},
		{full, "name: retail-pos-prod", "name: Retail", true},
		{full, "  priority: 100", "  colour: red", true},
		{full, "batchSize: 100", "batchsize: 100", true},
		{sample, "  rollback:", "  rolloutStrategy: {batchSize: 5}\n  rollback:", true},
		{full, "{name: pos-rhel9, ", "{name: ../etc, ", false},
		{full, `version: "2026.08.25-1", `, "", false},
		{full, `version: "2026.08.25-1"`, "version: 7", false},
		{full, "sha256:9f2c", "sha256:xyz", false},
		{full, "    selector: {matchLabels: {role: pos, env: prod}, matchExpressions: []}\n", "", false},
		{full, "role: pos", "role: 7", false},
		{full, "priority: 100", "priority: high", false},
		{full, "priority: 100", "priority: 1000001", false},
		{full, "suspend: false", "suspend: no-one", false},
		{full, "maintenanceWindows: []", "maintenanceWindows: Tue 02:00-04:00", false},
		{full, "from: 2026-11-20, ", "", false},
		{full, "from: 2026-11-20", "from: tomorrow", false},
		{full, "startCutoffMinutes: 20", "startCutoffMinutes: 0", false},
		{full, "after: 30d", "after: a month", false},
		{full, "action: Alert", "action: Panic", false},
		{full, "requireBeforeWindow: true", "requireBeforeWindow: 1", false},
		{full, "profile: site", "profile: fast", false},
		{full, "type: RollingUpdate", "type: Recreate", false},
		{full, "batchSize: 100", "batchSize: 0", false},
		{full, "batchSize: 100", `batchSize: "101%"`, false},
		{full, "batchSize: 100", "batchSize: 2.5", false},
		{full, "batchSize: 100", "batchSize: ~", false},
		{full, "delayFrom: Settled", "delayFrom: End", false},
		{full, "selector: {matchLabels: {ring: canary}}, ", "", false},
		{full, "minSamples: 20", "minSamples: 0", false},
		{full, "gating: Lease", "gating: None", false},
		{full, "reboot: IfRequired", "reboot: Always", false},
		{full, "provider: auto", "provider: zfs", false},
		{full, "keep: 2", "keep: 101", false},
		{other, "operator: In,", "operator: in,", false},
		{other, "key: ring, ", "", false},
		{other, "cve: CVE-2026-12345", "cve: log4shell", false},
	} {
		if !strings.Contains(c.text, c.before) {
			t.Fatalf("%q is not in the policy", c.before)
		}
		text := []byte(strings.Replace(c.text, c.before, c.after, 1))
		if p, err := policy.Parse(text); err == nil {
			t.Errorf("%s: the reader accepts it as %+v", c.after, p)
		}
		if editor.Validate(value(t, text)) == nil {
			t.Errorf("%s: the editor's schema passes it", c.after)
		}
		text = []byte(strings.Replace(string(text), "    notBefore: null\n", "", 1))
		if got := cluster.Validate(value(t, text)) == nil; got != c.editorOnly {
			t.Errorf("%s: the cluster's schema passes it: %v, want %v", c.after, got, c.editorOnly)
		}
	}
}

// Every field that the reader knows is in the schemas, and every property of theirs is a field that it knows: each is
// found in the text of the generated documents, not in what they were made from.
func TestSameFields(t *testing.T) {
	var want []string
	policy.Fields().Walk("", func(path string, f *policy.Field) {
		if f.Name != "" {
			want = append(want, path)
		}
	})
	slices.Sort(want)
	b, err := schemadoc.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var editor map[string]any
	if err := json.Unmarshal(b, &editor); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, properties(editor, "")); d != "" {
		t.Errorf("the editor's schema (-reader +schema)\n%s", d)
	}
	_, cluster := crd(t)
	beside := func(path string) bool { // metadata is the API server's, status a controller's
		return strings.HasPrefix(path, "metadata.") || path == "status" || strings.HasPrefix(path, "status.")
	}
	if d := cmp.Diff(slices.DeleteFunc(slices.Clone(want), beside), slices.DeleteFunc(properties(cluster, ""), beside)); d != "" {
		t.Errorf("the cluster's schema (-reader +schema)\n%s", d)
	}
	for _, path := range want { // the reader by its behaviour: a field is known if it is not called unknown
		if _, err := policy.Parse(only(path)); err == nil || strings.Contains(err.Error(), "is not a field") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := policy.Parse(only("spec.colour")); !strings.Contains(err.Error(), "is not a field") {
		t.Errorf("an unknown field: %v", err)
	}
}

// only is a document with one field, in flow style.
func only(path string) []byte {
	var before, after string
	for part := range strings.SplitSeq(path, ".") {
		name, list := strings.CutSuffix(part, "[]")
		before, after = before+"{"+name+": ", "}"+after
		if list {
			before, after = before+"[", "]"+after
		}
	}
	return []byte(before + "~" + after)
}

func properties(schema map[string]any, path string) (all []string) {
	for name, s := range asMap(schema["properties"]) {
		at := name
		if path != "" {
			at = path + "." + name
		}
		all = append(append(all, at), properties(asMap(s), at)...)
	}
	if items := asMap(schema["items"]); items != nil {
		all = append(all, properties(items, path+"[]")...)
	}
	slices.Sort(all)
	return all
}

func asMap(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// The definition is one that a cluster takes: names agree, and the schema is structural. The rules are those of the
// page "Extend the Kubernetes API with CustomResourceDefinitions", section "Specifying a structural schema".
func TestStructural(t *testing.T) {
	d, schema := crd(t)
	spec := asMap(d["spec"])
	if name := asMap(d["metadata"])["name"]; name != asMap(spec["names"])["plural"].(string)+"."+spec["group"].(string) {
		t.Errorf("name %v", name)
	}
	version := asMap(spec["versions"].([]any)[0])
	if asMap(version["subresources"])["status"] == nil || len(version["additionalPrinterColumns"].([]any)) == 0 || version["storage"] != true {
		t.Errorf("version %v", version)
	}
	all := properties(schema, "")
	for _, c := range version["additionalPrinterColumns"].([]any) {
		if path := asMap(c)["jsonPath"].(string); !strings.HasPrefix(path, ".metadata.") && !slices.Contains(all, path[1:]) {
			t.Errorf("column %s is of no field", path)
		}
	}
	structural(t, schema, "schema")
	for name, broken := range map[string]map[string]any{ // the control: it sees what a cluster refuses
		"no type":          {"properties": map[string]any{}},
		"both":             {"type": "object", "properties": map[string]any{"a": map[string]any{"type": "string"}}, "additionalProperties": false},
		"type in a choice": {"type": "object", "anyOf": []any{map[string]any{"type": "string"}}},
		"list of what":     {"type": "array"},
	} {
		if len(unstructured(broken, "")) == 0 {
			t.Errorf("%s is not noticed", name)
		}
	}
}

func structural(t *testing.T, schema map[string]any, at string) {
	t.Helper()
	for _, s := range unstructured(schema, at) {
		t.Error(s)
	}
}

func unstructured(s map[string]any, at string) (wrong []string) {
	intOrString := s["x-kubernetes-int-or-string"] == true
	if _, typed := s["type"]; typed == intOrString {
		wrong = append(wrong, at+": needs a type, or is int-or-string, not both")
	}
	if s["properties"] != nil && s["additionalProperties"] != nil {
		wrong = append(wrong, at+": additionalProperties beside properties")
	}
	if s["type"] == "array" && s["items"] == nil {
		wrong = append(wrong, at+": a list without items")
	}
	choice, _ := s["anyOf"].([]any)
	for _, c := range choice {
		if asMap(c)["type"] != nil && !intOrString {
			wrong = append(wrong, at+": a type in anyOf")
		}
	}
	for _, word := range []string{"$ref", "$schema", "$id", "not", "definitions", "deprecated"} {
		if s[word] != nil {
			wrong = append(wrong, at+": "+word)
		}
	}
	for name, p := range asMap(s["properties"]) {
		wrong = append(wrong, unstructured(asMap(p), at+"."+name)...)
	}
	for _, word := range []string{"items", "additionalProperties"} {
		if below := asMap(s[word]); below != nil {
			wrong = append(wrong, unstructured(below, at+"."+word)...)
		}
	}
	return wrong
}

// Whatever the reader accepts the editor's schema passes: nobody is told that a right policy is wrong.
func FuzzReaderIsStricter(f *testing.F) {
	for _, text := range goldens(f) {
		f.Add([]byte(text))
	}
	f.Add([]byte(strings.Replace(golden(f, "full.yaml"), "after: 30d", "after: 1d1.5h3m", 1)))
	editor := jsonSchema(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := policy.Parse(text); err != nil {
			return
		}
		if err := editor.Validate(value(t, text)); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	})
}
