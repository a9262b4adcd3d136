package gossip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// letter is the state that two nodes hand each other when one joins the other: the newest signed roster that each
// has. Version is the sender's claim; the owner of the mesh verifies. On the wire: format (1 byte), version (8),
// length of the document (4), length of the signature (4), both. Numbers are big-endian.
type letter struct {
	Version uint64
	Roster  trust.Signed
}

const (
	letterFormat = 1
	letterFixed  = 1 + 8 + 4 + 4
	maxLetter    = letterFixed + roster.MaxBytes + trust.MaxSignatureBytes
)

var errLetter = errors.New("shared state is malformed")

func (l letter) encode() []byte {
	b := []byte{letterFormat}
	b = binary.BigEndian.AppendUint64(b, l.Version)
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Roster.Doc)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Roster.Sig)))
	b = append(b, l.Roster.Doc...)
	return append(b, l.Roster.Sig...)
}

// parseLetter accepts exactly what encode writes. The result does not share memory with b.
func parseLetter(b []byte) (letter, error) {
	if len(b) < letterFixed || len(b) > maxLetter {
		return letter{}, fmt.Errorf("%w: %d bytes", errLetter, len(b))
	}
	if b[0] != letterFormat {
		return letter{}, fmt.Errorf("%w: format %d", errLetter, b[0])
	}
	version := binary.BigEndian.Uint64(b[1:9])
	doc, sig := int64(binary.BigEndian.Uint32(b[9:13])), int64(binary.BigEndian.Uint32(b[13:17]))
	switch {
	case version == 0 || doc == 0 || sig == 0:
		return letter{}, fmt.Errorf("%w: a part is missing", errLetter)
	case doc > roster.MaxBytes || sig > trust.MaxSignatureBytes || letterFixed+doc+sig != int64(len(b)):
		return letter{}, fmt.Errorf("%w: %d and %d bytes in %d", errLetter, doc, sig, len(b))
	}
	b = bytes.Clone(b[letterFixed:])
	return letter{Version: version, Roster: trust.Signed{Doc: b[:doc:doc], Sig: b[doc:]}}, nil
}
