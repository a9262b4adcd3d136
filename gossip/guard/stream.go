package guard

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
)

// readMessage reads the one message of a stream and judges it. It holds no more than maxStream bytes, and no more
// than have arrived. The label header precedes requests only. raw is what was read, for memberlist to parse.
func (e *envelope) readMessage(r io.Reader, reply bool) (raw []byte, why Reason) {
	header := e.header
	if reply {
		header = nil
	}
	const frame = 1 + 4 // type and length
	head := make([]byte, len(header)+frame+1)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, Slow
	}
	if !bytes.HasPrefix(head, header) {
		return nil, Label
	}
	typed := head[len(header):]
	n := int64(binary.BigEndian.Uint32(typed[1:frame]))
	switch {
	case typed[0] != msgEncrypt || typed[frame] != version:
		return nil, Version
	case n <= overhead:
		return nil, Content
	case n > int64(e.maxStream()):
		return nil, Size
	}
	buf := bytes.NewBuffer(head)
	if _, err := io.CopyN(buf, r, n-1); err != nil {
		return nil, Slow
	}
	raw = buf.Bytes()
	typed = raw[len(header):]
	data := append(bytes.Clone(typed[:frame]), e.label...)
	plain, why := e.open(typed[frame:], data)
	if why != Passed {
		return nil, why
	}
	return raw, e.streamContent(plain, reply)
}

// conn gives memberlist one message that was judged, then the end of the stream. One reader at a time.
type conn struct {
	net.Conn
	judge func() ([]byte, error) // run at the first read
	msg   *bytes.Reader
	err   error
	gone  func() // run at the first close
	once  sync.Once
}

func (c *conn) Read(p []byte) (int, error) {
	if c.msg == nil && c.err == nil {
		var raw []byte
		if raw, c.err = c.judge(); c.err == nil {
			c.msg = bytes.NewReader(raw)
		}
	}
	if c.err != nil {
		return 0, c.err
	}
	return c.msg.Read(p)
}

func (c *conn) Close() error {
	c.once.Do(c.gone)
	return c.Conn.Close()
}

// refused is what memberlist gets to read in place of a reply that was not let through.
func refused(r Reason, from net.Addr) error {
	return fmt.Errorf("reply from %v refused: %v", from, r)
}
