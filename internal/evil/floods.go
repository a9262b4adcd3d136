package evil

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// perform introduces the peer and does what its roles do unasked, until the conversation ends.
func (t *talk) perform() error {
	p := t.p
	if t.seeder {
		return t.askLease()
	}
	docs := &wire.Docs{Entries: slices.Concat([]wire.DocEntry{}, p.cfg.Listed)}
	if p.plays(Forgery) {
		docs = p.forgeries()
	}
	if err := t.say(docs); err != nil {
		return err
	}
	for _, d := range p.bundles() {
		if err := t.claim(d); err != nil {
			return err
		}
	}
	up := &wire.Uplink{}
	if p.plays(FalseUp) {
		up.Holder = p.ID().String()
	}
	if err := t.say(up); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(t.ctx)
	for _, r := range p.cfg.Roles {
		if f := t.flood(r); f != nil {
			g.Go(func() error {
				for n := uint64(0); ctx.Err() == nil; n++ {
					if err := f(n); err != nil {
						return err
					}
					p.n.Sent.Add(1)
				}
				return ctx.Err()
			})
		}
	}
	g.Go(func() error { <-ctx.Done(); return ctx.Err() })
	return g.Wait()
}

func (p *Peer) bundles() (out []manifest.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d := range p.known {
		out = append(out, d)
	}
	return out
}

// flood is what a role does again and again, as fast as it can; nil: nothing.
func (t *talk) flood(r Role) func(n uint64) error {
	p := t.p
	say := func(make func(n uint64) wire.Message) func(uint64) error {
		return func(n uint64) error { return t.say(make(n)) }
	}
	total := max(p.total(p.cfg.Bundle), 1)
	switch r {
	case Flip:
		return func(n uint64) error {
			bits := byte(0xff)
			if n%2 == 1 {
				bits = 0
			}
			return t.say(have(p.cfg.Bundle, total, bits))
		}
	case Unasked:
		body := p.content(chunk.ID{})
		return say(func(n uint64) wire.Message { return &wire.Data{Req: 1<<31 + uint32(n), Payload: body} })
	case BigFrame:
		return func(uint64) error {
			if err := t.raw(data, []byte{byte(wire.TypeData), 0xff, 0xff, 0xff, 0xff}); err != nil {
				return err
			}
			return t.raw(data, make([]byte, 64<<10))
		}
	case Garbage:
		return func(uint64) error {
			b := make([]byte, 4<<10)
			rand.Read(b)
			return t.raw(control, b)
		}
	case WrongLane:
		return func(n uint64) error {
			b, err := wire.Append(nil, &wire.Data{Req: uint32(n), Payload: []byte("here")})
			if err != nil {
				return err
			}
			return t.raw(control, b)
		}
	case Forgery:
		return func(uint64) error {
			time.Sleep(100 * time.Millisecond)
			return t.say(p.forgeries())
		}
	case Pings:
		return say(func(n uint64) wire.Message { return &wire.Ping{Nonce: n} })
	case Gets:
		return say(func(n uint64) wire.Message { return &wire.Get{Req: uint32(n), ID: p.someChunk(n)} })
	case NoRead:
		return say(func(n uint64) wire.Message { return &wire.Get{Req: uint32(n), ID: p.someChunk(n)} })
	case GetDocs:
		return say(func(n uint64) wire.Message { return &wire.GetDoc{Digest: p.cfg.Bundle} })
	case Haves:
		return say(func(n uint64) wire.Message {
			d := p.cfg.Bundle
			if n%2 == 0 {
				binary.BigEndian.PutUint64(d[:], n) // bundles that nobody has heard of
			}
			return have(d, 1<<20, 0xff)
		})
	case HaveAdds:
		numbers := make([]uint32, wire.MaxHaveAdd)
		for i := range numbers {
			numbers[i] = uint32(i) % total
		}
		return say(func(n uint64) wire.Message { return &wire.HaveAdd{Bundle: p.cfg.Bundle, Numbers: numbers} })
	case Docs:
		return say(func(n uint64) wire.Message {
			l := &wire.Docs{}
			for i := range wire.MaxDocs {
				e := wire.DocEntry{Kind: wire.DocPolicy, Name: fmt.Sprintf("p%d-%d", n, i), Revision: 1}
				rand.Read(e.Digest[:])
				l.Entries = append(l.Entries, e)
			}
			return l
		})
	case DocsFull:
		doc := bytes.Repeat([]byte("x"), 256<<10)
		return say(func(n uint64) wire.Message { return &wire.Doc{Kind: wire.DocPolicy, Doc: doc, Sig: doc[:1<<10]} })
	case Statuses:
		return say(func(n uint64) wire.Message {
			s := status.Node{APIVersion: status.APIVersion, Kind: "NodeStatus", Site: p.cfg.Site, Node: p.cfg.Name, PeerID: p.ID().String(), Seq: n,
				Detail: string(bytes.Repeat([]byte("x"), 8<<10))}
			return &wire.Status{Node: s}
		})
	case Reports:
		return say(func(n uint64) wire.Message {
			return &wire.Report{Report: status.Report{Site: p.cfg.Site, Node: p.cfg.Name, Seq: n, Body: bytes.Repeat([]byte("x"), 4<<10), Sig: []byte("x")}}
		})
	case Flap:
		return say(func(n uint64) wire.Message {
			if n%2 == 0 {
				return &wire.Uplink{Holder: p.ID().String()}
			}
			return &wire.Uplink{}
		})
	case Streams:
		return func(n uint64) error {
			proto := xfer.ControlProtocol
			if n%2 == 0 {
				proto = protocol.ID(fmt.Sprintf("/nonsense/%d", n))
			}
			s, err := p.h.NewStream(t.ctx, t.to.ID, proto)
			if err == nil {
				_, err = s.Write([]byte{0})
			}
			return err
		}
	case Comes:
		return func(uint64) error { return errEnough }
	}
	return nil
}

// someChunk is one that exists, mostly.
func (p *Peer) someChunk(n uint64) (id chunk.ID) {
	if len(p.cfg.Chunks) > 0 && n%4 != 0 {
		return p.cfg.Chunks[n%uint64(len(p.cfg.Chunks))]
	}
	binary.BigEndian.PutUint64(id[:], n)
	return id
}
