package guard

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// Reason says what became of a frame. Each has a counter.
type Reason int

// The reasons. Passed is the only one that lets a frame reach memberlist.
const (
	Passed  Reason = iota
	Source         // the sender's address is outside the allowed networks
	Size           // longer than any honest frame
	Label          // not our site, or no label at all
	Version        // an encryption version other than 1, or not encrypted
	Key            // does not open with the site's key: a wrong key, or damage
	Content        // opens, but holds what memberlist must not be given
	Busy           // too many streams at once, from that address or in total
	Slow           // the stream ended, or time ran out, before its message was complete
	Egress         // memberlist was about to send outside the allowed networks
	reasons
)

var reasonNames = [...]string{"passed", "source", "size", "label", "version", "key", "content", "busy", "slow", "egress"}

func (r Reason) String() string { return reasonNames[r] }

// What memberlist puts on the wire, as far as the guard looks. The numbers are part of memberlist's protocol.
const (
	msgPing     = 0
	msgIndirect = 1
	msgAck      = 2
	msgSuspect  = 3
	msgAlive    = 4
	msgDead     = 5
	msgPushPull = 6
	msgCompound = 7
	msgEncrypt  = 10
	msgNack     = 11
	msgCRC      = 12
	msgError    = 13
	msgLabel    = 244

	// version is the only encryption version that is let through. Version 0 pads, and memberlist v0.7.0 removes
	// the padding without looking: a frame of a key holder whose last byte is larger than its length is a panic.
	version  = 1
	overhead = 1 + 12 + 16 // version, nonce, tag

	maxPacket = 1500    // memberlist fills packets up to 1400 bytes
	maxSmall  = 4 << 10 // a ping, ack or error on a stream
)

// envelope decides, over plain bytes, what may reach memberlist. It has no state and allocates only the plaintext.
type envelope struct {
	header   []byte // the label header in front of every packet and every opened stream
	label    []byte
	aead     cipher.AEAD
	maxNodes int
	maxState int
}

func newEnvelope(label string, key []byte, maxNodes, maxState int) (*envelope, error) {
	if label == "" || len(label) > 255 {
		return nil, fmt.Errorf("label of %d bytes: must have 1 to 255", len(label))
	}
	if len(key) != 32 {
		return nil, fmt.Errorf("gossip key of %d bytes: must have 32", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	return &envelope{
		header:   append([]byte{msgLabel, byte(len(label))}, label...),
		label:    []byte(label),
		aead:     aead,
		maxNodes: maxNodes,
		maxState: maxState,
	}, nil
}

// maxStream is the largest sealed message an honest node sends on a stream: its state and one record per node.
func (e *envelope) maxStream() int { return overhead + maxSmall + e.maxState + e.maxNodes*maxRecord }

// maxRecord is more than one node's record in a push/pull: name, address, metadata and the names of the fields.
const maxRecord = 400

// packet judges a datagram.
func (e *envelope) packet(b []byte) Reason {
	if len(b) > maxPacket {
		return Size
	}
	sealed, ours := bytes.CutPrefix(b, e.header)
	if !ours {
		return Label
	}
	plain, r := e.open(sealed, e.label)
	if r != Passed {
		return r
	}
	return packetContent(plain)
}

// open returns the plaintext of a sealed message. An empty one is refused: memberlist reads its first byte unasked.
func (e *envelope) open(sealed, data []byte) ([]byte, Reason) {
	switch {
	case len(sealed) == 0 || sealed[0] != version:
		return nil, Version
	case len(sealed) <= overhead:
		return nil, Content
	}
	plain, err := e.aead.Open(nil, sealed[1:13], sealed[13:], data)
	if err != nil {
		return nil, Key
	}
	return plain, Passed
}

// packetContent admits what our own memberlist sends: an optional checksum, then one message or one flat compound
// of messages. It never sends compressed or nested ones, and this mesh has no user messages.
func packetContent(plain []byte) Reason {
	if len(plain) >= 5 && plain[0] == msgCRC {
		plain = plain[5:]
	}
	if len(plain) > 0 && plain[0] == msgCompound {
		return compoundContent(plain[1:])
	}
	return leaf(plain)
}

func compoundContent(b []byte) Reason {
	if len(b) < 1 || len(b) < 1+2*int(b[0]) {
		return Content
	}
	lengths, parts := b[1:1+2*int(b[0])], b[1+2*int(b[0]):]
	for ; len(lengths) > 0; lengths = lengths[2:] {
		n := int(binary.BigEndian.Uint16(lengths))
		if n > len(parts) || leaf(parts[:n]) != Passed {
			return Content
		}
		parts = parts[n:]
	}
	return Passed
}

func leaf(b []byte) Reason {
	if len(b) == 0 {
		return Content
	}
	switch b[0] {
	case msgPing, msgIndirect, msgAck, msgSuspect, msgAlive, msgDead, msgNack:
		return Passed
	}
	return Content
}

// streamContent admits a push/pull that claims no more than an honest site has (memberlist would allocate a
// million records on the word of a ten-byte header) and the small messages; replies and requests differ.
func (e *envelope) streamContent(plain []byte, reply bool) Reason {
	small := len(plain) <= maxSmall
	switch kind := plain[0]; {
	case kind == msgPushPull:
		var h struct {
			Nodes, UserStateLen int
			Join                bool
		}
		if err := codec.NewDecoderBytes(plain[1:], new(codec.MsgpackHandle)).Decode(&h); err != nil ||
			h.Nodes < 0 || h.Nodes > e.maxNodes || h.UserStateLen < 0 || h.UserStateLen > e.maxState {
			return Content
		}
		return Passed
	case kind == msgPing && !reply && small, (kind == msgAck || kind == msgError) && reply && small:
		return Passed
	}
	return Content
}
