package xfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// A peer that breaks a rule loses its session and nothing else is hurt.
func TestBrokenRules(t *testing.T) {
	hello := &wire.Hello{Version: wire.Version, Site: "s1", Name: "stranger"}
	ok := frames(t, hello)
	says := func(h wire.Hello) []byte { return frames(t, &h) }
	get, uplink := frames(t, &wire.Get{Req: 1}), frames(t, &wire.Uplink{})
	data := frames(t, &wire.Data{Req: 1, Payload: []byte("x")})
	for name, c := range map[string]struct {
		control, data []byte // what the stranger says on its lanes
		up            bool   // whether a session comes up first
	}{
		"unknown frame":               {append(slices.Clone(ok), 99, 0, 0, 0, 0), ok, true},
		"giant header":                {append(slices.Clone(ok), byte(wire.TypeStatus), 0xff, 0xff, 0xff, 0xff), ok, true},
		"giant header on data":        {ok, append(slices.Clone(ok), byte(wire.TypeData), 0xff, 0xff, 0xff, 0xff), true},
		"malformed payload":           {append(slices.Clone(ok), byte(wire.TypeUplink), 0, 0, 0, 2, '[', ']'), ok, true},
		"hello twice":                 {append(slices.Clone(ok), ok...), ok, true},
		"hello twice on data":         {ok, append(slices.Clone(ok), ok...), true},
		"data on the control lane":    {append(slices.Clone(ok), data...), ok, true},
		"get on the data lane":        {ok, append(slices.Clone(ok), get...), true},
		"message on the data lane":    {ok, append(slices.Clone(ok), uplink...), true},
		"wrong version":               {says(wire.Hello{Version: wire.Version + 1, Site: "s1"}), ok, false},
		"other site":                  {says(wire.Hello{Version: wire.Version, Site: "s2"}), ok, false},
		"other site on data":          {ok, says(wire.Hello{Version: wire.Version, Site: "s2"}), false},
		"lanes that differ":           {ok, says(wire.Hello{Version: wire.Version, Site: "s1", Name: "other"}), false},
		"no hello":                    {uplink, ok, false},
		"http":                        {[]byte("GET / HTTP/1.1\r\n\r\n"), ok, false},
		"positive control: all right": {append(slices.Clone(ok), uplink...), ok, true},
	} {
		t.Run(name, func(t *testing.T) {
			b, a := start(t), start(t)
			id, plain := b.hold(100_000)
			sa, _ := meet(t, a, b)
			s := newStranger(t, newKey(t))
			if err := s.connect(t, b); err != nil {
				t.Fatal(err)
			}
			s.open(t, b, xfer.ControlProtocol, c.control)
			s.open(t, b, xfer.DataProtocol, c.data)
			good := name == "positive control: all right"
			switch {
			case good:
				<-b.up
				if _, ok := (<-b.got).(*wire.Uplink); !ok {
					t.Error("the message did not arrive")
				}
			case c.up:
				<-b.up
				if d := <-b.down; d.s.Peer() != s.ID() {
					t.Fatal("the wrong session ended")
				}
			default: // the host hangs up without a session
				<-s.alone
			}
			if len(b.up) > 0 {
				t.Error("a session came up")
			}
			sa.Send(&wire.Get{Req: 7, ID: id})
			if d := (<-a.got).(*wire.Data); !bytes.Equal(d.Payload, plain) {
				t.Error("the honest peer got a wrong chunk")
			}
			if len(a.down) > 0 || len(b.down) > 0 {
				t.Error("the honest session was hurt")
			}
		})
	}
}

// A peer that does not read its control lane is let go before more than a bounded heap is queued for it.
func TestControlLaneIsNotRead(t *testing.T) {
	b := start(t)
	s := newStranger(t, newKey(t))
	_, _, up := s.join(t, b)
	doc := &wire.Doc{Kind: wire.DocManifest, Doc: make([]byte, 100_000)}
	sent := 0
	for ; len(b.down) == 0 && sent < 1000; sent++ {
		up.Send(doc)
	}
	if d := <-b.down; !errors.Is(d.err, xfer.ErrSlow) {
		t.Errorf("ended with %v", d.err)
	}
	size := len(frames(t, doc))
	if least := xfer.MaxControlBytes / size; sent < least {
		t.Errorf("let go after %d messages of %d bytes", sent, size)
	}
	for range 100 { // whoever still holds the session does no harm with it
		up.Send(doc)
	}
}

