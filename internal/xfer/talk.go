package xfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/sync/errgroup"

	"github.com/patchmesh/patchmesh/internal/wire"
)

// talk greets the peer and runs the readers, the writers and the probe until one of them fails or the session is
// ended. Hanging up is what unblocks them.
func (s *Session) talk(out, in [2]network.Stream) error {
	g, ctx := errgroup.WithContext(s.ctx)
	parted := make(chan struct{})
	var readers [2]*wire.Reader
	g.Go(func() (err error) {
		if readers, err = s.greet(in); err != nil {
			return err
		}
		if !s.x.cfg.Allow(s.peer) { // the roster changed since the handshake
			return errDenied
		}
		s.up.Store(true)
		s.x.cfg.Handler.SessionUp(s)
		g.Go(func() error {
			defer close(parted)
			return s.read(readers[controlLane], controlLane)
		})
		g.Go(func() error { return s.read(readers[dataLane], dataLane) })
		g.Go(func() error { return s.writeControl(ctx, out[controlLane]) })
		g.Go(func() error { return s.writeData(ctx, s.limited(ctx, out[dataLane])) })
		g.Go(func() error { return s.probe(ctx) })
		return nil
	})
	<-ctx.Done()
	if s.ctx.Err() != nil && s.up.Load() { // not the peer's doing: a moment to part in order
		t := time.NewTimer(partTimeout)
		select {
		case <-parted:
		case <-s.cut:
		case <-t.C:
		}
		t.Stop()
	}
	s.hangUp(out, in)
	err := g.Wait()
	for _, r := range readers {
		if r != nil {
			r.Close()
		}
	}
	return err
}

func (s *Session) read(r *wire.Reader, lane int) error {
	toll := newMeter(s.x.cfg.Toll(s.peer))
	for {
		m, err := r.Next()
		var bad *wire.MalformedError
		switch {
		case errors.As(err, &bad):
			err = &FaultError{FaultProtocol, err}
		case errors.Is(err, io.EOF):
			err = errHungUp
		}
		if err != nil {
			return err
		}
		s.whole[lane].Store(s.in[lane].Load())
		if s.ctx.Err() != nil {
			continue // ended: only the peer's hanging up is of interest
		}
		if _, ok := m.(*wire.Data); ok != (lane == dataLane) {
			return misspoke("peer sent a message of type %d on the wrong lane", m.Type())
		}
		if m.Type() != wire.TypeGet {
			if err := toll.charge(time.Duration(s.live.now()), m.Type(), r.Bytes()); err != nil {
				return err
			}
		}
		switch m := m.(type) {
		case *wire.Hello:
			return misspoke("peer said hello twice")
		case *wire.Ping:
			s.Send(&wire.Pong{Nonce: m.Nonce})
		case *wire.Pong:
			s.live.pong(m.Nonce)
		case *wire.Get:
			select {
			case s.gets <- *m:
			default:
				if err := toll.charge(time.Duration(s.live.now()), wire.TypeGet, 0); err != nil {
					return err
				}
				s.Send(&wire.Refuse{Req: m.Req, Reason: wire.ReasonBusy})
			}
		default:
			s.live.busy.Add(1)
			err := s.x.cfg.Handler.Message(s, m)
			s.live.heard()
			s.live.busy.Add(-1)
			if err != nil {
				return err
			}
		}
	}
}

// spareBytes is how large a buffer of control frames is kept for the next ones.
const spareBytes = 256 << 10

// writeControl writes what Send queues. When the session is ended it writes the rest and says that this was all.
func (s *Session) writeControl(ctx context.Context, st network.Stream) error {
	var spare []byte
	for {
		s.mu.Lock()
		out := s.queue
		s.queue = spare[:0]
		s.mu.Unlock()
		if len(out) > 0 {
			if _, err := st.Write(out); err != nil {
				return err
			}
			if spare = out; cap(spare) > spareBytes {
				spare = nil
			}
			continue
		}
		if spare = out; ctx.Err() != nil {
			return st.CloseWrite()
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
		}
	}
}

// writeData answers Gets, one after the other.
func (s *Session) writeData(ctx context.Context, w io.Writer) error {
	toll := newMeter(s.x.cfg.Toll(s.peer))
	for {
		var get wire.Get
		select {
		case get = <-s.gets:
		case <-ctx.Done():
			return ctx.Err()
		}
		sv, err := s.x.cfg.Handler.Chunk(ctx, s, get.ID)
		var refuse RefuseError
		if errors.As(err, &refuse) {
			if err := toll.charge(time.Duration(s.live.now()), wire.TypeRefuse, 0); err != nil {
				return err
			}
			s.Send(&wire.Refuse{Req: get.Req, Reason: refuse.Reason})
			continue
		}
		if err != nil {
			return fmt.Errorf("chunk %s: %w", get.ID, err)
		}
		err = writeChunk(ctx, w, get.Req, sv)
		if sv.Release != nil {
			sv.Release(err == nil)
		}
		if err != nil {
			return fmt.Errorf("chunk %s: %w", get.ID, err)
		}
	}
}

func writeChunk(ctx context.Context, w io.Writer, req uint32, sv Served) error {
	var buf [wire.DataHeaderBytes]byte
	hdr, err := wire.AppendDataHeader(buf[:0], req, sv.Encoding, len(sv.Payload))
	if err != nil {
		return err
	}
	slice := len(sv.Payload)
	if sv.Pace != nil {
		slice = SliceBytes
	}
	for b := sv.Payload; len(b) > 0 || hdr != nil; {
		if sv.Slice != nil {
			slice = min(sv.Slice(), SliceBytes)
		}
		n := min(len(b), slice)
		if sv.Pace != nil {
			if err := sv.Pace(ctx, n+len(hdr)); err != nil {
				return err
			}
		}
		if hdr != nil {
			if _, err := w.Write(hdr); err != nil {
				return err
			}
			hdr = nil
		}
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
