//go:build !depsoff

package deps
import (
 _ "github.com/libp2p/go-libp2p"
 _ "github.com/hashicorp/memberlist"
 _ "github.com/hashicorp/mdns"
 _ "github.com/ipfs/go-cid"
 _ "github.com/multiformats/go-multihash"
 _ "github.com/ProtonMail/go-crypto/openpgp/v2"
 _ "github.com/klauspost/compress/zstd"
 _ "modernc.org/sqlite"
 _ "golang.org/x/sync/errgroup"
 _ "golang.org/x/time/rate"
 _ "golang.org/x/sys/unix"
 _ "golang.org/x/term"
 _ "github.com/PlakarKorp/go-cdc-chunkers"
 _ "github.com/spf13/cobra"
 _ "go.yaml.in/yaml/v3"
 _ "pgregory.net/rapid"
 _ "go.uber.org/goleak"
 _ "github.com/rogpeppe/go-internal/testscript"
 _ "github.com/google/go-cmp/cmp"
)
