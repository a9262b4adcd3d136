package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// BenchmarkUplinks connects one uplink for each of many sites to a seeder process, lets each take the lease and fetch a
// bundle, and says what that cost the seeder. The number of sites comes from SEEDER_BENCH_SITES (100; the figure that is
// published is for 1200, which wants 16384 file descriptors):
//
//	SEEDER_BENCH_SITES=1200 go test ./cmd/seeder -run '^$' -bench Uplinks -benchtime 1x
func BenchmarkUplinks(b *testing.B) {
	sites := 100
	if s := os.Getenv("SEEDER_BENCH_SITES"); s != "" {
		var err error
		if sites, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		benchUplinks(b, sites)
	}
}

func benchUplinks(b *testing.B, sites int) {
	dir := b.TempDir()
	flags, release := keys(b, dir)
	p := launch(b, filepath.Join(dir, "st"), flags...)
	catalog := publish(b, p, noiseBundle(b, dir, 9*chunk.DefaultSize, release))
	began := time.Now()
	ups := make([]*uplink, sites)
	each(b, ups, 8, func(i int) (err error) { ups[i], err = enrolUplink(b, p, i); return err })
	b.ReportMetric(time.Since(began).Seconds(), "s-enrol")
	idle := usage(b, p)

	began = time.Now()
	each(b, ups, 64, func(i int) error { return ups[i].connect(b, p) })
	b.ReportMetric(time.Since(began).Seconds(), "s-connect")
	connected := usage(b, p)
	b.ReportMetric(connected.cpu-idle.cpu, "cpu-s-connect")
	b.ReportMetric(connected.rss, "MB-connected")

	began = time.Now()
	var bytes, lost atomic.Int64
	each(b, ups, sites, func(i int) error { return ups[i].fetch(b, p, catalog, &bytes, &lost) })
	served := usage(b, p)
	b.ReportMetric(time.Since(began).Seconds(), "s-fetch")
	b.ReportMetric(served.cpu-connected.cpu, "cpu-s-fetch")
	b.ReportMetric(served.peak, "MB-peak")
	b.ReportMetric(float64(bytes.Load())/1e6, "MB-served")
	b.ReportMetric(float64(lost.Load()), "sessions-lost")
	f, err := p.admin.Status(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if want := catalog.Bytes() * int64(sites); f.WAN.Needed != want {
		b.Errorf("accounts %+v, want %d bytes needed", f.WAN, want)
	}
	p.signal(b, os.Interrupt)
}

// publish sends a bundle to a seeder, as "meshctl bundle push" does.
func publish(b testing.TB, p *process, bundle *chunker.Bundle) *manifest.Catalog {
	b.Helper()
	sums, err := bundle.SignedSums()
	if err != nil {
		b.Fatal(err)
	}
	begun, err := p.admin.BeginBundle(b.Context(), api.BundleUpload{Manifest: bundle.Signed, Index: bundle.IndexBytes(), Sums: sums})
	if err != nil {
		b.Fatal(err)
	}
	catalog := bundle.Catalog()
	for _, id := range begun.Missing {
		i, _ := catalog.Position(id)
		plain, err := bundle.ReadChunk(catalog.Chunks[i])
		if err != nil {
			b.Fatal(err)
		}
		if err := p.admin.PutChunk(b.Context(), id, plain); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := p.admin.CommitBundle(b.Context(), bundle.Digest); err != nil {
		b.Fatal(err)
	}
	return catalog
}

func each(b *testing.B, ups []*uplink, parallel int, fn func(i int) error) {
	b.Helper()
	var g errgroup.Group
	g.SetLimit(parallel)
	for i := range ups {
		g.Go(func() error { return fn(i) })
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

// uplink is the one node of a site.
type uplink struct {
	*xfer.Host
	up   chan *xfer.Session
	down chan error
	got  chan wire.Message
	s    *xfer.Session
}

func (u *uplink) SessionUp(s *xfer.Session)              { u.up <- s }
func (u *uplink) SessionDown(_ *xfer.Session, err error) { u.down <- err }
func (u *uplink) Message(_ *xfer.Session, m wire.Message) error {
	switch m := m.(type) {
	case *wire.Data: // the payload is only lent, and its size is all that counts here
		u.got <- &wire.Data{Req: m.Req, Payload: make([]byte, 0, len(m.Payload))}
	case *wire.LeaseGrant, *wire.LeaseRefuse:
		u.got <- m
	}
	return nil
}

func (u *uplink) Chunk(context.Context, *xfer.Session, chunk.ID) (xfer.Served, error) {
	return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonNotHeld}
}

func enrolUplink(b *testing.B, p *process, i int) (*uplink, error) {
	site := fmt.Sprintf("site-%04d", i)
	if _, err := p.admin.CreateSite(b.Context(), api.SiteSpec{Name: site}); err != nil {
		return nil, err
	}
	reply, err := p.admin.CreateToken(b.Context(), site, api.TokenSpec{})
	if err != nil {
		return nil, err
	}
	tok, err := enrol.ParseToken(reply.Token)
	if err != nil {
		return nil, err
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	id := api.PeerID(key.Public().(ed25519.PublicKey))
	if _, err := p.admin.Enrol(b.Context(), enrol.Request{Secret: tok.Secret, Name: "n", PeerID: id, Proof: ed25519.Sign(key, enrol.ProofMessage(tok.Secret, "n", id)), Addrs: []string{}}); err != nil {
		return nil, err
	}
	lk, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, err
	}
	u := &uplink{up: make(chan *xfer.Session, 4), down: make(chan error, 4), got: make(chan wire.Message, 64)}
	u.Host, err = xfer.New(xfer.Config{Key: lk, Site: site, Name: "n", Listen: "127.0.0.1:0", Limits: xfer.NodeLimits(), Allow: func(peer.ID) bool { return true }, Handler: u})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	return u, nil
}

func (u *uplink) connect(b *testing.B, p *process) error {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	if err := u.Dial(ctx, p.peer, p.mesh); err != nil {
		return err
	}
	select {
	case u.s = <-u.up:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no session: %w", ctx.Err())
	}
}

// fetch takes the lease and every chunk, four requests at a time, renewing as a node does. A session that is lost, as
// when 1,200 nodes share two cores and some fall silent, is made anew and goes on with what is missing.
func (u *uplink) fetch(b *testing.B, p *process, c *manifest.Catalog, bytes, lost *atomic.Int64) error {
	missing := map[uint32]bool{}
	for i := range c.Chunks {
		missing[uint32(i)] = true
	}
	for len(missing) > 0 {
		if err := u.session(b, c, missing, bytes); err != nil {
			return err
		}
		if len(missing) > 0 {
			lost.Add(1)
			if err := u.reconnect(b, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// reconnect tries again and again, as a node does: where thousands share two cores a handshake may take too long.
func (u *uplink) reconnect(b *testing.B, p *process) (err error) {
	for range 10 {
		time.Sleep(time.Duration(500+rand.IntN(2500)) * time.Millisecond)
		if err = u.connect(b, p); err == nil {
			return nil
		}
	}
	return err
}

// session fetches until nothing is missing or the session has ended.
func (u *uplink) session(b *testing.B, c *manifest.Catalog, missing map[uint32]bool, bytes *atomic.Int64) error {
	for len(u.got) > 0 { // of the session before
		<-u.got
	}
	renew := time.NewTicker(2 * time.Second)
	defer renew.Stop()
	u.s.Send(&wire.LeaseAsk{Nonce: 1, Active: true})
	lease, asked := uint64(0), map[uint32]bool{}
	for len(missing) > 0 {
		for n := range missing {
			if lease == 0 || len(asked) >= 4 {
				break
			}
			if !asked[n] {
				asked[n] = true
				u.s.Send(&wire.Get{Req: n, ID: c.Chunks[n].ID})
			}
		}
		select {
		case m := <-u.got:
			switch m := m.(type) {
			case *wire.Data:
				bytes.Add(int64(cap(m.Payload)))
				delete(missing, m.Req)
				delete(asked, m.Req)
			case *wire.LeaseGrant:
				lease = m.Lease
			case *wire.LeaseRefuse: // so many uplinks share this machine that some renew too late
				u.s.End(fmt.Errorf("no lease: %s", m.Reason))
				<-u.down
				return nil
			}
		case <-renew.C:
			u.s.Send(&wire.LeaseRenew{Nonce: 2, Lease: lease, Active: true})
		case <-u.down:
			return nil
		case <-time.After(time.Minute):
			return fmt.Errorf("silence with %d requests out", len(asked))
		}
	}
	return nil
}

func noiseBundle(t testing.TB, dir string, size int, release *signer.KeyFile) *chunker.Bundle {
	t.Helper()
	src := filepath.Join(dir, "src")
	noise := make([]byte, size)
	chance := rand.New(rand.NewPCG(3, 4))
	for i := range noise {
		noise[i] = byte(chance.Uint32())
	}
	if err := os.Mkdir(src, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "a.gz"), noise, 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := chunker.Build(t.Context(), chunker.BuildOptions{Name: "app", Version: "1", Sequence: 1, From: src, Out: filepath.Join(dir, "b"), Created: time.Now(),
		Target: manifest.Target{OS: "any", Release: "any", Arch: "any", Format: manifest.FormatFiles}, Signers: []signer.Signer{release}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// cost is what a process has used: CPU in seconds, memory in megabytes.
type cost struct{ cpu, rss, peak float64 }

func usage(b testing.TB, p *process) (c cost) {
	b.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(p.Process.Pid))
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		b.Skip("needs /proc: run on Linux")
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, i := range []int{11, 12} { // utime and stime, in ticks of 10 ms
		n, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			b.Fatal(err)
		}
		c.cpu += n / 100
	}
	state, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(state)) {
		for key, to := range map[string]*float64{"VmRSS:": &c.rss, "VmHWM:": &c.peak} {
			if v, ok := strings.CutPrefix(line, key); ok {
				n, err := strconv.ParseFloat(strings.Fields(v)[0], 64)
				if err != nil {
					b.Fatal(err)
				}
				*to = n * 1024 / 1e6
			}
		}
	}
	return c
}
