package xfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/sync/errgroup"

	"github.com/patchmesh/patchmesh/internal/wire"
)

// Served is the answer to a Get.
type Served struct {
	Encoding byte
	Payload  []byte
	// Pace, when not nil, is called before each slice of at most SliceBytes is written, and may wait: the seeder's
	// rate limit. Progress of the peer is not at stake: its control lane goes on.
	Pace func(ctx context.Context, n int) error
	// Release, when not nil, is called when the payload is no longer needed.
	Release func(sent bool)
}

// RefuseError makes a Get be answered with Refuse; the session goes on.
type RefuseError struct{ Reason wire.Reason }

// Error implements error.
func (e RefuseError) Error() string { return "refused: " + e.Reason.String() }

// Bounds of a session.
const (
	SliceBytes      = 16 << 10
	MaxWaitingGets  = 64      // further ones are refused as busy
	maxControlBytes = 8 << 20 // queued control frames; a peer that does not read them is let go
	setupTimeout    = 10 * time.Second
)

var (
	errReplaced = errors.New("peer started over")
	errSilent   = errors.New("peer is silent")
	errSlow     = errors.New("peer does not read its control lane")
)

// Session is the conversation with one peer. All methods are safe for concurrent use.
type Session struct {
	x     *Host
	peer  peer.ID
	hello wire.Hello // set before SessionUp
	up    atomic.Bool
	gone  chan struct{} // closed when nothing of the session is left

	in     map[protocol.ID]chan network.Stream // lanes that the peer opened, one each
	cancel context.CancelCauseFunc             // set by newSession
	ctx    context.Context

	mu    sync.Mutex // guards queue
	queue []byte     // encoded control frames
	wake  chan struct{}
	gets  chan wire.Get

	heard   atomic.Int64 // unix nanoseconds of the last byte from the peer
	busy    atomic.Int32 // readers inside Handler.Message: their silence is ours
	rtt     atomic.Int64 // smallest round trip seen, nanoseconds
	probing atomic.Int64 // interval of pings, nanoseconds
	pinged  atomic.Int64 // when the last ping was sent
	reping  chan struct{}
}

func newSession(x *Host, p peer.ID) *Session {
	s := &Session{x: x, peer: p, gone: make(chan struct{}), wake: make(chan struct{}, 1), reping: make(chan struct{}, 1), gets: make(chan wire.Get, MaxWaitingGets),
		in: map[protocol.ID]chan network.Stream{ControlProtocol: make(chan network.Stream, 1), DataProtocol: make(chan network.Stream, 1)}}
	s.ctx, s.cancel = context.WithCancelCause(x.ctx)
	s.probing.Store(int64(ProbeIdle))
	return s
}

// Intervals of liveness probes. A session is silent, and ends, when nothing was heard for three and a half of them.
const (
	ProbeActive = time.Second
	ProbeIdle   = 20 * time.Second
)

// Peer is the other end.
func (s *Session) Peer() peer.ID { return s.peer }

// Hello is what the other end said of itself.
func (s *Session) Hello() wire.Hello { return s.hello }

// RTT is the smallest round trip seen, 0 before the first.
func (s *Session) RTT() time.Duration { return time.Duration(s.rtt.Load()) }

// SetActive chooses between quick and thrifty liveness probes.
func (s *Session) SetActive(active bool) {
	d := ProbeIdle
	if active {
		d = ProbeActive
	}
	if s.probing.Swap(int64(d)) != int64(d) {
		select {
		case s.reping <- struct{}{}:
		default:
		}
	}
}

// End ends the session.
func (s *Session) End(why error) { s.cancel(why) }

