package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/patchmesh/patchmesh/internal/chunk"
)

// Limit is the largest payload of a type in bytes; unknown types have none.
func Limit(t Type) (bytes int, known bool) {
	n, ok := limits[t]
	return int(n), ok
}

// Append writes a whole frame to b. A message that the other end would refuse is an error.
func Append(b []byte, m Message) ([]byte, error) {
	start := len(b)
	b = append(b, byte(m.Type()), 0, 0, 0, 0)
	b, err := m.appendPayload(b)
	if err != nil {
		return nil, fmt.Errorf("frame type %d: %w", m.Type(), err)
	}
	n := len(b) - start - HeaderBytes
	if n > int(limits[m.Type()]) {
		return nil, fmt.Errorf("frame type %d of %d bytes: at most %d", m.Type(), n, limits[m.Type()])
	}
	binary.BigEndian.PutUint32(b[start+1:], uint32(n))
	return b, nil
}

// AppendDataHeader writes the frame header and the fixed part of a Data message whose payload of n bytes follows
// on the stream, so that a chunk need not be copied to be sent.
func AppendDataHeader(b []byte, req uint32, encoding byte, n int) ([]byte, error) {
	if n < 0 || dataHead+n > int(limits[TypeData]) {
		return nil, fmt.Errorf("data of %d bytes: at most %d", n, int(limits[TypeData])-dataHead)
	}
	b = append(b, byte(TypeData))
	b = binary.BigEndian.AppendUint32(b, uint32(dataHead+n))
	b = binary.BigEndian.AppendUint32(b, req)
	return append(b, encoding), nil
}

// DataHeaderBytes is how much AppendDataHeader appends.
const DataHeaderBytes = HeaderBytes + dataHead

const (
	smallBytes = 4 << 10                      // a Reader keeps a buffer of this size for itself
	stepBytes  = dataHead + chunk.DefaultSize // of shared buffers, and what a claim of more gets before it is proven
)

// Buffers are lent to Readers between the header of a longer frame and the next call of Next, so that a hundred
// silent streams hold none. The zero value is ready.
type Buffers struct {
	pools [3]sync.Pool // of buffers of stepBytes, and of twice and four times that, which nearly every frame fits
}

// get returns a buffer of stepBytes<<k, or, beyond what is lent, of at most n.
func (p *Buffers) get(k, n int) []byte {
	if k >= len(p.pools) {
		return make([]byte, min(n, stepBytes<<k))
	}
	if b, ok := p.pools[k].Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, stepBytes<<k)
}

func (p *Buffers) put(b []byte) {
	for k := range p.pools {
		if len(b) == stepBytes<<k {
			p.pools[k].Put(&b)
		}
	}
}

// MalformedError says that what came is not of the language. It is the sender's fault, and no accident of the network.
type MalformedError struct{ err error }

// Error implements error.
func (e *MalformedError) Error() string { return e.err.Error() }

// Unwrap implements the convention of package errors.
func (e *MalformedError) Unwrap() error { return e.err }

func malformed(format string, args ...any) error { return &MalformedError{fmt.Errorf(format, args...)} }

// Reader reads frames.
type Reader struct {
	r     io.Reader
	bufs  *Buffers
	hdr   [HeaderBytes]byte
	small []byte
	lent  []byte // from bufs, nil when given back
}

// NewReader returns a Reader on r, which should be buffered.
func NewReader(r io.Reader, bufs *Buffers) *Reader { return &Reader{r: r, bufs: bufs} }

// Close gives back what the Reader borrowed. The last message's payload is not valid any more.
func (r *Reader) Close() {
	if r.lent != nil {
		r.bufs.put(r.lent)
		r.lent = nil
	}
}

// Bytes is how many bytes of payload the last message had.
func (r *Reader) Bytes() int { return int(binary.BigEndian.Uint32(r.hdr[1:])) }

// Next reads one message. An unknown type, a length over the type's limit or a malformed payload is a MalformedError,
// after which the stream cannot be used. io.EOF between frames is returned as it is.
func (r *Reader) Next() (Message, error) {
	r.Close()
	if _, err := io.ReadFull(r.r, r.hdr[:]); err != nil {
		return nil, err
	}
	t, n := Type(r.hdr[0]), binary.BigEndian.Uint32(r.hdr[1:])
	limit, ok := limits[t]
	if !ok {
		return nil, malformed("frame of unknown type %d", t)
	}
	if n > limit {
		return nil, malformed("frame type %d of %d bytes: at most %d", t, n, limit)
	}
	b, err := r.payload(int(n))
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("frame type %d: %w", t, err)
	}
	m := newMessage(t)
	if err := m.parsePayload(b); err != nil {
		return nil, malformed("frame type %d: %w", t, err)
	}
	return m, nil
}

// payload reads n bytes into the smallest buffer that will do. Beyond stepBytes the buffer grows with what has
// arrived, so that a header alone, whatever it claims, costs little.
func (r *Reader) payload(n int) ([]byte, error) {
	if n <= smallBytes {
		if len(r.small) < n {
			r.small = make([]byte, max(n, 256))
		}
		_, err := io.ReadFull(r.r, r.small[:n])
		return r.small[:n], err
	}
	r.lent = r.bufs.get(0, n)
	for have, k := 0, 1; ; k++ {
		end := min(n, len(r.lent))
		m, err := io.ReadFull(r.r, r.lent[have:end])
		if have += m; err != nil || have == n {
			return r.lent[:have], err
		}
		more := r.bufs.get(k, n)
		copy(more, r.lent)
		r.bufs.put(r.lent)
		r.lent = more
	}
}

func newMessage(t Type) Message {
	switch t {
	case TypeHello:
		return new(Hello)
	case TypePing:
		return new(Ping)
	case TypePong:
		return new(Pong)
	case TypeDocs:
		return new(Docs)
	case TypeGetDoc:
		return new(GetDoc)
	case TypeDoc:
		return new(Doc)
	case TypeHave:
		return new(Have)
	case TypeHaveAdd:
		return new(HaveAdd)
	case TypeGet:
		return new(Get)
	case TypeData:
		return new(Data)
	case TypeRefuse:
		return new(Refuse)
	case TypeStatus:
		return new(Status)
	case TypeReport:
		return new(Report)
	case TypeReportAck:
		return new(ReportAck)
	case TypeUplink:
		return new(Uplink)
	case TypeLeaseAsk:
		return new(LeaseAsk)
	case TypeLeaseGrant:
		return new(LeaseGrant)
	case TypeLeaseRefuse:
		return new(LeaseRefuse)
	case TypeLeaseRenew:
		return new(LeaseRenew)
	case TypeLeaseRelease:
		return new(LeaseRelease)
	case TypeSiteState:
		return new(SiteState)
	}
	panic("a type has a limit but no message")
}
