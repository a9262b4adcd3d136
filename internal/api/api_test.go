package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func pin(k ed25519.PrivateKey) string { return PeerID(k.Public().(ed25519.PublicKey)) }

// Our peer IDs are libp2p's.
func TestPeerID(t *testing.T) {
	k := key(1)
	lk, err := crypto.UnmarshalEd25519PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	want, err := peer.IDFromPrivateKey(lk)
	if err != nil {
		t.Fatal(err)
	}
	if got := pin(k); got != want.String() || !strings.HasPrefix(got, "12D3KooW") {
		t.Fatalf("got %s, libp2p says %s", got, want)
	}
	back, err := ParsePeerID(want.String())
	if err != nil || !back.Equal(k.Public()) {
		t.Fatalf("%v, %v", back, err)
	}
	for _, bad := range []string{"", "x", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", want.String() + "1", "1" + want.String(), strings.Repeat("1", 70), "12D3KooW0"} {
		if _, err := ParsePeerID(bad); err == nil {
			t.Errorf("%q is taken for a peer ID", bad)
		}
	}
}

func FuzzParsePeerID(f *testing.F) {
	f.Add(pin(key(1)))
	f.Add("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParsePeerID(s)
		if err != nil {
			return
		}
		if PeerID(k) != s {
			t.Fatalf("%q is another spelling of %q", s, PeerID(k))
		}
	})
}

// serve runs a hardened server on the listener until the test ends.
func serve(t *testing.T, l net.Listener, h http.Handler) {
	t.Helper()
	srv := NewServer(h, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

func serveTLS(t *testing.T, conf *tls.Config, h http.Handler) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, h)
	return "https://" + l.Addr().String()
}

func client(t *testing.T, a Access) *Client {
	t.Helper()
	c, err := NewClient(a)
	if err != nil {
		t.Fatal(err)
	}
	c.sleep = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	t.Cleanup(c.CloseIdle)
	return c
}

var ok = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, []SiteInfo{}) })

// The pin decides who the server is: not its name, not its dates. With another key nothing is sent.
func TestPin(t *testing.T) {
	k, other := key(1), key(2)
	conf, err := ServerTLS(k)
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Bool
	url := serveTLS(t, conf, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Store(true); ok(w, r) }))
	if _, err := client(t, Access{URLs: []string{url}, Pin: pin(other), Token: "secret"}).Sites(t.Context()); problem.CodeOf(err) != problem.IdentityMismatch {
		t.Fatalf("another identity: %v", err)
	}
	if asked.Load() {
		t.Fatal("a request, and the token in it, went to a server with another identity")
	}
	if _, err := client(t, Access{URLs: []string{url}, Pin: pin(k)}).Sites(t.Context()); err != nil || !asked.Load() {
		t.Fatalf("the pinned identity: %v", err)
	}
	// A certificate that names the pinned key but is held by another cannot finish the handshake.
	stolen := conf.Clone()
	stolen.Certificates = []tls.Certificate{{Certificate: conf.Certificates[0].Certificate, PrivateKey: other}}
	url = serveTLS(t, stolen, ok)
	if _, err := client(t, Access{URLs: []string{url}, Pin: pin(k)}).Sites(t.Context()); err == nil {
		t.Fatal("a stolen certificate was accepted")
	}
}

func TestAddresses(t *testing.T) {
	for _, a := range []Access{{}, {URLs: []string{"http://h:1"}}, {URLs: []string{"https://h:1"}}, {URLs: []string{"https://h:1"}, Pin: "x"},
		{URLs: []string{"unix://rel/path"}}, {URLs: []string{"unix://"}}, {URLs: []string{"https://h:1/path"}, Pin: pin(key(1))}, {URLs: []string{"\x00"}}} {
		if _, err := NewClient(a); problem.CodeOf(err) != problem.Usage {
			t.Errorf("%+v: %v", a, err)
		}
	}
}

