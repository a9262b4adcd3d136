package xfer

import (
	"context"
	"io"

	"github.com/patchmesh/patchmesh/internal/wire"
)

// ahead is a data lane's writer that stays at most Limits.AheadBytes ahead of the socket. The muxer queues 64 frames,
// and as much as the peer says it has room for: a peer that asks for much and reads nothing would have us hold megabytes
// for it, and every control message to one that is merely slow would wait behind them.
type ahead struct {
	ctx   context.Context
	w     io.Writer
	p     *path
	most  int64
	frame int    // bytes written at a time
	head  []byte // the header of a chunk, which is to share its first frame
}

// limited returns the writer for a lane that chunks leave by.
func (s *Session) limited(ctx context.Context, w io.Writer) io.Writer {
	l, p := s.x.cfg.Limits, s.path.Load()
	if l.AheadBytes == 0 || p == nil {
		return w
	}
	return &ahead{ctx: ctx, w: w, p: p, most: int64(l.AheadBytes), frame: l.FrameBytes}
}

// Write implements io.Writer.
func (a *ahead) Write(b []byte) (int, error) {
	if len(b) == wire.DataHeaderBytes && len(a.head) == 0 {
		a.head = append(a.head, b...)
		return len(b), nil
	}
	n := len(b)
	if len(a.head) > 0 {
		k := min(len(b), SliceBytes)
		a.head = append(a.head, b[:k]...)
		if err := a.write(a.head); err != nil {
			return 0, err
		}
		a.head, b = a.head[:0], b[k:]
	}
	for len(b) > 0 {
		k := min(len(b), a.frame)
		if err := a.write(b[:k]); err != nil {
			return n - len(b), err
		}
		b = b[k:]
	}
	return n, nil
}

func (a *ahead) write(b []byte) error {
	for a.p.waiting() > a.most {
		select {
		case <-a.p.room:
		case <-a.ctx.Done():
			return a.ctx.Err()
		}
	}
	_, err := a.w.Write(b)
	return err
}

// waiting is how many bytes were handed over and are not written.
func (p *path) waiting() int64 {
	handed, written := p.handed.Load(), p.written.Load()
	if written >= handed {
		p.handed.CompareAndSwap(handed, written) // the muxer's own frames are not to add up
		return 0
	}
	return handed - written
}
