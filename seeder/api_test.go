package seeder

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Every operation against every credential. What a stranger may do is in one line.
func TestAuth(t *testing.T) {
	routes := map[string][]string{
		"GET":    {api.PathHealth, api.PathStatus, api.PathSites, "/api/v1/sites/s1", api.PathBundles, "/api/v1/bundles/sha256:" + strings.Repeat("0", 64), api.PathPolicies, api.PathOrders, api.PathReports, "/ipfs/" + chunk.Sum(nil).String() + "?format=raw", "/", "/debug/pprof/"},
		"POST":   {api.PathSites, "/api/v1/sites/s1/tokens", api.PathEnrol, api.PathBundles, "/api/v1/bundles/sha256:" + strings.Repeat("0", 64) + "/commit", api.PathPolicies, api.PathOrders},
		"PUT":    {"/api/v1/chunks/" + chunk.Sum(nil).String()},
		"DELETE": {"/api/v1/sites/s1/nodes/n"},
	}
	b := start(t, nil)
	free := map[string]bool{api.PathHealth: true, api.PathEnrol: true}
	x := b.routes()
	h := guard(x, b.tokens.who, x.open(), b.audit.refused)
	n := 0
	for method, paths := range routes {
		for _, path := range paths {
			for cred, good := range map[string]bool{"": false, "Bearer ": false, "Bearer x": false, "Bearer " + b.token + "x": false,
				"bearer " + b.token: false, "Basic " + b.token: false, "Bearer " + b.token: true} {
				r := httptest.NewRequest(method, path, nil)
				n++
				r.RemoteAddr = "10.0." + string(rune('0'+n%10)) + "." + string(rune('0'+n/10%10)) + ":1"
				if cred != "" {
					r.Header.Set("Authorization", cred)
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if denied := w.Code == http.StatusForbidden && strings.Contains(w.Body.String(), "needs a token"); denied == (good || free[path]) {
					t.Errorf("%s %s with %q: %d %s", method, path, cred, w.Code, w.Body)
				}
			}
		}
	}
	// Control: with the guard that takes everybody for an administrator the same request gets through.
	w := httptest.NewRecorder()
	trusted(b.routes()).ServeHTTP(w, httptest.NewRequest("GET", api.PathStatus, nil))
	if w.Code != http.StatusOK {
		t.Errorf("control: %d", w.Code)
	}
}

// Strangers are slowed down, each address by itself; an administrator is not.
func TestStrangersAreSlowedDown(t *testing.T) {
	who := func(word string) (caller, bool) { return caller{Name: "admin", Role: api.RoleAdmin}, word == "secret" }
	h := guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), who, map[string]bool{api.PathEnrol: true}, func(*http.Request, int, string) {})
	do := func(addr, token string) int {
		r := httptest.NewRequest("POST", api.PathEnrol, nil)
		r.RemoteAddr = addr
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	for i := range strangerBurst {
		if c := do("10.0.0.1:1", ""); c != http.StatusOK {
			t.Fatalf("request %d: %d", i, c)
		}
	}
	if c := do("10.0.0.1:2", "wrong"); c != http.StatusTooManyRequests {
		t.Errorf("one more: %d", c)
	}
	if c := do("10.0.0.2:1", ""); c != http.StatusOK {
		t.Errorf("another address: %d", c)
	}
	if c := do("10.0.0.1:3", "secret"); c != http.StatusOK {
		t.Errorf("administrator from that address: %d", c)
	}
	for range strangerBurst {
		do("[2001:db8::1]:1", "")
	}
	if c := do("[2001:db8::2]:1", ""); c != http.StatusTooManyRequests {
		t.Errorf("a neighbour in the same /64: %d", c)
	}
}

