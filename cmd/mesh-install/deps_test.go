package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed are the modules, and of our own the packages, that the program which runs as root may link. Whoever adds
// a line adds code that strangers' bytes may reach with every right on the machine.
var allowed = []string{
	"github.com/ProtonMail/go-crypto",   // signatures
	"github.com/cloudflare/circl",       // curves of the former
	"golang.org/x/crypto",               // hashes of the two
	"golang.org/x/sys",                  // openat, flock, statfs
	"golang.org/x/sync",                 // errgroup
	"go.yaml.in/yaml/v3",                // configuration and policy
	"github.com/ipfs/go-cid",            // chunk identities, and what it is made of:
	"github.com/multiformats/go-base32", //
	"github.com/multiformats/go-base36",
	"github.com/multiformats/go-multibase",
	"github.com/multiformats/go-multihash",
	"github.com/multiformats/go-varint",
	"github.com/mr-tron/base58",
	"github.com/klauspost/cpuid/v2",
	"github.com/spaolacci/murmur3",
	"lukechampine.com/blake3",
	"github.com/patchmesh/patchmesh/cmd/mesh-install",
	"github.com/patchmesh/patchmesh/install",
	"github.com/patchmesh/patchmesh/chunker/store",
	"github.com/patchmesh/patchmesh/internal/build",
	"github.com/patchmesh/patchmesh/internal/chunk",
	"github.com/patchmesh/patchmesh/internal/durable",
	"github.com/patchmesh/patchmesh/internal/grant", // a rollout's permission to start
	"github.com/patchmesh/patchmesh/internal/manifest",
	"github.com/patchmesh/patchmesh/internal/order",
	"github.com/patchmesh/patchmesh/internal/packages",
	"github.com/patchmesh/patchmesh/internal/policy",
	"github.com/patchmesh/patchmesh/internal/problem",
	"github.com/patchmesh/patchmesh/internal/revocation", // which bundles are not to be installed any more
	"github.com/patchmesh/patchmesh/internal/roster",     // the time zone of the site
	"github.com/patchmesh/patchmesh/internal/status",
	"github.com/patchmesh/patchmesh/internal/trust",
	"github.com/patchmesh/patchmesh/internal/wall",
	"github.com/patchmesh/patchmesh/internal/window",
}

// forbidden parts of the standard library: a worker without a network needs no HTTP and no TLS.
var forbidden = []string{"net/http", "crypto/tls", "net/rpc", "plugin", "os/user"}

func strays(deps []string) (out []string) {
	for _, d := range deps {
		own := func(root string) bool { return d == root || strings.HasPrefix(d, root+"/") }
		std := !strings.Contains(strings.SplitN(d, "/", 2)[0], ".")
		if d == "github.com/patchmesh/patchmesh/install/installtest" || !std && !slices.ContainsFunc(allowed, own) || slices.ContainsFunc(forbidden, own) {
			out = append(out, d)
		}
	}
	return out
}

func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if got := strays(deps); len(got) > 0 {
		t.Errorf("linked and not allowed: %q", got)
	}
	if !slices.Contains(deps, "github.com/patchmesh/patchmesh/internal/trust") {
		t.Errorf("%d dependencies and no signatures: the list is of something else", len(deps))
	}
	// The positive control: what must not be there would be seen.
	for _, d := range []string{"github.com/libp2p/go-libp2p/core", "github.com/hashicorp/memberlist", "github.com/klauspost/compress/zstd", "net/http", "github.com/patchmesh/patchmesh/node"} {
		if len(strays([]string{d})) == 0 {
			t.Errorf("%s would not be noticed", d)
		}
	}
}
