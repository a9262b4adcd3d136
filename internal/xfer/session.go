package xfer

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/internal/wire"
)

// Served is the answer to a Get.
type Served struct {
	Encoding byte
	Payload  []byte
	// Pace, when not nil, is called before each slice of at most SliceBytes is written, and may wait: the seeder's
	// rate limit. Progress of the peer is not at stake: its control lane goes on.
	Pace func(ctx context.Context, n int) error
	// Slice, when not nil, says before each call of Pace how many bytes the next slice has at most; at least 1.
	Slice func() int
	// Release, when not nil, is called once when the payload is no longer needed. It is not called when Chunk
	// returned an error.
	Release func(sent bool)
}

// RefuseError makes a Get be answered with Refuse; the session goes on.
type RefuseError struct{ Reason wire.Reason }

// Error implements error.
func (e RefuseError) Error() string { return "refused: " + e.Reason.String() }

// Bounds of a session.
const (
	SliceBytes      = 16<<10 - frameHeader // a frame of the muxer, and with its header a TLS record
	MaxWaitingGets  = 64                   // further ones are refused as busy
	maxControlBytes = 8 << 20              // queued control frames; a peer that does not read them is let go
	setupTimeout    = 10 * time.Second
	partTimeout     = time.Second // to say what is queued when a session ends
)

// Intervals of liveness probes. A session is silent, and ends, when nothing was heard for three and a half of them.
const (
	ProbeActive = time.Second
	ProbeIdle   = 20 * time.Second
)

var (
	errReplaced = errors.New("peer started over")
	errSilent   = errors.New("peer is silent")
	errSlow     = errors.New("peer does not read its control lane")
	errHungUp   = errors.New("peer hung up")
	errDenied   = errors.New("peer is not allowed any more")
)

// Session is the conversation with one peer. All methods are safe for concurrent use.
type Session struct {
	x     *Host
	peer  peer.ID
	hello wire.Hello // set before SessionUp
	up    atomic.Bool
	gone  chan struct{} // closed when nothing of the session is left

	ctx    context.Context // ends when the session does
	cancel context.CancelCauseFunc
	cut    chan struct{} // closed when there is nothing to wait for either
	close  sync.Once     // see hangUp

	mu    sync.Mutex // guards the fields below
	queue []byte     // encoded control frames
	lanes [2]lane    // that the peer opened
	heir  network.Conn
	isCut bool

	wake  chan struct{} // the queue is not empty
	gets  chan wire.Get
	live  liveness
	in    [2]atomic.Int64      // bytes that came on a lane
	whole [2]atomic.Int64      // of them, up to the end of its last whole frame
	path  atomic.Pointer[path] // of the connection that the data lane is on; nil before it is open
}

func newSession(x *Host, p peer.ID) *Session {
	s := &Session{x: x, peer: p, gone: make(chan struct{}), cut: make(chan struct{}),
		wake: make(chan struct{}, 1), gets: make(chan wire.Get, MaxWaitingGets)}
	for i := range s.lanes {
		s.lanes[i].came = make(chan network.Stream, 1)
	}
	s.ctx, s.cancel = context.WithCancelCause(x.ctx)
	s.live.start(x.cfg.ProbeIdle)
	return s
}

// Peer is the other end.
func (s *Session) Peer() peer.ID { return s.peer }

// Hello is what the other end said of itself.
func (s *Session) Hello() wire.Hello { return s.hello }

// RTT is the smallest round trip seen, 0 before the first.
func (s *Session) RTT() time.Duration { return time.Duration(s.live.rtt.Load()) }

// Begun reports whether the peer has begun to send a chunk that is not whole yet.
func (s *Session) Begun() bool { return s.in[dataLane].Load() > s.whole[dataLane].Load() }

// DataIn is how many bytes have come on the peer's data lane.
func (s *Session) DataIn() int64 { return s.in[dataLane].Load() }

// SetActive chooses between quick and thrifty liveness probes.
func (s *Session) SetActive(active bool) {
	if active {
		s.live.setInterval(s.x.cfg.ProbeActive)
	} else {
		s.live.setInterval(s.x.cfg.ProbeIdle)
	}
}

// End ends the session. What was sent before is still written, within a second; nothing is received any more.
func (s *Session) End(why error) { s.cancel(why) }

// kill ends the session at once. heir is the connection on which the peer started over, which stays, or nil.
func (s *Session) kill(why error, heir network.Conn) {
	s.cancel(why)
	s.mu.Lock()
	defer s.mu.Unlock()
	if heir != nil {
		s.heir = heir
	}
	if !s.isCut {
		s.isCut = true
		close(s.cut)
	}
}

// Send queues a control message. It never blocks; a peer that does not read is let go. A message over its limit is
// an error of ours and ends the session. After the end Send does nothing.
func (s *Session) Send(m wire.Message) {
	if s.ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	b, err := wire.Append(s.queue, m)
	if err == nil {
		s.queue = b
		if len(b) > maxControlBytes {
			err = errSlow
		}
	}
	s.mu.Unlock()
	if err != nil {
		s.kill(err, nil)
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
