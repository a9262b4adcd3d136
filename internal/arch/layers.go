// Package arch holds the rules of the house as tests: which package may import which, which packages are pure,
// what is forbidden everywhere, and that every package says what it is for. This file is the one table of the
// layers; ARCHITECTURE.md shows the same table and a test compares the two. Nothing imports the package; its
// functions are pure.
package arch

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Module is the import path prefix of everything here.
const Module = "github.com/patchmesh/patchmesh"

// Layer is a floor of the house. A package may import packages of its own floor and of those below.
type Layer struct {
	Name     string
	Packages []string // relative to the module, path.Match patterns
}

// Layers from the top down. A package that stands in none of them fails the test: give it a place.
func Layers() []Layer {
	return []Layer{
		{"things that run", []string{"examples/*", "scripts/*", "packaging", "internal/harness", "internal/evil", "internal/testbed", "internal/sitetest", "internal/vm", "internal/realtest", "internal/rollouttest", "internal/bench", "internal/arch"}},
		{"programs", []string{"cmd/*", "internal/cli"}},
		{"daemons", []string{"node", "seeder"}},
		{"engines", []string{"install", "install/*", "install/*/*", "gossip", "gossip/*", "internal/xfer", "internal/api", "internal/collect", "internal/closure"}},
		{"stores", []string{"chunker", "chunker/*", "chunker/*/*", "internal/signer", "internal/progress", "seeder/fleet", "seeder/gitops"}},
		{"decisions", []string{"internal/trust", "internal/wire", "internal/policy", "internal/policy/schemadoc", "internal/order", "internal/revocation", "internal/grant", "internal/wanprofile", "internal/enrol", "internal/roster", "internal/status", "internal/ledbat", "internal/window", "internal/batch", "internal/plan", "node/swarm", "node/turn", "seeder/lease", "seeder/rollout"}},
		{"nouns", []string{"internal/manifest", "internal/chunk", "internal/problem", "internal/encoding", "internal/build", "internal/durable", "internal/durable/*", "internal/packages", "internal/wall", "internal/bed/*"}},
	}
}

// Pure packages decide and do nothing else: no network, file, log, clock, chance or goroutine.
func Pure() []string {
	return []string{
		"internal/chunk", "internal/manifest", "internal/trust", "internal/wire", "internal/policy", "internal/policy/schemadoc", "internal/order", "internal/revocation", "internal/grant", "internal/wanprofile", "internal/enrol",
		"internal/roster", "internal/status", "internal/ledbat", "internal/window", "internal/batch", "internal/plan", "internal/wall", "internal/packages", "internal/problem", "internal/encoding", "internal/build", "node/swarm", "node/turn", "seeder/lease", "seeder/rollout",
		"install/journal", "install/ledger",
	}
}

// Strangers never import each other, in neither direction.
func Strangers() [][2]string { return [][2]string{{"node", "seeder"}} }

// Without lists what must not be linked into a program, not even through others.
func Without() map[string][]string {
	return map[string][]string{
		"cmd/mesh-install": {"github.com/libp2p/", "github.com/hashicorp/memberlist", "github.com/klauspost/compress/zstd"},
	}
}

// Package is what the checks need to know of one: paths are relative to the module.
type Package struct {
	Path    string
	Imports []string // of the package itself, not of its tests
}

// CheckLayers returns one line for each import that breaks the order.
func CheckLayers(layers []Layer, strangers [][2]string, pkgs []Package) (broken []string) {
	for _, p := range pkgs {
		at := floor(layers, p.Path)
		if at < 0 {
			broken = append(broken, fmt.Sprintf("%s stands in no layer: add it to the table in internal/arch", p.Path))
			continue
		}
		for _, imp := range p.Imports {
			if to := floor(layers, imp); to >= 0 && to < at {
				broken = append(broken, fmt.Sprintf("%s (%s) imports %s (%s), which is above it", p.Path, layers[at].Name, imp, layers[to].Name))
			}
			for _, s := range strangers {
				if under(p.Path, s[0]) && under(imp, s[1]) || under(p.Path, s[1]) && under(imp, s[0]) {
					broken = append(broken, fmt.Sprintf("%s imports %s: %s and %s do not know each other", p.Path, imp, s[0], s[1]))
				}
			}
		}
	}
	return broken
}

func under(p, room string) bool { return p == room || strings.HasPrefix(p, room+"/") }

// floor is the number of the package's layer, counted from the top, or -1.
func floor(layers []Layer, pkg string) int {
	return slices.IndexFunc(layers, func(l Layer) bool {
		return slices.ContainsFunc(l.Packages, func(pattern string) bool {
			ok, err := path.Match(pattern, pkg)
			return ok && err == nil
		})
	})
}

// Table is the layers as ARCHITECTURE.md shows them.
func Table(layers []Layer) string {
	var b strings.Builder
	for _, l := range layers {
		fmt.Fprintf(&b, "%-16s %s\n", l.Name, strings.Join(l.Packages, "  "))
	}
	return b.String()
}
