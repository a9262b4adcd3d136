package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// maxValue bounds how much of a value a Field shows.
const maxValue = 120

// fields compares two valid policies value by value. What stands in one only has no value in the other.
func fields(was, is string) []Field {
	a, b := flat(was), flat(is)
	out := []Field{}
	paths := slices.Collect(maps.Keys(a))
	for p := range b {
		if _, ok := a[p]; !ok {
			paths = append(paths, p)
		}
	}
	for _, p := range paths {
		if a[p] != b[p] {
			out = append(out, Field{Path: p, Was: a[p], Is: b[p]})
		}
	}
	slices.SortFunc(out, func(x, y Field) int { return cmp.Compare(x.Path, y.Path) })
	return out
}

// flat is the values of a document by their paths.
func flat(text string) map[string]string {
	out := map[string]string{}
	var n yaml.Node
	if yaml.Unmarshal([]byte(text), &n) == nil { // both were valid
		walk(&n, "", out)
	}
	return out
}

func walk(n *yaml.Node, path string, out map[string]string) {
	switch n.Kind {
	case yaml.DocumentNode:
		for _, c := range n.Content {
			walk(c, path, out)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			walk(n.Content[i+1], strings.TrimPrefix(path+"."+n.Content[i].Value, "."), out)
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			walk(c, fmt.Sprintf("%s[%d]", path, i), out)
		}
	case yaml.ScalarNode:
		v := n.Value
		if len(v) > maxValue {
			v = v[:maxValue] + "..."
		}
		out[path] = v
	case yaml.AliasNode: // a policy has none
	}
}