// Send queues a control message. It never blocks; a peer that does not read is let go. A message over its limit is
// an error of ours and ends the session.
func (s *Session) Send(m wire.Message) {
	s.mu.Lock()
	b, err := wire.Append(s.queue, m)
	if err == nil {
		s.queue = b
	}
	n := len(s.queue)
	s.mu.Unlock()
	if err == nil && n > maxControlBytes {
		err = errSlow
	}
	if err != nil {
		s.End(err)
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Session) offer(st network.Stream) bool {
	if s.ctx.Err() != nil {
		return false
	}
	select {
	case s.in[st.Protocol()] <- st:
		return true
	default:
		return false
	}
}

// run opens our lanes, waits for the peer's, and works until something ends. All streams and the connections they
// were on are closed when it returns.
func (s *Session) run(ctx context.Context) {
	var streams []network.Stream
	err := func() error {
		var lanes [4]network.Stream
		for i, p := range []protocol.ID{ControlProtocol, DataProtocol} {
			st, err := s.open(p)
			if err != nil {
				return err
			}
			lanes[i], streams = st, append(streams, st)
		}
		for i, p := range []protocol.ID{ControlProtocol, DataProtocol} {
			t := time.NewTimer(setupTimeout)
			select {
			case st := <-s.in[p]:
				lanes[2+i], streams = st, append(streams, st)
				s.in[p] <- st // the place stays taken: a second lane means that the peer started over
			case <-t.C:
				return fmt.Errorf("peer opened no %s stream", p)
			case <-s.ctx.Done():
			}
			t.Stop()
			if s.ctx.Err() != nil {
				return context.Cause(s.ctx)
			}
		}
		return s.talk(lanes)
	}()
	s.cancel(err)
	for _, st := range streams {
		st.Reset()
		st.Conn().Close()
	}
	for p := range s.in { // a lane that came too late
		select {
		case st := <-s.in[p]:
			st.Reset()
		default:
		}
	}
	s.x.log.Debug("session ended", "peer", s.peer.String(), "err", err)
}

func (s *Session) open(p protocol.ID) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(network.WithNoDial(s.ctx, "session"), setupTimeout)
	defer cancel()
	st, err := s.x.h.NewStream(ctx, s.peer, p)
	if err != nil {
		return nil, err
	}
	// Written at once: libp2p resets a stream on which nothing was written for 10 s.
	b, err := wire.Append(nil, &wire.Hello{Version: wire.Version, Site: s.x.cfg.Site, Name: s.x.cfg.Name, Software: s.x.cfg.Software})
	if err == nil {
		_, err = st.Write(b)
	}
	if err != nil {
		st.Reset()
		return nil, err
	}
	return st, nil
}

// talk runs the two writers and the two readers. The first error ends all of them.
func (s *Session) talk(lanes [4]network.Stream) error {
	readers := [2]*wire.Reader{}
	for i := range readers {
		st := lanes[2+i]
		st.SetReadDeadline(time.Now().Add(setupTimeout))
		readers[i] = wire.NewReader(bufio.NewReaderSize(&hearing{st, s}, 8<<10), &s.x.buffers)
		defer readers[i].Close()
		m, err := readers[i].Next()
		if err != nil {
			return err
		}
		st.SetReadDeadline(time.Time{})
		h, ok := m.(*wire.Hello)
		if !ok || h.Version != wire.Version {
			return errors.New("peer speaks another version")
		}
		if s.x.cfg.Site != "" && h.Site != "" && h.Site != s.x.cfg.Site {
			return fmt.Errorf("peer is of site %q", h.Site)
		}
		s.hello = *h
	}
	s.heard.Store(time.Now().UnixNano())
	s.up.Store(true)
	s.x.cfg.Handler.SessionUp(s)
	g, ctx := errgroup.WithContext(s.ctx)
	g.Go(func() error { return s.read(readers[0]) })
	g.Go(func() error { return s.read(readers[1]) })
	g.Go(func() error { return s.writeControl(ctx, lanes[0]) })
	g.Go(func() error { return s.writeData(ctx, lanes[1]) })
	g.Go(func() error { return s.probe(ctx) })
	g.Go(func() error { // unblocks readers and writers
		<-ctx.Done()
		for _, st := range lanes {
			st.Reset()
		}
		return context.Cause(s.ctx)
	})
	err := g.Wait()
	if cause := context.Cause(s.ctx); cause != nil {
		err = cause
	}
	s.up.Store(false)
	s.x.cfg.Handler.SessionDown(s, err)
	return err
}

