package api

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/problem"
)

const rawType = "application/vnd.ipld.raw"

// Gateway answers GET and HEAD of PathGateway with single chunks, the raw-block part of the IPFS trustless gateway
// specification. get returns the verified plain bytes, or an error that is fs.ErrNotExist or problem.NotFound when the
// chunk is not here.
func Gateway(get func(chunk.ID) ([]byte, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		if !wantsRaw(r) {
			WriteError(w, problem.New(problem.Usage, "only format=raw is served").
				WithNext("add ?format=raw, or Accept: %s", rawType))
			return
		}
		s := strings.TrimPrefix(r.URL.Path, "/ipfs/")
		id, err := chunk.Parse(s)
		if err != nil {
			WriteError(w, problem.New(problem.Usage, "path %.120q", r.URL.Path).Because(err))
			return
		}
		b, err := get(id)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			WriteError(w, problem.New(problem.NotFound, "chunk %s is not here", id))
			return
		case err != nil:
			WriteError(w, err)
			return
		}
		h := w.Header()
		h.Set("Content-Type", rawType)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Etag", `"`+s+`.raw"`)
		h.Set("Cache-Control", "public, max-age=29030400, immutable")
		h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s.bin"`, s))
		h.Set("X-Ipfs-Path", "/ipfs/"+s)
		h.Set("X-Ipfs-Roots", s)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	})
}

// wantsRaw reports whether the request asks for the raw block. The parameter wins over the header.
func wantsRaw(r *http.Request) bool {
	if q := r.URL.Query(); q.Has("format") {
		return q.Get("format") == "raw"
	}
	for _, h := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(h, ",") {
			if t, _, err := mime.ParseMediaType(part); err == nil && t == rawType {
				return true
			}
		}
	}
	return false
}
