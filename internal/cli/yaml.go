package cli

import (
	"encoding/json"
	"io"

	yaml "go.yaml.in/yaml/v3"
)

// YAML prints the document that JSON would print, as YAML: the same names, in the same order.
func YAML(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var n yaml.Node // JSON is YAML in another style
	if err := yaml.Unmarshal(b, &n); err != nil {
		return err
	}
	block(&n)
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(&n); err != nil {
		return err
	}
	return e.Close()
}

// block takes the style of JSON away. What is quoted because it would be read as something else stays quoted, by its tag.
func block(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		block(c)
	}
}
