package seeder

import (
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/patchmesh/patchmesh/internal/api"
)

var update = flag.Bool("update", false, "write docs/openapi.json")

// described is what these tests read of an OpenAPI document.
type described struct {
	OpenAPI string `json:"openapi"`
	Paths   map[string]map[string]struct {
		Role      api.Role                   `json:"x-role"`
		Security  []any                      `json:"security"`
		Responses map[string]json.RawMessage `json:"responses"`
		ID        string                     `json:"operationId"`
	} `json:"paths"`
	Components struct {
		Schemas map[string]json.RawMessage `json:"schemas"`
	} `json:"components"`
}

func (b *bed) described() (raw []byte, d described) {
	b.t.Helper()
	w := b.as(b.token, "GET", api.PathOpenAPI, "")
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || w.Code != 200 || d.OpenAPI != "3.1.0" {
		b.t.Fatalf("%d, %v", w.Code, err)
	}
	return w.Body.Bytes(), d
}

// Every registered route is in the document and the other way round, with the role that is asked for.
func TestOpenAPIIsOfTheRoutes(t *testing.T) {
	b := start(t, nil)
	_, d := b.described()
	x := b.routes()
	registered, ids := map[string]bool{}, map[string]bool{}
	for _, name := range x.registered {
		registered[name] = true
		method, path, _ := strings.Cut(name, " ")
		op, ok := d.Paths[path][strings.ToLower(method)]
		if want := x.table[name].least; !ok || op.Role != want || (len(op.Security) > 0) != (want != anyone) {
			t.Errorf("%s is not in the document as it is served: %+v", name, op)
		}
	}
	for path, ops := range d.Paths {
		for method, op := range ops {
			if !registered[strings.ToUpper(method)+" "+path] {
				t.Errorf("%s %s is in the document and not served", method, path)
			}
			if ids[op.ID] {
				t.Errorf("operationId %s twice", op.ID)
			}
			ids[op.ID] = true
			if op.Responses["default"] == nil {
				t.Errorf("%s %s has no error", method, path)
			}
		}
	}
}

// The committed document is the one that is served.
func TestOpenAPIIsCommitted(t *testing.T) {
	b := start(t, nil)
	raw, _ := b.described()
	name := filepath.Join("..", "docs", "openapi.json")
	if *update {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(name); err != nil || string(have) != string(raw) {
		t.Errorf("docs/openapi.json is not what is served; make it with: go test ./seeder -run TestOpenAPIIsCommitted -update (%v)", err)
	}
}

// strictly is the schema of a type with nothing allowed that it does not name.
func strictly(t *testing.T, v any) *jsonschema.Resolved {
	t.Helper()
	s, err := schemaOf(reflect.TypeOf(v), true)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What the real handlers answer is what the schemas say, and nothing else.
func TestAnswersFollowTheirSchemas(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	b.join("s1", "n1", api.TokenSpec{})
	x := b.bundle("1.0", 1, b.release)
	b.push(x, -1)
	if _, err := b.admin.PutPolicy(t.Context(), b.policy(x, 1, x.Digest, b.operator)); err != nil {
		t.Fatal(err)
	}
	b.access("viewer", api.RoleViewer)
	b.hook("h", "https://192.0.2.1/", "")
	if w := b.as(b.token, "POST", api.PathQuarantine, `{"scope": "node", "site": "s1", "node": "n1", "reason": "x"}`); w.Code != 200 {
		t.Fatalf("%s", w.Body)
	}
	problem := strictly(t, api.Problem{})
	good, refused := 0, 0
	for _, name := range b.routes().registered {
		method, path, _ := strings.Cut(name, " ")
		op := operations()[name]
		if method != "GET" || op.kind != "" {
			continue
		}
		for param, v := range map[string]string{"site": "s1", "node": "n1", "policy": "pos", "digest": x.Digest.String(), "id": "1", "name": "h"} {
			path = strings.ReplaceAll(path, "{"+param+"}", v)
		}
		w := b.as(b.token, "GET", path, "")
		var v any
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
			continue
		}
		schema := problem
		if w.Code == http.StatusOK {
			schema = strictly(t, op.out)
			good++
		} else {
			refused++
			t.Logf("%s: %d %s", path, w.Code, w.Body)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if good < 18 {
		t.Errorf("%d answers looked at, %d errors", good, refused)
	}
	// Control: a field that is not named is found.
	if err := strictly(t, api.SiteZone{}).Validate(map[string]any{"timezone": "UTC", "more": 1}); err == nil {
		t.Error("control: an unknown field passes")
	}
}
