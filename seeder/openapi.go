package seeder

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
)

// document describes the API after OpenAPI 3.1: the routes that are registered, as the table of operations has them, with
// schemas made of the Go types that handlers read and write.
func (x *router) document() ([]byte, error) {
	schemas := map[string]any{}
	errors, err := refTo(schemas, api.Problem{}, false)
	if err != nil {
		return nil, err
	}
	paths := map[string]map[string]any{}
	for _, name := range x.registered {
		op, ok := x.table[name]
		if !ok {
			continue // the test says so
		}
		method, path, _ := strings.Cut(name, " ")
		entry, err := describe(schemas, op, method, path, errors)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		paths[path][strings.ToLower(method)] = entry
	}
	doc := map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{"title": "patchmesh seeder", "version": "1",
			"description": "The management API. Every error is application/problem+json with a code that \"meshctl explain\" knows. Fields may be added to answers; requests with unknown fields are refused. " +
				"x-role is the least role that a token needs: node, viewer, operator, admin; without it none is needed."},
		"paths": paths,
		"components": map[string]any{"schemas": schemas, "securitySchemes": map[string]any{
			"token": map[string]any{"type": "http", "scheme": "bearer", "description": "made by meshctl access create, or the administrator's in the state directory"}}},
	}
	b, err := json.MarshalIndent(doc, "", " ")
	return append(b, '\n'), err
}

// describe is one operation object.
func describe(schemas map[string]any, op operation, method, path string, problems any) (map[string]any, error) {
	out := map[string]any{"summary": op.summary, "operationId": strings.ToLower(method) + operationName(path)}
	var params []any
	param := func(in, name string, required bool) {
		params = append(params, map[string]any{"in": in, "name": name, "required": required, "schema": map[string]any{"type": "string"}})
	}
	for rest := path; strings.Contains(rest, "{"); {
		i, j := strings.IndexByte(rest, '{'), strings.IndexByte(rest, '}')
		param("path", rest[i+1:j], true)
		rest = rest[j+1:]
	}
	for _, q := range op.query {
		param("query", q, false)
	}
	if changes(method) && !op.quiet {
		param("header", api.HeaderIdempotency, false)
	}
	if params != nil {
		out["parameters"] = params
	}
	if op.least != anyone {
		out["security"] = []any{map[string]any{"token": []string{}}}
		out["x-role"] = op.least
	}
	if op.in != nil {
		ref, err := refTo(schemas, op.in, true)
		if err != nil {
			return nil, err
		}
		out["requestBody"] = map[string]any{"required": true, "content": map[string]any{"application/json": map[string]any{"schema": ref}}}
	}
	answers := map[string]any{"default": map[string]any{"description": "an error", "content": map[string]any{api.ProblemType: map[string]any{"schema": problems}}}}
	switch {
	case op.out != nil:
		ref, err := refTo(schemas, op.out, false)
		if err != nil {
			return nil, err
		}
		answers["200"] = map[string]any{"description": "done", "content": map[string]any{"application/json": map[string]any{"schema": ref}}}
	case op.kind != "":
		answers["200"] = map[string]any{"description": "done", "content": map[string]any{op.kind: map[string]any{}}}
	default:
		answers["204"] = map[string]any{"description": "done"}
	}
	out["responses"] = answers
	return out, nil
}

// operationName makes a word of a path.
func operationName(path string) string {
	var out strings.Builder
	for part := range strings.FieldsFuncSeq(strings.TrimPrefix(path, "/api/v1"), func(r rune) bool { return strings.ContainsRune("/{}.-", r) }) {
		out.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return out.String()
}

// refTo adds the schema of a value's type to the components and returns a reference. Requests are strict, answers are not:
// a type that is both stands there twice.
func refTo(schemas map[string]any, v any, strict bool) (any, error) {
	t := reflect.TypeOf(v)
	if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct {
		item, err := refTo(schemas, reflect.Zero(t.Elem()).Interface(), strict)
		return map[string]any{"type": "array", "items": item}, err
	}
	if t.Name() == "" {
		s, err := schemaOf(t, strict)
		return s, err
	}
	name := t.Name()
	if p := t.PkgPath(); !strings.HasSuffix(p, "/api") && !strings.HasSuffix(p, "/status") {
		pkg := p[strings.LastIndexByte(p, '/')+1:]
		name = strings.ToUpper(pkg[:1]) + pkg[1:] + name
	} else if strings.HasSuffix(p, "/status") {
		name += "Status"
	}
	if strict {
		name += "Request"
	}
	if schemas[name] == nil {
		s, err := schemaOf(t, strict)
		if err != nil {
			return nil, err
		}
		schemas[name] = s
	}
	return map[string]any{"$ref": "#/components/schemas/" + name}, nil
}

// schemaOf is the JSON Schema of a type.
func schemaOf(t reflect.Type, strict bool) (*jsonschema.Schema, error) {
	words := map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[time.Time]():       {Type: "string", Format: "date-time"},
		reflect.TypeFor[manifest.Digest](): {Type: "string", Pattern: "^sha256:[0-9a-f]{64}$"},
		reflect.TypeFor[chunk.ID]():        {Type: "string"},
		reflect.TypeFor[[]byte]():          {Types: []string{"null", "string"}, ContentEncoding: "base64"},
		reflect.TypeFor[json.RawMessage](): {},
	}
	// In status.Seen the embedded Node hides, by Go's rules and not by those of JSON, its own field of that name.
	seen, err := jsonschema.ForType(reflect.TypeFor[status.Seen](), &jsonschema.ForOptions{TypeSchemas: words})
	if err != nil {
		return nil, err
	}
	seen.Properties["node"] = &jsonschema.Schema{Type: "string"}
	seen.Required, seen.PropertyOrder = append(seen.Required, "node"), nil
	words[reflect.TypeFor[status.Seen]()] = seen
	s, err := jsonschema.ForType(t, &jsonschema.ForOptions{TypeSchemas: words})
	if err == nil && !strict {
		open(s)
	}
	return s, err
}

// open allows fields that are not named, all the way down: answers may grow.
func open(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	if a := s.AdditionalProperties; a != nil && a.Not != nil {
		s.AdditionalProperties = nil
	}
	open(s.AdditionalProperties)
	open(s.Items)
	for _, p := range s.Properties {
		open(p)
	}
}

func (x *router) openAPIRoutes() {
	x.handle("GET", api.PathOpenAPI, func(w http.ResponseWriter, r *http.Request) (any, error) {
		body, err := x.document()
		if err != nil {
			return nil, err
		}
		tag := etag(body)
		w.Header().Set("Etag", tag)
		if listed(r.Header.Get("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return written{}, nil
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body) // the reader is gone; there is nobody to tell
		return written{}, nil
	})
}
