package evil

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/encoding"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/wire"
)

// listen reads what the target says on one lane.
func (t *talk) listen(s network.Stream) error {
	var bufs wire.Buffers
	r := wire.NewReader(bufio.NewReaderSize(s, 16<<10), &bufs)
	defer r.Close()
	for {
		m, err := r.Next()
		if err != nil {
			return err
		}
		if err := t.hear(m); err != nil {
			return err
		}
	}
}

func (t *talk) hear(m wire.Message) error {
	p := t.p
	switch m := m.(type) {
	case *wire.Ping: // it is alive and well
		return t.say(&wire.Pong{Nonce: m.Nonce})
	case *wire.Get:
		p.n.Asked.Add(1)
		return t.answer(m)
	case *wire.Have:
		if p.learn(m.Bundle, m.Total) {
			return t.claim(m.Bundle)
		}
	case *wire.GetDoc:
		return t.forged(m.Digest)
	case *wire.LeaseGrant:
		return t.granted(m)
	case *wire.LeaseRefuse:
		return t.refusedLease(m)
	case *wire.Data:
		if t.seeder {
			p.n.WAN.Add(int64(len(m.Payload)))
			return t.say(t.next())
		}
	case *wire.Refuse:
		return t.refused(m)
	}
	return nil
}

// learn notes how many chunks a bundle has; true: that is news.
func (p *Peer) learn(d manifest.Digest, total uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if total <= p.known[d] {
		return false
	}
	p.known[d] = total
	return true
}

func (p *Peer) total(d manifest.Digest) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[d]
}

// claims says which roles pretend to hold everything.
func (p *Peer) claims() bool {
	return p.plays(Poison, Short, Long, BadEncoding, Bomb, Stall, Drip, Refuse, Twice, Honest)
}

// claim says what we pretend to hold of a bundle.
func (t *talk) claim(d manifest.Digest) error {
	total := t.p.total(d)
	switch {
	case t.p.plays(Beyond):
		total = wire.MaxHaveChunks
	case !t.p.claims():
		return t.say(have(d, total, 0))
	}
	return t.say(have(d, total, 0xff))
}

func have(d manifest.Digest, total uint32, bits byte) *wire.Have {
	m := bytes.Repeat([]byte{bits}, int(total+7)/8)
	if r := total % 8; r != 0 {
		m[len(m)-1] &= 1<<r - 1
	}
	return &wire.Have{Bundle: d, Wants: true, Total: total, Bitmap: m}
}

// answer answers a Get, each role in its way.
func (t *talk) answer(g *wire.Get) error {
	p := t.p
	p.n.Sent.Add(1)
	body := p.content(g.ID)
	send := func(k encoding.Kind, b []byte) error {
		return t.say(&wire.Data{Req: g.Req, Encoding: byte(k), Payload: b})
	}
	switch {
	case p.fair.Add(-1) >= 0, p.plays(Honest):
		return send(encoding.Plain, body)
	case p.plays(Poison):
		body = bytes.Clone(body)
		body[len(body)/2] ^= 1
		return send(encoding.Plain, body)
	case p.plays(Short):
		return send(encoding.Plain, body[:len(body)-1])
	case p.plays(Long):
		return send(encoding.Plain, append(bytes.Clone(body), 0))
	case p.plays(BadEncoding):
		return send(99, body)
	case p.plays(Bomb):
		return send(encoding.Zstd, bomb())
	case p.plays(Stall):
		return nil
	case p.plays(Drip):
		return t.drip(g.Req, body)
	case p.plays(Refuse):
		return t.say(&wire.Refuse{Req: g.Req, Reason: wire.ReasonNotHeld}, have(p.cfg.Bundle, p.total(p.cfg.Bundle), 0xff))
	case p.plays(Twice):
		if err := send(encoding.Plain, body); err != nil {
			return err
		}
		return send(encoding.Plain, body)
	}
	return t.say(&wire.Refuse{Req: g.Req, Reason: wire.ReasonNotHeld})
}

// content is the chunk, or as much as one might have.
func (p *Peer) content(id chunk.ID) []byte {
	if p.cfg.Content != nil {
		if b, err := p.cfg.Content(id); err == nil && len(b) > 0 {
			return b
		}
	}
	b := make([]byte, chunk.DefaultSize)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// drip begins an answer in order and goes on by a byte a second. What else is asked waits.
func (t *talk) drip(req uint32, body []byte) error {
	b, err := wire.AppendDataHeader(nil, req, byte(encoding.Plain), len(body))
	if err != nil {
		return err
	}
	t.work.Go(func() { // ends with the conversation
		t.mu[data].Lock()
		defer t.mu[data].Unlock()
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for rest := append(b, body...); len(rest) > 0; rest = rest[1:] {
			if _, err := t.out[data].Write(rest[:1]); err != nil {
				return
			}
			select {
			case <-tick.C:
			case <-t.ctx.Done():
				return
			}
		}
	})
	return nil
}

// bomb is a zstd frame that decodes to a GiB of zeros.
var bomb = sync.OnceValue(func() []byte {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	zeros := make([]byte, 1<<20)
	for range 1 << 10 {
		_, _ = w.Write(zeros)
	}
	w.Close()
	return out.Bytes()
})

// forgery is the n-th document that is not genuine.
func forgery(n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(`{"forged":true}`), n)
}

// forgeries is a list of policies that nobody has signed, each newer than all others.
func (p *Peer) forgeries() *wire.Docs {
	l := &wire.Docs{}
	for n := range uint64(64) {
		l.Entries = append(l.Entries, wire.DocEntry{Kind: wire.DocPolicy, Name: "all", Revision: 1<<40 + n, Digest: sha256.Sum256(forgery(n))})
	}
	return l
}

// forged answers a question for one of them.
func (t *talk) forged(d manifest.Digest) error {
	for _, doc := range t.p.cfg.Docs {
		if sha256.Sum256(doc.Doc) == [32]byte(d) {
			return t.say(doc)
		}
	}
	if !t.p.plays(Forgery) {
		return nil
	}
	for n := range uint64(64) {
		if sha256.Sum256(forgery(n)) == [32]byte(d) {
			t.p.n.Sent.Add(1)
			return t.say(&wire.Doc{Kind: wire.DocPolicy, Doc: forgery(n), Sig: []byte("-----BEGIN PGP SIGNATURE-----\n\nnone\n-----END PGP SIGNATURE-----\n")})
		}
	}
	return nil
}
