package main

import (
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/status"
)

// A filter picks by what nodes say; what cannot be read is refused.
func TestFilter(t *testing.T) {
	s := sample()
	s.Nodes[1].Labels = map[string]string{"role": "pos"}
	for text, want := range map[string]string{
		"":                                      "pos-12 pos-01 pos-03 pos-07 pos-19 pos-20",
		"silent=true":                           "pos-19 pos-20",
		"phase=Deferred":                        "pos-12",
		"phase!=Deferred,silent!=true":          "pos-01 pos-03 pos-07",
		"attention=true":                        "pos-07 pos-19 pos-20",
		`reason="3 bad chunks sent",code=E2103`: "pos-07",
		"alarm=E4103":                           "pos-07",
		"policy=retail,node=pos-01":             "pos-01",
		"site=other":                            "",
	} {
		c, err := parseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []string
		for _, x := range pick([]status.Site{s}, nil, c) {
			for _, n := range x.Nodes {
				got = append(got, n.Node.Node)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	s.Nodes[1].Quarantine = "was opened by a stranger"
	if got := pick([]status.Site{s}, nil, []condition{{key: "attention", value: "true"}}); len(got[0].Nodes) != 4 {
		t.Errorf("under quarantine: %+v", got)
	}
	if got := pick([]status.Site{s}, map[string]string{"role": "pos"}, nil); len(got) != 1 || len(got[0].Nodes) != 1 {
		t.Errorf("by label: %+v", got)
	}
	for _, bad := range []string{"phase", "=x", "!=x", "colour=red", `reason="x`, `reason="x"y`, ","} {
		if c, err := parseFilter(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, c)
		}
	}
}

func TestNodeTable(t *testing.T) {
	for name, o := range map[string]output{"nodes": {format: "table"}, "nodes-wide": {format: "wide"}} {
		var b strings.Builder
		if err := o.nodes(&b, []status.Site{sample()}); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.String())
	}
}