// Calls that may be repeated are; others are sent once.
func TestRetries(t *testing.T) {
	var count, fail atomic.Int64
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := count.Add(1)
		switch {
		case n > fail.Load() && r.URL.Path == PathReports:
			WriteJSON(w, ReportPage{})
		case n > fail.Load():
			WriteJSON(w, []SiteInfo{})
		case r.URL.Query().Get("site") == "busy":
			w.Header().Set("Retry-After", "7")
			WriteError(w, problem.New(problem.Busy, "later"))
		default: // the connection is lost
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			c.Close()
		}
	}))
	c := client(t, Access{URLs: []string{"unix:///nowhere/at/all", "unix://" + sock}})
	count.Store(0)
	fail.Store(2)
	if _, err := c.Sites(t.Context()); err != nil || count.Load() < 3 {
		t.Errorf("%d requests, %v", count.Load(), err)
	}
	count.Store(0)
	fail.Store(100)
	if _, err := c.Sites(t.Context()); problem.CodeOf(err) != problem.SeederUnreachable {
		t.Errorf("%d requests, %v", count.Load(), err)
	}
	count.Store(0)
	if _, err := c.CreateSite(t.Context(), SiteSpec{}); problem.CodeOf(err) != problem.SeederUnreachable || count.Load() != 1 {
		t.Errorf("create: %d requests, %v", count.Load(), err)
	}
	// An address where nothing listens is passed over, also by a call that must not be sent twice.
	count.Store(0)
	fail.Store(0)
	if _, err := c.CreateToken(t.Context(), "s", TokenSpec{}); problem.CodeOf(err) == problem.SeederUnreachable || count.Load() != 1 {
		t.Errorf("token: %d requests, %v", count.Load(), err)
	}
	// A connection that is lost is not: the request may have been served.
	twice := client(t, Access{URLs: []string{"unix://" + sock, "unix://" + sock}})
	count.Store(0)
	fail.Store(100)
	if _, err := twice.CreateToken(t.Context(), "s", TokenSpec{}); problem.CodeOf(err) != problem.SeederUnreachable || count.Load() != 1 {
		t.Errorf("token over a lost connection: %d requests, %v", count.Load(), err)
	}
	var waited time.Duration
	c.sleep = func(_ context.Context, d time.Duration) error { waited = max(waited, d); return nil }
	count.Store(0)
	fail.Store(1)
	if _, err := c.Reports(t.Context(), ReportQuery{Site: "busy"}); err != nil || count.Load() != 2 || waited < 7*time.Second {
		t.Errorf("busy: %d requests, waited %s, %v", count.Load(), waited, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Sites(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A problem crosses the wire with its code, text and next step; other errors keep their text at home.
func TestProblems(t *testing.T) {
	for _, p := range problem.Pages() {
		w := httptest.NewRecorder()
		WriteError(w, fmt.Errorf("wrapped: %w", problem.New(p.Code, "the subject").WithDone("what was done").WithNext("what to do").Because(errors.New("the cause"))))
		r := w.Result()
		r.Request = httptest.NewRequest("GET", "/x", nil)
		got := readError(r)
		if got.Code != p.Code || got.Subject != "the subject: the cause" || got.Done != "what was done" || got.Next != "what to do" || problem.ExitOf(got) != p.Exit {
			t.Errorf("%s: %+v", p.Code, got)
		}
		if r.StatusCode < 400 || r.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: status %d, %s", p.Code, r.StatusCode, r.Header.Get("Content-Type"))
		}
	}
	w := httptest.NewRecorder()
	WriteError(w, errors.New("password of the database"))
	if strings.Contains(w.Body.String(), "password") || w.Code != 500 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for status, want := range map[int]problem.Code{401: problem.Denied, 404: problem.NotFound, 413: problem.InvalidFile, 429: problem.Busy, 502: problem.Internal} {
		r := &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader("<html>")), Request: httptest.NewRequest("GET", "/x", nil)}
		if got := readError(r); got.Code != want {
			t.Errorf("%d: %v", status, got)
		}
	}
}

