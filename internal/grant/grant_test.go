package grant_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
)

func sample() *grant.Grant {
	return &grant.Grant{Schema: grant.Schema, Serial: 7, Created: "2026-11-24T01:00:00Z", Site: "s1", Policy: "pos", Revision: 3, Bundle: "app", Version: "2.0",
		Checksum: manifest.DigestOf([]byte("2.0")), Opens: "2026-11-24T02:00:00Z", Expires: "2026-11-24T04:00:00Z",
		Starts: []grant.Start{{Node: "a", After: "2026-11-24T02:30:00Z", Batch: 2}, {Node: "b", After: "2026-11-24T02:00:00Z", Batch: 1}}, First: 1, MaxUnavailable: 1, MaxFailures: 1, Deadline: 60}
}

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*grant.Grant)
		says   string // empty: it is valid
	}{
		"good":                  {func(*grant.Grant) {}, ""},
		"halted, for nobody":    {func(g *grant.Grant) { g.Halted, g.Starts, g.First = "paused by alice", []grant.Start{}, 0 }, ""},
		"for nobody":            {func(g *grant.Grant) { g.Starts, g.First = []grant.Start{}, 0 }, "nobody may start"},
		"another schema":        {func(g *grant.Grant) { g.Schema = "x" }, "schema"},
		"no serial":             {func(g *grant.Grant) { g.Serial = 0 }, "serial 0"},
		"serial out of range":   {func(g *grant.Grant) { g.Serial = 1 << 63 }, "out of range"},
		"a path for a policy":   {func(g *grant.Grant) { g.Policy = "../state" }, "not well named"},
		"no checksum":           {func(g *grant.Grant) { g.Checksum = manifest.Digest{} }, "checksum is missing"},
		"a node twice":          {func(g *grant.Grant) { g.Starts[1].Node = "a" }, "there twice"},
		"a time with a zone":    {func(g *grant.Grant) { g.Opens = "2026-11-24T02:00:00+01:00" }, "opens"},
		"closes before opening": {func(g *grant.Grant) { g.Expires = g.Opens }, "before it opens"},
		"no place":              {func(g *grant.Grant) { g.MaxUnavailable = 0 }, "maxUnavailable 0"},
		"canary of too many":    {func(g *grant.Grant) { g.First = 3 }, "first 3"},
		"no deadline":           {func(g *grant.Grant) { g.Deadline = 0 }, "deadlineSeconds 0"},
		"a long reason":         {func(g *grant.Grant) { g.Halted = strings.Repeat("x", grant.MaxReason+1) }, "401 bytes"},
	} {
		g := sample()
		c.change(g)
		b, err := g.Encode()
		if c.says != "" {
			if err == nil || problem.CodeOf(err) != problem.InvalidGrant || !strings.Contains(errors.Unwrap(err).Error(), c.says) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := grant.Parse(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is read is written the same again, byte for byte: there is one form of each grant.
func FuzzParse(f *testing.F) {
	b, err := sample().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schema":"patchmesh.io/grant/v1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := grant.Parse(b)
		if err != nil {
			return
		}
		again, err := g.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q is written as %q, %v", b, again, err)
		}
	})
}
