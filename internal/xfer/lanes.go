package xfer

import (
	"bufio"
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/patchmesh/patchmesh/internal/wire"
)

var protocols = [2]protocol.ID{ControlProtocol, DataProtocol}

// Indices of lanes.
const (
	controlLane = 0
	dataLane    = 1
)

// lane is the place of a lane that the peer opens. It is taken once.
type lane struct {
	taken bool
	came  chan network.Stream
}

// offer gives the session a lane that the peer opened. False: there is one already, or the session has ended.
func (s *Session) offer(st network.Stream) bool {
	i := controlLane
	if st.Protocol() == DataProtocol {
		i = dataLane
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lanes[i].taken || s.ctx.Err() != nil {
		return false
	}
	s.lanes[i].taken = true
	s.lanes[i].came <- st
	return true
}

// run is the session's life: set up, talk, hang up.
func (s *Session) run() error {
	var out, in [2]network.Stream
	err := s.setUp(&out, &in)
	if err == nil {
		err = s.talk(out, in)
	}
	s.kill(err, nil)
	s.hangUp(out, in)
	s.mu.Lock()
	for i := range s.lanes {
		select {
		case in[i] = <-s.lanes[i].came: // a lane that came too late
			in[i].Reset()
		default:
		}
	}
	s.mu.Unlock()
	err = context.Cause(s.ctx)
	s.x.log.Debug("session ended", "peer", s.peer.String(), "err", err)
	return err
}

// setUp opens our lanes and waits for the peer's.
func (s *Session) setUp(out, in *[2]network.Stream) error {
	ctx, cancel := context.WithTimeout(s.ctx, setupTimeout)
	defer cancel()
	for i, p := range protocols {
		st, err := s.open(ctx, p)
		if err != nil {
			return fmt.Errorf("stream %s: %w", p, err)
		}
		out[i] = st
	}
	var p *path
	if out[dataLane].Conn().As(&p) {
		s.path.Store(p)
	}
	for i, p := range protocols {
		select {
		case in[i] = <-s.lanes[i].came:
		case <-ctx.Done():
			if s.ctx.Err() != nil {
				return context.Cause(s.ctx)
			}
			return fmt.Errorf("peer opened no stream %s", p)
		}
	}
	return nil
}

func (s *Session) open(ctx context.Context, p protocol.ID) (network.Stream, error) {
	st, err := s.x.h.NewStream(network.WithNoDial(ctx, "session"), s.peer, p)
	if err != nil {
		return nil, err
	}
	// Written at once: libp2p resets a stream on which nothing was written for 10 s.
	b, err := wire.Append(nil, &wire.Hello{Version: wire.Version, Site: s.x.cfg.Site, Name: s.x.cfg.Name, Software: s.x.cfg.Software, Clock: s.x.cfg.now().UnixMilli()})
	if err == nil {
		_, err = st.Write(b)
	}
	if err != nil {
		st.Reset()
		return nil, err
	}
	return handing{st}, nil
}

// readAhead bytes of a lane are buffered: some small frames, and a seeder has 2,400 lanes to read. Chunks are read past it.
const readAhead = 1 << 10

// greet reads the peer's Hello from both lanes and returns their readers.
func (s *Session) greet(in [2]network.Stream) (readers [2]*wire.Reader, err error) {
	for i, st := range in {
		readers[i] = wire.NewReader(bufio.NewReaderSize(hearing{st, &s.live, &s.in[i]}, readAhead), &s.x.buffers)
		st.SetReadDeadline(time.Now().Add(setupTimeout))
		m, err := readers[i].Next()
		if err != nil {
			return readers, fmt.Errorf("hello: %w", err)
		}
		st.SetReadDeadline(time.Time{})
		s.whole[i].Store(s.in[i].Load())
		h, ok := m.(*wire.Hello)
		switch {
		case !ok:
			return readers, misspoke("peer does not begin with hello")
		case h.Version != wire.Version:
			return readers, fmt.Errorf("peer speaks version %d, we speak %d", h.Version, wire.Version)
		case s.x.cfg.Site != "" && h.Site != "" && h.Site != s.x.cfg.Site:
			return readers, fmt.Errorf("peer is of site %q", h.Site)
		case i > 0 && !same(*h, s.hello):
			return readers, misspoke("peer's lanes say hello differently")
		}
		s.hello = *h
	}
	return readers, nil
}

func (c *Config) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

// same compares two greetings but for the time of day.
func same(a, b wire.Hello) bool {
	a.Clock, b.Clock = 0, 0
	return a == b
}

// hangUp closes every connection with the peer but the heir, and the lanes wherever they are, once. A connection
// without a session would be in the way of the next Dial. Connections go first: closing one never waits for the peer,
// but resetting a stream may, when the connection is dead and its queue full.
func (s *Session) hangUp(out, in [2]network.Stream) {
	s.close.Do(func() {
		s.mu.Lock()
		heir := s.heir
		s.mu.Unlock()
		for _, c := range s.x.h.Network().ConnsToPeer(s.peer) {
			if c != heir {
				c.Close()
			}
		}
		for _, st := range []network.Stream{out[0], out[1], in[0], in[1]} {
			if st != nil {
				st.Reset()
			}
		}
	})
}