// The Gets of a peer wait in a bounded queue, what is beyond is refused as busy, and neither is in the way of
// control messages. Release is called once for each chunk.
func TestBusy(t *testing.T) {
	begun, leave := make(chan struct{}, 200), make(chan struct{})
	var released, sent atomic.Int32
	b := start(t, func(_ *xfer.Config, e *end) {
		e.serve = func(ctx context.Context, _ *xfer.Session, id chunk.ID) (xfer.Served, error) {
			begun <- struct{}{}
			select {
			case <-leave:
			case <-ctx.Done():
			}
			return xfer.Served{Payload: id[:], Release: func(ok bool) {
				released.Add(1)
				if ok {
					sent.Add(1)
				}
			}}, nil
		}
	})
	a := start(t)
	sa, sb := meet(t, a, b)
	sa.Send(&wire.Get{Req: 0})
	<-begun
	const more = 5
	for i := range xfer.MaxWaitingGets + more {
		sa.Send(&wire.Get{Req: uint32(1 + i)})
	}
	for i := range more {
		r := (<-a.got).(*wire.Refuse)
		if want := uint32(1 + xfer.MaxWaitingGets + i); r.Req != want || r.Reason != wire.ReasonBusy {
			t.Errorf("%+v, want busy for %d", r, want)
		}
	}
	sb.Send(&wire.Uplink{Holder: "b"})
	if _, ok := (<-a.got).(*wire.Uplink); !ok {
		t.Error("the control lane waits behind chunks")
	}
	close(leave)
	for i := range 1 + xfer.MaxWaitingGets {
		if d := (<-a.got).(*wire.Data); d.Req != uint32(i) {
			t.Errorf("answer %d is for request %d", i, d.Req)
		}
	}
	b.stop()
	if n := released.Load(); n != 1+xfer.MaxWaitingGets || sent.Load() != n {
		t.Errorf("released %d, %d as sent, of %d", n, sent.Load(), 1+xfer.MaxWaitingGets)
	}
}

