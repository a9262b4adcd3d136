package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// meta is what a node says of itself in every alive message. It stays far under 200 bytes, above which memberlist
// converges slowly. On the wire: format (1 byte), libp2p port (2), roster version (8), length of the peer ID (1),
// peer ID as the roster writes it. Numbers are big-endian.
type meta struct {
	PeerPort uint16
	Roster   uint64 // version of the roster that the node follows
	PeerID   string
}

const (
	metaFormat = 1
	metaFixed  = 1 + 2 + 8 + 1
	maxPeerID  = 128 // as in package roster
)

var errMeta = errors.New("node metadata is malformed")

func (m meta) encode() []byte {
	b := []byte{metaFormat}
	b = binary.BigEndian.AppendUint16(b, m.PeerPort)
	b = binary.BigEndian.AppendUint64(b, m.Roster)
	b = append(b, byte(len(m.PeerID)))
	return append(b, m.PeerID...)
}

// parseMeta accepts exactly what encode writes.
func parseMeta(b []byte) (meta, error) {
	switch {
	case len(b) < metaFixed || len(b) > metaFixed+maxPeerID:
		return meta{}, fmt.Errorf("%w: %d bytes", errMeta, len(b))
	case b[0] != metaFormat:
		return meta{}, fmt.Errorf("%w: format %d", errMeta, b[0])
	case int(b[11]) != len(b)-metaFixed || b[11] == 0:
		return meta{}, fmt.Errorf("%w: peer ID of %d bytes in %d", errMeta, b[11], len(b)-metaFixed)
	}
	m := meta{
		PeerPort: binary.BigEndian.Uint16(b[1:3]),
		Roster:   binary.BigEndian.Uint64(b[3:11]),
		PeerID:   string(b[metaFixed:]),
	}
	if m.PeerPort == 0 {
		return meta{}, fmt.Errorf("%w: port 0", errMeta)
	}
	return m, nil
}