func (s *Session) read(r *wire.Reader) error {
	for {
		m, err := r.Next()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *wire.Hello:
			return errors.New("peer said hello twice")
		case *wire.Ping:
			s.Send(&wire.Pong{Nonce: m.Nonce})
		case *wire.Pong:
			if d := time.Now().UnixNano() - int64(m.Nonce); d > 0 && m.Nonce == uint64(s.pinged.Load()) {
				if old := s.rtt.Load(); old == 0 || d < old {
					s.rtt.Store(d)
				}
			}
		case *wire.Get:
			select {
			case s.gets <- *m:
			default:
				s.Send(&wire.Refuse{Req: m.Req, Reason: wire.ReasonBusy})
			}
		default:
			s.busy.Add(1)
			err := s.x.cfg.Handler.Message(s, m)
			s.heard.Store(time.Now().UnixNano())
			s.busy.Add(-1)
			if err != nil {
				return err
			}
		}
	}
}

func (s *Session) writeControl(ctx context.Context, w io.Writer) error {
	var spare []byte
	for {
		s.mu.Lock()
		out := s.queue
		s.queue = spare[:0]
		s.mu.Unlock()
		if len(out) > 0 {
			if _, err := w.Write(out); err != nil {
				return err
			}
			if spare = out; cap(spare) > 256<<10 {
				spare = nil
			}
			continue
		}
		spare = out
		select {
		case <-s.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Session) writeData(ctx context.Context, w io.Writer) error {
	var hdr [16]byte
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
			s.Send(&wire.Refuse{Req: get.Req, Reason: refuse.Reason})
			continue
		}
		if err != nil {
			return fmt.Errorf("chunk %s: %w", get.ID, err)
		}
		head, err := wire.AppendDataHeader(hdr[:0], get.Req, sv.Encoding, len(sv.Payload))
		if err == nil {
			err = s.writeChunk(ctx, w, head, sv)
		}
		if sv.Release != nil {
			sv.Release(err == nil)
		}
		if err != nil {
			return err
		}
	}
}

func (s *Session) writeChunk(ctx context.Context, w io.Writer, hdr []byte, sv Served) error {
	if sv.Pace == nil {
		if _, err := w.Write(hdr); err != nil {
			return err
		}
		_, err := w.Write(sv.Payload)
		return err
	}
	for b := sv.Payload; len(b) > 0 || hdr != nil; {
		n := min(len(b), SliceBytes)
		if err := sv.Pace(ctx, n+len(hdr)); err != nil {
			return err
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

// probe sends pings and ends the session when the peer is silent. While one of our readers is inside the handler
// nothing can be heard, which is not the peer's fault.
func (s *Session) probe(ctx context.Context) error {
	for {
		every := time.Duration(s.probing.Load())
		t := time.NewTimer(every)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-s.reping:
			t.Stop()
			s.heard.Store(time.Now().UnixNano()) // a new interval begins
		case <-t.C:
		}
		now := time.Now().UnixNano()
		if silent := time.Duration(now - s.heard.Load()); silent > every*7/2 && s.busy.Load() == 0 {
			return fmt.Errorf("%w for %s", errSilent, silent.Round(time.Millisecond))
		}
		s.pinged.Store(now)
		s.Send(&wire.Ping{Nonce: uint64(now)})
	}
}

// hearing notes when bytes arrive, so that a long frame on a thin line counts as a sign of life.
type hearing struct {
	r io.Reader
	s *Session
}

func (h *hearing) Read(b []byte) (int, error) {
	n, err := h.r.Read(b)
	if n > 0 {
		h.s.heard.Store(time.Now().UnixNano())
	}
	return n, err
}
