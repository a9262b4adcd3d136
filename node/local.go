package node

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/node/swarm"
)

// waited is a handler whose answers under way can be waited for.
type waited struct {
	h  http.Handler
	wg sync.WaitGroup
}

func (w *waited) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.wg.Add(1)
	defer w.wg.Done()
	w.h.ServeHTTP(rw, r)
}

// wait is called once the server takes no more requests.
func (w *waited) wait() { w.wg.Wait() }

// localAPI answers on the unix socket. It works with the WAN down.
func (n *Node) localAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.PathHealth, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET "+api.PathLocalStatus, func(w http.ResponseWriter, r *http.Request) {
		var out status.Site
		if err := n.call(r.Context(), func() { out = n.site() }); err != nil {
			api.WriteError(w, err)
			return
		}
		api.WriteJSON(w, out)
	})
	mux.HandleFunc("GET "+api.PathLocalNode, func(w http.ResponseWriter, r *http.Request) {
		var out status.Node
		if err := n.call(r.Context(), func() { out = n.describe(); out.Seq, out.At = n.mine.Seq, n.cfg.now().UTC() }); err != nil {
			api.WriteError(w, err)
			return
		}
		out.Explain(out.At)
		api.WriteJSON(w, out)
	})
	mux.Handle("GET "+api.PathMetrics, n.metricsHandler())
	mux.HandleFunc("GET "+api.PathLocalPolicies, n.localPolicies)
	mux.HandleFunc("POST "+api.PathLocalImport, func(w http.ResponseWriter, r *http.Request) {
		out, err := n.importStick(r.Context(), api.Body(w, r, manifest.MaxTotalBytes))
		if err != nil {
			n.log.Warn("stick refused", "err", err)
			api.WriteError(w, err)
			return
		}
		api.WriteJSON(w, out)
	})
	mux.HandleFunc("POST "+api.PathLocalLeave, n.handleLeave)
	mux.HandleFunc("POST "+api.PathLocalOrder, n.localOrder)
	mux.Handle(api.PathGateway, api.Gateway(func(id chunk.ID) ([]byte, error) {
		b, err := n.store.Get(id, nil)
		if err != nil {
			return nil, fs.ErrNotExist
		}
		return b, nil
	}))
	return mux
}

// importStick reads a stick file into the store and feeds the swarm. What it verified before an error is kept.
func (n *Node) importStick(ctx context.Context, r io.Reader) (api.ImportResult, error) {
	var at time.Time
	if err := n.call(ctx, func() { at = n.rec.Floor }); err != nil {
		return api.ImportResult{}, err
	}
	s := &stick{n: n, ctx: ctx, seen: map[chunk.ID]bool{}}
	_, err := chunker.Import(ctx, r, &n.e.Trust, at, s)
	s.flush()
	if err == nil {
		err = n.store.Sync()
	}
	return s.res, err
}

// stick is the chunker.Sink of an import.
type stick struct {
	n    *Node
	ctx  context.Context
	b    *heldBundle
	res  api.ImportResult
	seen map[chunk.ID]bool
	got  []chunk.ID
}

// Manifest implements chunker.Sink.
func (s *stick) Manifest(m *manifest.Manifest, signed trust.Signed) error {
	s.res = api.ImportResult{Bundle: m.Name, Version: m.Version, Checksum: manifest.DigestOf(signed.Doc)}
	var err error
	if cerr := s.n.call(s.ctx, func() { s.b, err = s.n.takeManifest(signed) }); cerr != nil {
		return cerr
	}
	return err
}

// Revocations implements chunker.Sink.
func (s *stick) Revocations(signed trust.Signed) error {
	var err error
	if cerr := s.n.call(s.ctx, func() { err = s.n.takeRevocations(signed) }); cerr != nil {
		return cerr
	}
	return err
}

// Policy implements chunker.Sink.
func (s *stick) Policy(signed trust.Signed) error {
	var err error
	var ok bool
	if cerr := s.n.call(s.ctx, func() { ok, err = s.n.takePolicy(signed) }); cerr != nil {
		return cerr
	}
	if ok {
		s.res.Policies++
	}
	return err
}

// Grant implements chunker.Sink. A stick may hold those of several sites.
func (s *stick) Grant(g *grant.Grant, signed trust.Signed) error {
	if g.Site != s.n.e.Site {
		return nil
	}
	var err error
	if cerr := s.n.call(s.ctx, func() { err = s.n.takeGrant(signed) }); cerr != nil {
		return cerr
	}
	if err == nil {
		s.res.Grants++
	}
	return err
}

// Chunk implements chunker.Sink.
func (s *stick) Chunk(ref manifest.ChunkRef, plain []byte) error {
	if s.seen[ref.ID] {
		return nil
	}
	s.seen[ref.ID] = true
	s.res.Chunks++
	added, err := s.n.store.Put(ref.ID, plain)
	if err != nil {
		return err
	}
	if added {
		s.res.Added++
		s.res.Bytes += ref.Size
	}
	if s.got = append(s.got, ref.ID); len(s.got) >= 64 {
		s.flush()
	}
	return nil
}

// flush tells the swarm of the chunks so far: neighbours fetch while the stick is still being read.
func (s *stick) flush() {
	got := s.got
	s.got = nil
	s.n.post(func() {
		for _, id := range got {
			for _, b := range s.n.list() {
				if i, ok := b.catalog.Position(id); ok {
					s.n.step(swarm.Gained{Bundle: b.digest, Number: i})
				}
			}
		}
	})
}