// A bundle is published once its signature, index and every chunk are here; each thing that can be wrong has its code.
func TestBundleUpload(t *testing.T) {
	b := start(t, nil)
	good := b.bundle("1.0", 1, b.release)
	u := upload(t, good)
	flip := func(x []byte) []byte { y := bytes.Clone(x); y[len(y)/2] ^= 1; return y }
	stranger := upload(t, b.bundle("1.0", 1, key(t)))
	other := upload(t, b.bundle("2.0", 2, b.release))
	for what, x := range map[string]struct {
		u    api.BundleUpload
		code problem.Code
	}{
		"unknown key":            {stranger, problem.SignatureInvalid},
		"manifest with a flip":   {api.BundleUpload{Manifest: trust.Signed{Doc: flip(u.Manifest.Doc), Sig: u.Manifest.Sig}, Index: u.Index, Sums: u.Sums}, problem.SignatureInvalid},
		"index with a flip":      {api.BundleUpload{Manifest: u.Manifest, Index: flip(u.Index), Sums: u.Sums}, problem.IndexInvalid},
		"index cut off":          {api.BundleUpload{Manifest: u.Manifest, Index: u.Index[:10], Sums: u.Sums}, problem.IndexInvalid},
		"sums with a flip":       {api.BundleUpload{Manifest: u.Manifest, Index: u.Index, Sums: trust.Signed{Doc: flip(u.Sums.Doc), Sig: u.Sums.Sig}}, problem.SignatureInvalid},
		"sums of another bundle": {api.BundleUpload{Manifest: u.Manifest, Index: u.Index, Sums: other.Sums}, problem.ManifestInvalid},
		"nothing":                {api.BundleUpload{}, problem.SignatureInvalid},
	} {
		_, err := b.admin.BeginBundle(t.Context(), x.u)
		wantCode(t, what, err, x.code)
	}
	ids := good.Catalog().Chunks
	last := ids[len(ids)-1].ID
	wantCode(t, "chunk that no upload names", b.admin.PutChunk(t.Context(), last, plainOf(t, good, last)), problem.NotFound)
	_, err := b.admin.CommitBundle(t.Context(), good.Digest)
	wantCode(t, "commit of nothing", err, problem.NotFound)

	begun, err := b.admin.BeginBundle(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(ids) - good.Catalog().IndexCount; len(begun.Missing) != want || begun.State != api.BundleUploading {
		t.Fatalf("%d missing, want %d; %s", len(begun.Missing), want, begun.State)
	}
	wantCode(t, "chunk with a flip", b.admin.PutChunk(t.Context(), last, flip(plainOf(t, good, last))), problem.ChunkCorrupt)
	wantCode(t, "chunk cut off", b.admin.PutChunk(t.Context(), last, plainOf(t, good, last)[1:]), problem.ChunkCorrupt)
	wantCode(t, "chunk too large", b.admin.PutChunk(t.Context(), last, make([]byte, chunk.MaxSize+1)), problem.InvalidFile)
	_, err = b.admin.CommitBundle(t.Context(), good.Digest)
	wantCode(t, "commit too early", err, problem.NotFound)
	_, err = b.admin.GetChunk(t.Context(), ids[0].ID)
	wantCode(t, "chunk of an unpublished bundle", err, problem.NotFound)

	if n := b.push(good, -1); n != len(begun.Missing) {
		t.Errorf("%d chunks sent, want %d", n, len(begun.Missing))
	}
	if n := b.push(good, -1); n != 0 {
		t.Errorf("pushed again: %d chunks sent", n)
	}
	if p, err := b.admin.GetChunk(t.Context(), last); err != nil || !bytes.Equal(p, plainOf(t, good, last)) {
		t.Errorf("gateway: %v", err)
	}
	d, err := b.admin.Bundle(t.Context(), good.Digest)
	if err != nil || d.State != api.BundleCommitted || !bytes.Equal(d.Manifest.Doc, u.Manifest.Doc) || d.Distinct != good.Catalog().Bytes() {
		t.Errorf("%+v, %v", d.BundleInfo, err)
	}
	_, err = b.admin.BeginBundle(t.Context(), upload(t, b.bundle("1.0", 9, b.release)))
	wantCode(t, "the same version with another content", err, problem.AlreadyExists)
	_, err = b.admin.Bundle(t.Context(), manifest.Digest{})
	wantCode(t, "unknown bundle", err, problem.NotFound)
}

// An upload that is cut is resumed by another run of the seeder, and a bundle that was given up gives way.
func TestUploadResumes(t *testing.T) {
	b := start(t, nil)
	x := b.bundle("1.0", 1, b.release)
	gone := b.bundle("2.0", 2, b.release)
	b.push(gone, 1)
	sent := b.push(x, 3)
	b.stop()
	b.run()
	rest := b.push(x, -1)
	if want := len(x.Catalog().Chunks) - x.Catalog().IndexCount; sent+rest != want {
		t.Errorf("%d and %d chunks sent, together %d are needed", sent, rest, want)
	}
	b.push(b.bundle("2.0", 3, b.release), -1)
	l, err := b.admin.Bundles(t.Context())
	if err != nil || len(l) != 2 || l[0].Version != "2.0" || l[0].Sequence != 3 || l[0].State != api.BundleCommitted {
		t.Errorf("%+v, %v", l, err)
	}
}

// A damaged chunk is found by fsck, is not served, and comes back with the next push.
func TestDamageIsMended(t *testing.T) {
	b := start(t, nil)
	x := b.bundle("1.0", 1, b.release)
	b.push(x, -1)
	id := x.Catalog().Chunks[1].ID
	b.stop()
	name := filepath.Join(b.cfg.State, "store", store.Name(id))
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	raw[0] ^= 1
	if err := os.WriteFile(name, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	res, err := Fsck(t.Context(), b.cfg.State, "", false, nil)
	if err != nil || res.Clean() || res.Store.Findings["damaged"] != 1 {
		t.Fatalf("fsck: %+v, %v", res, err)
	}
	b.run()
	_, err = b.admin.GetChunk(t.Context(), id)
	if err == nil {
		t.Fatal("a damaged chunk was served")
	}
	if n := b.push(x, -1); n != 1 {
		t.Errorf("%d chunks sent to mend one", n)
	}
	b.stop()
	if res, err := Fsck(t.Context(), b.cfg.State, "", false, nil); err != nil || !res.Clean() || res.Store.Chunks != len(x.Catalog().Chunks) {
		t.Errorf("fsck: %+v, %v", res, err)
	}
}

func TestPolicies(t *testing.T) {
	b := start(t, nil)
	x := b.bundle("1.0", 1, b.release)
	put := func(s trust.Signed) error { _, err := b.admin.PutPolicy(t.Context(), s); return err }
	wantCode(t, "bundle that is not here", put(b.policy(x, 1, x.Digest, b.operator)), problem.NotFound)
	b.push(x, 1)
	wantCode(t, "bundle that is still uploading", put(b.policy(x, 1, x.Digest, b.operator)), problem.NotFound)
	b.push(x, -1)
	wantCode(t, "another checksum", put(b.policy(x, 1, manifest.Digest{1}, b.operator)), problem.ChecksumMismatch)
	y := b.bundle("2.0", 2, b.release)
	b.push(y, -1)
	wantCode(t, "the checksum of another version", put(b.policy(x, 1, y.Digest, b.operator)), problem.ChecksumMismatch)
	wantCode(t, "release key", put(b.policy(x, 1, x.Digest, b.release)), problem.SignatureInvalid)
	good := b.policy(x, 5, x.Digest, b.operator)
	bad := good
	bad.Doc = bytes.Replace(good.Doc, []byte(`"revision": 5`), []byte(`"revision": 6`), 1)
	wantCode(t, "changed after it was signed", put(bad), problem.SignatureInvalid)
	for range 2 {
		if err := put(good); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, "older revision", put(b.policy(y, 4, y.Digest, b.operator)), problem.AlreadyExists)
	wantCode(t, "same revision, other content", put(b.policy(y, 5, y.Digest, b.operator)), problem.AlreadyExists)
	if err := put(b.policy(y, 6, y.Digest, b.operator)); err != nil {
		t.Fatal(err)
	}
	b.stop()
	b.run()
	ps, err := b.admin.Policies(t.Context())
	if err != nil || len(ps) != 1 || ps[0].Revision != 6 || ps[0].Version != "2.0" || ps[0].Checksum != y.Digest || ps[0].Created.IsZero() {
		t.Errorf("%+v, %v", ps, err)
	}
}

func TestSitesAndTokens(t *testing.T) {
	b := start(t, nil)
	create := func(s api.SiteSpec) error { _, err := b.admin.CreateSite(t.Context(), s); return err }
	for _, s := range []api.SiteSpec{{Name: ""}, {Name: "Store"}, {Name: "../x"}, {Name: "a", Timezone: "Mars/Olympus"}, {Name: "a", Timezone: "Local"},
		{Name: "a", Timezone: "../../etc/passwd"}, {Name: "a", CapBytesPerSecond: -1}, {Name: "a", CapBytesPerSecond: 1000}} {
		wantCode(t, s.Name+" "+s.Timezone, create(s), problem.Usage)
	}
	if err := create(api.SiteSpec{Name: "s1", Timezone: "America/Chicago", CapBytesPerSecond: 10_000}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "again", create(api.SiteSpec{Name: "s1"}), problem.NameTaken)
	tok := func(site string, s api.TokenSpec) error {
		_, err := b.admin.CreateToken(t.Context(), site, s)
		return err
	}
	wantCode(t, "no site", tok("s2", api.TokenSpec{}), problem.NotFound)
	for _, s := range []api.TokenSpec{{TTLSeconds: -1}, {TTLSeconds: 25 * 3600}, {WAN: "maybe"}, {Labels: map[string]string{"": "x"}}, {Labels: map[string]string{"a": "b\nc"}}} {
		wantCode(t, "token", tok("s1", s), problem.Usage)
	}
	l, err := b.admin.Sites(t.Context())
	if err != nil || len(l) != 1 || l[0].Timezone != "America/Chicago" || l[0].CapBytesPerSecond != 10_000 || l[0].RosterVersion != 1 {
		t.Errorf("%+v, %v", l, err)
	}
	_, err = b.admin.Site(t.Context(), "s2")
	wantCode(t, "unknown site", err, problem.NotFound)
	wantCode(t, "unknown node", b.admin.RemoveNode(t.Context(), "s1", "n"), problem.NotFound)
}

// A token is worth one enrolment: twice, expired, for another site, garbage, without the key.
func TestTokenMisuse(t *testing.T) {
	clk := newClock(time.Now())
	b := start(t, func(c *Config) { c.Now = clk.now })
	b.site("s1")
	b.site("s2")
	tok, exp, taken := b.joinToken("s1", api.TokenSpec{}), b.joinToken("s1", api.TokenSpec{TTLSeconds: 60}), b.joinToken("s1", api.TokenSpec{})
	c := b.client(api.Access{URLs: tok.URLs, Pin: tok.Seeder})
	defer c.CloseIdle()
	k := newKey(t)
	do := func(q enrol.Request) error { _, err := c.Enrol(context.WithoutCancel(t.Context()), q); return err }

	wantCode(t, "garbage", do(request(k, strings.Repeat("ab", enrol.SecretBytes), "n1")), problem.TokenInvalid)
	wantCode(t, "no secret", do(request(k, "", "n1")), problem.TokenInvalid)
	q := request(k, tok.Secret, "n1")
	q.Name = "n2"
	wantCode(t, "proof of another name", do(q), problem.TokenInvalid)
	q = request(k, tok.Secret, "n1")
	q.PeerID = api.PeerID(newKey(t).Public().(ed25519.PublicKey))
	wantCode(t, "somebody else's key", do(q), problem.TokenInvalid)
	q = request(k, tok.Secret, "n1")
	e, err := c.Enrol(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.CheckEnrolment(&e, &q); err != nil {
		t.Fatal(err)
	}
	r, err := roster.Open(&e.Trust, e.Roster, clk.now())
	if err != nil || len(r.Nodes) != 1 || r.Nodes[0].Name != "n1" || r.Version != 2 {
		t.Fatalf("roster %+v, %v", r, err)
	}
	if err := do(q); err != nil {
		t.Errorf("the answer was lost, asked again: %v", err)
	}
	wantCode(t, "used by another machine", do(request(newKey(t), tok.Secret, "n2")), problem.TokenInvalid)
	wantCode(t, "name taken", do(request(newKey(t), taken.Secret, "n1")), problem.NameTaken)
	if err := do(request(newKey(t), taken.Secret, "n2")); err != nil {
		t.Errorf("the token was spent by a refusal: %v", err)
	}
	clk.set(clk.now().Add(61 * time.Second))
	wantCode(t, "expired", do(request(newKey(t), exp.Secret, "n3")), problem.TokenInvalid)
	// The word cannot be bent to another site: the secret decides, and the node sees that it is not what it asked for.
	bent := b.joinToken("s2", api.TokenSpec{})
	q = request(newKey(t), bent.Secret, "n4")
	e, err = c.Enrol(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	bent.Site = "s1"
	if e.Site != "s2" || bent.CheckEnrolment(&e, &q) == nil {
		t.Errorf("a token for s2 that says s1 enrols into %s unnoticed", e.Site)
	}
}

// What an administrator reads at the first start is enough to work with, and only its owner may read it.
func TestFirstStart(t *testing.T) {
	b := start(t, nil)
	a, err := api.ReadAccess(filepath.Join(b.cfg.State, "admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	a.URLs = a.URLs[1:] // TLS only
	c := b.client(a)
	defer c.CloseIdle()
	f, err := c.Status(t.Context())
	if err != nil || f.Nodes != 0 {
		t.Fatalf("%+v, %v", f, err)
	}
	for _, name := range []string{"admin.json", "admin.token", "identity.pem", "roster.key", "seeder.db", "seeder.sock"} {
		i, err := os.Stat(filepath.Join(b.cfg.State, name))
		if err != nil || i.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, i.Mode(), err)
		}
	}
	if _, err := New(t.Context(), b.cfg); problem.CodeOf(err) != problem.Locked {
		t.Errorf("a second seeder in the same directory: %v", err)
	}
	id := b.PeerID()
	b.stop()
	b.run()
	if b.PeerID() != id {
		t.Error("another identity after a restart")
	}
	for what, change := range map[string]func(*Config){
		"nowhere to reach it": func(c *Config) { c.ListenMesh = "0.0.0.0:0" },
		"no state":            func(c *Config) { c.State = "" },
		"advertised port 0":   func(c *Config) { c.AdvertiseAPI = []string{"h:0"} },
	} {
		cfg := b.cfg
		cfg.State = filepath.Join(t.TempDir(), "x")
		change(&cfg)
		_, err := New(t.Context(), cfg)
		wantCode(t, what, err, problem.Usage)
	}
	cfg := b.cfg
	cfg.State, cfg.Policy = filepath.Join(t.TempDir(), "y"), trust.RoleKeys{}
	_, err = New(t.Context(), cfg)
	wantCode(t, "no policy keys", err, problem.InvalidFile)
	if errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
