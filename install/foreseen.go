package install

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// foreseen is what was known before a transaction of packages.
type foreseen struct {
	ID       string               `json:"id"` // of the transaction and its snapshot
	Provider string               `json:"provider"`
	Before   []packages.Installed `json:"before"`
	Plan     manager.Plan         `json:"plan"`
}

// maxForeseen bounds the file in bytes: ten thousand packages, each twice.
const maxForeseen = 16 << 20

// writeForeseen keeps it beside the journal, which holds its digest.
func (s *state) writeForeseen(f foreseen) (string, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return "", err
	}
	b = ledger.Seal(b)
	if len(b) > maxForeseen {
		return "", fmt.Errorf("%s: %d bytes: at most %d", foreseenName, len(b), maxForeseen)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), s.write(foreseenName, b)
}

func (s *state) readForeseen(digest string) (f foreseen, err error) {
	b, err := readOwn(s.path(foreseenName), maxForeseen)
	if err != nil {
		return f, err
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != digest {
		return f, fmt.Errorf("%s is not what the journal names", foreseenName)
	}
	return f, ledger.Unseal("foreseen", b, maxForeseen, &f)
}