// Pace is asked before every slice and may take its time: the control lane goes on. A session that ends half-way
// releases the chunk as not sent, once.
func TestPace(t *testing.T) {
	plain := bytes.Repeat([]byte("p"), 5*xfer.SliceBytes+100)
	asked, allow := make(chan int), make(chan struct{})
	releases := make(chan bool, 10)
	b := start(t, func(_ *xfer.Config, e *end) {
		e.serve = func(context.Context, *xfer.Session, chunk.ID) (xfer.Served, error) {
			return xfer.Served{Payload: plain, Release: func(sent bool) { releases <- sent }, Pace: func(ctx context.Context, n int) error {
				select {
				case asked <- n:
				case <-ctx.Done():
					return ctx.Err()
				}
				select {
				case <-allow:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}}, nil
		}
	})
	a := start(t)
	sa, sb := meet(t, a, b)
	sa.Send(&wire.Get{Req: 1})
	total := 0
	for i := range 6 {
		n := <-asked
		if total += n; n > xfer.SliceBytes+wire.DataHeaderBytes {
			t.Errorf("slice of %d bytes", n)
		}
		sb.Send(&wire.Uplink{Holder: fmt.Sprint(i)})
		if u := (<-a.got).(*wire.Uplink); u.Holder != fmt.Sprint(i) {
			t.Error("the control lane waits behind a paced chunk")
		}
		allow <- struct{}{}
	}
	if total != len(plain)+wire.DataHeaderBytes {
		t.Errorf("paced %d bytes of %d", total, len(plain)+wire.DataHeaderBytes)
	}
	if d := (<-a.got).(*wire.Data); !bytes.Equal(d.Payload, plain) || !<-releases {
		t.Error("the chunk did not arrive whole")
	}

	sa.Send(&wire.Get{Req: 2})
	for range 2 {
		<-asked
		allow <- struct{}{}
	}
	<-asked
	sb.End(errors.New("half-way"))
	<-b.down
	a.stop()
	b.stop()
	if sent := <-releases; sent || len(releases) > 0 {
		t.Errorf("released as sent %t, and %d times more", sent, len(releases))
	}
	if len(a.got) > 0 {
		t.Errorf("half a chunk arrived as %+v", <-a.got)
	}
}

func TestRefuse(t *testing.T) {
	why := errors.New("disk is on fire")
	answers := map[chunk.ID]error{}
	for _, r := range []wire.Reason{wire.ReasonNotHeld, wire.ReasonBusy, wire.ReasonNoLease, wire.ReasonDenied} {
		answers[chunk.ID{byte(r)}] = fmt.Errorf("wrapped: %w", xfer.RefuseError{Reason: r})
	}
	b := start(t, func(_ *xfer.Config, e *end) {
		e.serve = func(_ context.Context, _ *xfer.Session, id chunk.ID) (xfer.Served, error) {
			if id[0] == 100 {
				return xfer.Served{Payload: make([]byte, 2*chunk.MaxSize)}, nil
			}
			if err := answers[id]; err != nil {
				return xfer.Served{}, err
			}
			return xfer.Served{}, why
		}
	})
	a := start(t)
	sa, _ := meet(t, a, b)
	for id := range answers {
		sa.Send(&wire.Get{Req: uint32(id[0]), ID: id})
		if r := (<-a.got).(*wire.Refuse); r.Req != uint32(id[0]) || r.Reason != wire.Reason(id[0]) {
			t.Errorf("%+v for reason %d", r, id[0])
		}
	}
	sa.Send(&wire.Get{ID: chunk.ID{99}})
	if d := <-b.down; !errors.Is(d.err, why) {
		t.Errorf("ended with %v", d.err)
	}
	<-a.down
	sa, _ = meet(t, a, b)
	sa.Send(&wire.Get{ID: chunk.ID{100}})
	if d := <-b.down; d.err == nil { // our own mistake must not reach the wire
		t.Error("a chunk over the limit was sent")
	}
	<-a.down
}

// An error of the handler ends the session, the peer sees it as hanging up.
func TestHandlerError(t *testing.T) {
	why := errors.New("nonsense")
	b := start(t, func(_ *xfer.Config, e *end) {
		e.listen = func(*xfer.Session, wire.Message) error { return why }
	})
	a := start(t)
	sa, _ := meet(t, a, b)
	sa.Send(&wire.Uplink{})
	if d := <-b.down; !errors.Is(d.err, why) {
		t.Errorf("ended with %v", d.err)
	}
	<-a.down
}

// What is sent before End arrives, and nothing is brought to the end that ended it.
func TestParting(t *testing.T) {
	a, b := start(t), start(t)
	why := errors.New("done here")
	for i := range 30 {
		sa, sb := meet(t, a, b)
		for j := range 50 {
			sa.Send(&wire.LeaseRelease{Lease: uint64(j)})
		}
		sa.End(why)
		sb.Send(&wire.Uplink{})
		sa.Send(&wire.LeaseRelease{Lease: 1000}) // too late, and no harm
		if d := <-a.down; d.s != sa || !errors.Is(d.err, why) {
			t.Fatalf("round %d: ended with %v", i, d.err)
		}
		if d := <-b.down; !errors.Is(d.err, xfer.ErrHungUp) {
			t.Fatalf("round %d: the peer's session ended with %v", i, d.err)
		}
		for j := range 50 {
			if m := (<-b.got).(*wire.LeaseRelease); m.Lease != uint64(j) {
				t.Fatalf("round %d: message %d is %d", i, j, m.Lease)
			}
		}
		if len(b.got) > 0 || len(a.got) > 0 {
			t.Fatalf("round %d: %d and %d messages after the end", i, len(a.got), len(b.got))
		}
	}
}

// A peer whose machine stops is noticed by its silence, with every connection standing.
func TestSilence(t *testing.T) {
	quick := func(c *xfer.Config, _ *end) { c.ProbeActive, c.ProbeIdle = 50*time.Millisecond, time.Hour }
	a, b := start(t, quick), start(t, quick)
	r := newRelay(t, b.Addr())
	if err := a.Dial(t.Context(), b.ID(), r.addr()); err != nil {
		t.Fatal(err)
	}
	sa, sb := <-a.up, <-b.up
	r.cut()
	sa.SetActive(true) // idle, nobody would notice for hours
	if d := <-a.down; !errors.Is(d.err, xfer.ErrSilent) {
		t.Errorf("ended with %v", d.err)
	}
	if len(b.down) > 0 {
		t.Error("control: the idle end noticed as well")
	}
	sb.SetActive(true)
	if d := <-b.down; !errors.Is(d.err, xfer.ErrSilent) {
		t.Errorf("ended with %v", d.err)
	}
}

// A peer that restarts while its old connection still looks alive to us gets its new session at once, long before
// any probe.
func TestPeerStartsOver(t *testing.T) {
	key := newKey(t)
	same := func(c *xfer.Config, _ *end) { c.Key, c.ProbeIdle = key, time.Hour }
	b := start(t, func(c *xfer.Config, _ *end) { c.ProbeIdle = time.Hour })
	r := newRelay(t, b.Addr())
	a1 := start(t, same)
	if err := a1.Dial(t.Context(), b.ID(), r.addr()); err != nil {
		t.Fatal(err)
	}
	old := <-b.up
	r.cut()
	a1.stop() // b hears nothing of it
	a2 := start(t, same)
	id, plain := b.hold(50_000)
	s2, s := meet(t, a2, b)
	if d := <-b.down; d.s != old || !errors.Is(d.err, xfer.ErrReplaced) {
		t.Errorf("the old session ended with %v", d.err)
	}
	if got, ok := b.Session(a2.ID()); !ok || got != s || s == old {
		t.Error("the new session is not in its place")
	}
	s2.Send(&wire.Get{ID: id})
	if d := (<-a2.got).(*wire.Data); !bytes.Equal(d.Payload, plain) {
		t.Error("the new session does not work")
	}
}

// Two peers that dial each other at once have one session each, whichever connections win, and when it has ended
// nothing is left that is in the way of the next one.
func TestBothDial(t *testing.T) {
	a, b := start(t), start(t)
	for i := range 50 {
		var wg sync.WaitGroup
		for _, d := range [][2]*end{{a, b}, {b, a}} {
			wg.Go(func() {
				if err := d[0].Dial(t.Context(), d[1].ID(), d[1].Addr()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		sa, sb := <-a.up, <-b.up
		sa.Send(&wire.Uplink{Holder: "a"})
		sb.Send(&wire.Uplink{Holder: "b"})
		<-a.got
		<-b.got
		if len(a.up)+len(b.up)+len(a.down)+len(b.down) > 0 {
			t.Fatalf("round %d: %d and %d more sessions, %d and %d ended", i, len(a.up), len(b.up), len(a.down), len(b.down))
		}
		[]*xfer.Session{sa, sb}[i%2].End(errors.New("next round"))
		<-a.down
		<-b.down
	}
}

// A peer that opens lanes as fast as it can hurts itself only: Run still ends.
func TestLanesGalore(t *testing.T) {
	b := start(t)
	s := newStranger(t, newKey(t))
	hello := frames(t, &wire.Hello{Version: wire.Version, Site: "s1"})
	for range 20 {
		if err := s.connect(t, b); err != nil {
			continue // refused while the last ones are being closed
		}
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				p := xfer.ControlProtocol
				if i%4 == 3 {
					p = xfer.DataProtocol
				}
				if st, err := s.NewStream(t.Context(), b.ID(), p); err == nil {
					st.Write(hello)
				}
			})
		}
		wg.Wait()
		for drained := false; !drained; {
			select {
			case <-b.up:
			case <-b.down:
			case st := <-s.lanes:
				st.Reset()
			default:
				drained = true
			}
		}
	}
	go func() {
		for range b.up {
		}
	}()
	go func() {
		for range b.down {
		}
	}()
	defer close(b.up)
	defer close(b.down)
	b.stop()
}

// A host that is stopped in the middle of everything leaves nothing behind.
func TestNothingIsLeft(t *testing.T) {
	before := goleak.IgnoreCurrent()
	b := start(t)
	id, _ := b.hold(chunk.MaxSize)
	var peers []*end
	for range 4 {
		a := start(t)
		sa, _ := meet(t, a, b)
		for i := range 20 {
			sa.Send(&wire.Get{Req: uint32(i), ID: id})
		}
		<-a.got
		peers = append(peers, a)
	}
	b.stop()
	if err := b.Dial(t.Context(), peers[0].ID(), peers[0].Addr()); err == nil {
		t.Error("a stopped host dialled")
	}
	for _, a := range peers {
		<-a.down
		<-b.down
		a.stop()
	}
	goleak.VerifyNone(t, before, identifyLoop)
	if _, err := net.Dial("tcp", b.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
}

// Disconnect ends session and connections at once, and the peer may come back.
func TestDisconnect(t *testing.T) {
	a, b := start(t), start(t)
	why := errors.New("off the roster")
	for range 3 {
		meet(t, a, b)
		b.Disconnect(a.ID(), why)
		if d := <-b.down; !errors.Is(d.err, why) {
			t.Errorf("ended with %v", d.err)
		}
		<-a.down
	}
}
