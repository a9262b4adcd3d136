package tree

import (
	"encoding/binary"
	"errors"
)

// originName is the attribute in which Copy notes of what each inode is a copy. Only root sees trusted attributes.
const originName = "trusted.mesh-install.origin"

// origin is the note.
type origin struct {
	ino   uint64
	ctime stamp
	flags uint32 // immutable and append-only of the original; the copy has none, so that it can be deleted
	left  bool   // was left out: what is there is not covered
}

const originSize = 1 + 8 + 8 + 4 + 4 + 1

// encode writes the note: a version, then the fields in little endian.
func (o origin) encode() []byte {
	b := make([]byte, 1, originSize)
	b[0] = 1
	b = binary.LittleEndian.AppendUint64(b, o.ino)
	b = binary.LittleEndian.AppendUint64(b, uint64(o.ctime.sec))
	b = binary.LittleEndian.AppendUint32(b, o.ctime.nsec)
	b = binary.LittleEndian.AppendUint32(b, o.flags)
	if o.left {
		return append(b, 1)
	}
	return append(b, 0)
}

// errOrigin says that a kept tree is not one, or is damaged.
var errOrigin = errors.New("was not kept by this program, or is damaged")

func decodeOrigin(s string) (origin, error) {
	b := []byte(s)
	if len(b) != originSize || b[0] != 1 || b[originSize-1] > 1 {
		return origin{}, errOrigin
	}
	o := origin{
		ino:   binary.LittleEndian.Uint64(b[1:]),
		ctime: stamp{int64(binary.LittleEndian.Uint64(b[9:])), binary.LittleEndian.Uint32(b[17:])},
		flags: binary.LittleEndian.Uint32(b[21:]),
		left:  b[originSize-1] == 1,
	}
	if o.flags&^(flagImmutable|flagAppend) != 0 {
		return origin{}, errOrigin
	}
	return o, nil
}