func FuzzReadError(f *testing.F) {
	f.Add(404, []byte(`{"code":"E1204","detail":"x"}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		r := &http.Response{StatusCode: status, Body: io.NopCloser(bytes.NewReader(body)), Request: httptest.NewRequest("GET", "/x", nil)}
		if e := readError(r); e.Code == "" {
			t.Fatal("an error without a code")
		}
	})
}

func TestReadJSON(t *testing.T) {
	for body, good := range map[string]bool{
		`{"name":"a"}`: true, ` {"name":"a"} ` + "\n": true, ``: false, `{}{}`: false, `{} x`: false, `{"nam":"a"}`: false, `[`: false,
		`{"name":"` + strings.Repeat("x", 200) + `"}`: false,
	} {
		var s SiteSpec
		err := ReadJSON(httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader(body)), 100, &s)
		if good != (err == nil) || err != nil && problem.CodeOf(err) != problem.InvalidFile {
			t.Errorf("%.40q: %v", body, err)
		}
	}
}

func FuzzRequests(f *testing.F) {
	f.Add([]byte(`{"manifest":{"doc":"","sig":""},"index":"","sums":{"doc":"","sig":""}}`))
	f.Add([]byte(`{"ttlSeconds":1,"labels":{"a":"b"},"wan":"never"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []any{new(SiteSpec), new(TokenSpec), new(BundleUpload), new(enrol.Request), new(trust.Signed)} {
			if err := ReadJSON(httptest.NewRecorder(), httptest.NewRequest("POST", "/", bytes.NewReader(b)), 1<<10, v); err == nil && len(b) > 1<<10 {
				t.Fatal("more than the limit was read")
			}
		}
	})
}

func TestGateway(t *testing.T) {
	plain := []byte("some bytes of a chunk")
	id := chunk.Sum(plain)
	h := Gateway(func(x chunk.ID) ([]byte, error) {
		switch x {
		case id:
			return plain, nil
		case chunk.Sum([]byte("damaged")):
			return nil, problem.New(problem.ChunkCorrupt, "damaged")
		}
		return nil, fs.ErrNotExist
	})
	type call struct{ method, url, accept, rng, match string }
	for q, want := range map[call]int{
		{"GET", "/ipfs/" + id.String() + "?format=raw", "", "", ""}:                            200,
		{"HEAD", "/ipfs/" + id.String() + "?format=raw", "", "", ""}:                           200,
		{"GET", "/ipfs/" + id.String(), "text/html, application/vnd.ipld.raw;q=0.9", "", ""}:   200,
		{"GET", "/ipfs/" + id.String() + "?format=raw", "", "bytes=5-8", ""}:                   206,
		{"GET", "/ipfs/" + id.String() + "?format=raw", "", "", `"` + id.String() + `.raw"`}:   304,
		{"GET", "/ipfs/" + id.String(), "", "", ""}:                                            400,
		{"GET", "/ipfs/" + id.String() + "?format=car", "application/vnd.ipld.raw", "", ""}:    400,
		{"GET", "/ipfs/" + id.String() + "/index.html?format=raw", "", "", ""}:                 400,
		{"GET", "/ipfs/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N?format=raw", "", "", ""}: 400,
		{"GET", "/ipfs/" + chunk.Sum(nil).String() + "?format=raw", "", "", ""}:                404,
		{"GET", "/ipfs/" + chunk.Sum([]byte("damaged")).String() + "?format=raw", "", "", ""}:  422,
		{"POST", "/ipfs/" + id.String() + "?format=raw", "", "", ""}:                           405,
		{"GET", "/ipfs/" + strings.ToUpper(id.String()) + "?format=raw", "", "", ""}:           400,
	} {
		r := httptest.NewRequest(q.method, q.url, nil)
		for k, v := range map[string]string{"Accept": q.accept, "Range": q.rng, "If-None-Match": q.match} {
			if v != "" {
				r.Header.Set(k, v)
			}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%+v: %d, want %d: %s", q, w.Code, want, w.Body)
			continue
		}
		hd := w.Header()
		switch want {
		case 200:
			if hd.Get("Content-Type") != "application/vnd.ipld.raw" || hd.Get("X-Content-Type-Options") != "nosniff" || hd.Get("Etag") != `"`+id.String()+`.raw"` ||
				!strings.Contains(hd.Get("Cache-Control"), "immutable") || !strings.Contains(hd.Get("Content-Disposition"), id.String()+".bin") ||
				hd.Get("Content-Length") != fmt.Sprint(len(plain)) {
				t.Errorf("%+v: headers %v", q, hd)
			}
			if got := w.Body.Bytes(); q.method == "GET" && !bytes.Equal(got, plain) || q.method == "HEAD" && len(got) != 0 {
				t.Errorf("%+v: body %q", q, got)
			}
		case 206:
			if w.Body.String() != string(plain[5:9]) {
				t.Errorf("%+v: body %q", q, w.Body)
			}
		}
	}
}

// A node's client: its socket's path alone is enough, a chunk is verified, an import is sent once and streamed.
func TestNodeClient(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "n")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	plain := []byte("good")
	mux := http.NewServeMux()
	mux.Handle(PathGateway, Gateway(func(id chunk.ID) ([]byte, error) {
		if id == chunk.Sum(plain) {
			return plain, nil
		}
		return []byte("something else"), nil
	}))
	mux.HandleFunc("POST "+PathLocalImport, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, Body(w, r, 1<<30))
		if err != nil {
			t.Error(err)
		}
		WriteJSON(w, ImportResult{Bytes: n})
	})
	serve(t, l, mux)
	c, err := NewNodeClient(sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	if b, err := c.GetChunk(t.Context(), chunk.Sum(plain)); err != nil || !bytes.Equal(b, plain) {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := c.GetChunk(t.Context(), chunk.Sum([]byte("x"))); problem.CodeOf(err) != problem.ChunkCorrupt {
		t.Errorf("a chunk with the wrong bytes: %v", err)
	}
	if r, err := c.Import(t.Context(), io.LimitReader(zeros{}, 5<<20)); err != nil || r.Bytes != 5<<20 {
		t.Errorf("%+v, %v", r, err)
	}
	none, err := NewNodeClient(sock + "2")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := none.Node(t.Context()); problem.CodeOf(err) != problem.DaemonUnreachable || problem.ExitOf(err) != problem.ExitUnreachable {
		t.Errorf("no daemon: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestReadAccess(t *testing.T) {
	name := filepath.Join(t.TempDir(), "admin.json")
	want := Access{URLs: []string{"unix:///x"}, Pin: "p", Token: "t"}
	b, _ := json.Marshal(want)
	for body, good := range map[string]bool{string(b): true, `{"url":"x"}`: false, ``: false} {
		if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := ReadAccess(name)
		if good && (err != nil || a.Pin != "p") || !good && problem.CodeOf(err) != problem.InvalidFile {
			t.Errorf("%q: %+v, %v", body, a, err)
		}
	}
}
