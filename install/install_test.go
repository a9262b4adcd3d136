package install_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/health"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
)

func installer(b *installtest.Bench) *install.Installer {
	return &install.Installer{
		Config: b.Config, Host: installtest.Host{Well: health.Runner{Command: b.Config.Health.Command, Pause: 10 * time.Millisecond}.Probe},
		Isolation: "none: test", Built: installtest.Created, Now: time.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func apply(t *testing.T, b *installtest.Bench, bundle *installtest.Bundle, w installtest.Want) install.Result {
	t.Helper()
	return installer(b).Apply(t.Context(), b.Request(t, bundle, w))
}

// want checks outcome, exit, phase, reason and code in one line.
func want(t *testing.T, r install.Result, line string) {
	t.Helper()
	if got := fmt.Sprintf("%s %d %s %s %s", r.Outcome, r.Exit, r.Phase, r.Reason, r.Code); got != line {
		t.Fatalf("result %q, want %q\ndetail: %s", got, line, r.Detail)
	}
}

// inForce checks that exactly this bundle is in force, byte for byte, and that nothing lies about.
func inForce(t *testing.T, b *installtest.Bench, bundle *installtest.Bundle, all ...*installtest.Bundle) {
	t.Helper()
	name := "pos"
	if bundle != nil {
		name, all = bundle.Name, append(all, bundle)
	}
	got, err := b.InForce(name, all...)
	if err != nil {
		t.Fatal(err)
	}
	if got != bundle {
		t.Fatalf("in force is %+v, want %+v", version(got), version(bundle))
	}
	litter, err := b.Litter()
	if err != nil || len(litter) > 0 {
		t.Fatalf("litter %v, %v", litter, err)
	}
}

func version(b *installtest.Bundle) string {
	if b == nil {
		return "nothing"
	}
	return b.Version
}

const (
	done      = "success 0 Installed Installed "
	nothing   = "success 0 Installed NothingToDo "
	tooOld    = "verification_failure 3 Quarantined SequenceTooOld E2106"
	badSig    = "verification_failure 3 Quarantined SignatureInvalid E2102"
	badIndex  = "verification_failure 2 Quarantined IndexInvalid E2104"
	badSum    = "verification_failure 2 Quarantined ChecksumMismatch E2101"
	unhealthy = "rolled_back 4 RolledBack HealthCheck E5103"
)

func spec(version string, sequence uint64) installtest.Spec {
	return installtest.Spec{Name: "pos", Version: version, Sequence: sequence, Files: map[string]string{
		"version": version + "\n", "bin/run.sh": "#!/bin/sh\necho " + version + "\n", "etc/deep/er/conf": "same in all\n",
		"empty": "", "data": strings.Repeat(version+" ", 1000),
	}}
}

func TestLife(t *testing.T) {
	b := installtest.New(t, func(c *install.Config) { c.Keep = 2 })
	var vs []*installtest.Bundle
	for i := range 5 {
		vs = append(vs, b.Bundle(t, spec(fmt.Sprintf("1.%d", i), uint64(i+1))))
	}
	for i, v := range vs {
		r := apply(t, b, v, installtest.Want{Revision: uint64(i + 1)})
		want(t, r, done)
		inForce(t, b, v)
		if r.Bundle != "pos" || r.Version != v.Version || *r.Checksum != v.Digest || r.Installed.Dir != v.Dir() || r.Attempts != 1 {
			t.Fatalf("result is about something else: %+v", r)
		}
		want(t, apply(t, b, v, installtest.Want{Revision: uint64(i + 1)}), nothing)
	}
	dirs, err := os.ReadDir(filepath.Join(b.Config.Root, "pos", "releases"))
	if err != nil || len(dirs) != 3 {
		t.Fatalf("%d releases kept (%v), want the one in force and two before it", len(dirs), err)
	}
	// An older sequence is refused by the executor itself, also for a release that is still kept.
	want(t, apply(t, b, vs[3], installtest.Want{Revision: 9}), tooOld)
	// A policy revision that was acted on before is not acted on again with an older one.
	want(t, apply(t, b, vs[4], installtest.Want{Revision: 4}), tooOld)
	inForce(t, b, vs[4])

	// A person goes back, and forward again.
	r := installer(b).Rollback(t.Context(), "pos")
	want(t, r, "success 0 Installed RolledBackByOperator ")
	inForce(t, b, vs[3])
	want(t, apply(t, b, vs[4], installtest.Want{Revision: 9}), "rolled_back 4 RolledBack RolledBackByOperator ")
	inForce(t, b, vs[3])
	want(t, installer(b).Rollback(t.Context(), "pos"), "success 0 Installed RolledBackByOperator ")
	inForce(t, b, vs[2])
	want(t, installer(b).Rollback(t.Context(), "pos"), "deferred 1 Deferred NotFound E1204")
	want(t, installer(b).Retry(t.Context(), "pos"), "success 0 Installed FailuresForgotten ")
	want(t, apply(t, b, vs[4], installtest.Want{Revision: 9}), done)
	inForce(t, b, vs[4])
}

func TestRefusals(t *testing.T) {
	old := func(b *installtest.Bench) *installtest.Bundle {
		v := b.Bundle(t, spec("1.0", 5))
		want(t, apply(t, b, v, installtest.Want{}), done)
		return v
	}
	flip := func(p []byte) []byte { p = bytes.Clone(p); p[len(p)/2] ^= 1; return p }
	keys := installtest.New(t, nil).Keys
	for _, c := range []struct {
		name  string
		spec  func(*installtest.Spec)
		want  installtest.Want
		spoil func(*testing.T, *installtest.Bench, *installtest.Bundle, *install.Request)
		line  string
	}{
		{name: "unknown release key", spec: func(s *installtest.Spec) { s.Key = keys.Stranger }, line: badSig},
		{name: "policy key signs a bundle", spec: func(s *installtest.Spec) { s.Key = keys.Policy }, line: badSig},
		{name: "unknown policy key", want: installtest.Want{Key: keys.Stranger}, line: badSig},
		{name: "release key signs a policy", want: installtest.Want{Key: keys.Release}, line: badSig},
		{name: "flipped bit in the manifest", line: badSig, spoil: func(_ *testing.T, _ *installtest.Bench, _ *installtest.Bundle, r *install.Request) {
			r.Manifest = flip(r.Manifest)
		}},
		{name: "flipped bit in the signature", line: badSig, spoil: func(_ *testing.T, _ *installtest.Bench, _ *installtest.Bundle, r *install.Request) {
			r.Signature = flip(r.Signature)
		}},
		{name: "flipped bit in the policy", line: badSig, spoil: func(_ *testing.T, _ *installtest.Bench, _ *installtest.Bundle, r *install.Request) {
			r.Policy = flip(r.Policy)
		}},
		{name: "policy of another bundle", line: badSum, want: installtest.Want{Ref: func(r *policy.BundleRef) { r.Name = "other" }}},
		{name: "policy of another version", line: badSum, want: installtest.Want{Ref: func(r *policy.BundleRef) { r.Version = "9" }}},
		{name: "policy of another checksum", line: badSum, want: installtest.Want{Ref: func(r *policy.BundleRef) { r.Checksum[0] ^= 1 }}},
		{name: "same version, other content", line: badSum, spec: func(s *installtest.Spec) { s.Version = "1.0" }},
		{name: "other system", line: "verification_failure 3 Quarantined TargetMismatch E1301",
			spec: func(s *installtest.Spec) { s.Target = &manifest.Target{OS: "rhel", Release: "9", Arch: "amd64"} }},
		{name: "older sequence", line: tooOld, spec: func(s *installtest.Spec) { s.Sequence = 4 }},
		{name: "same sequence, other bundle", line: tooOld, spec: func(s *installtest.Spec) { s.Sequence = 5 }},
		{name: "health check off the loopback", line: "verification_failure 3 Quarantined InvalidPolicy E1102", want: installtest.Want{},
			spoil: func(t *testing.T, b *installtest.Bench, v *installtest.Bundle, r *install.Request) {
				y := fmt.Sprintf("apiVersion: patchmgmt.io/v1\nkind: PatchPolicy\nmetadata: {name: pos}\nspec:\n  bundleRef: {name: pos, version: %q, checksum: %q}\n  targets: {selector: {matchLabels: {role: pos}}}\n  rollback: {healthCheckUrl: %q}\n", v.Version, v.Digest, "http://192.0.2.1/")
				d := policy.Document{Schema: policy.Schema, Name: "pos", Revision: 1, Created: installtest.Created.Format(time.RFC3339), Policy: y}
				doc, err := manifest.EncodeCanonical(d)
				if err != nil {
					t.Fatal(err)
				}
				s := installtest.Sign(t, b.Keys.Policy, doc)
				r.Policy, r.PolicySignature = s.Doc, s.Sig
			}},
		{name: "withdrawn policy", line: "verification_failure 3 Quarantined InvalidPolicy E1102",
			spoil: func(t *testing.T, b *installtest.Bench, _ *installtest.Bundle, r *install.Request) {
				d, err := policy.NewDeletion("pos", 9, installtest.Created)
				if err != nil {
					t.Fatal(err)
				}
				doc, err := d.Encode()
				if err != nil {
					t.Fatal(err)
				}
				s := installtest.Sign(t, b.Keys.Policy, doc)
				r.Policy, r.PolicySignature = s.Doc, s.Sig
			}},
		{name: "path leaves the bundle", line: badIndex, spec: func(s *installtest.Spec) { s.Index = func(x *manifest.Index) { x.Files[0].Path = "../escaped" } }},
		{name: "absolute path", line: badIndex, spec: func(s *installtest.Spec) { s.Index = func(x *manifest.Index) { x.Files[0].Path = "/etc/escaped" } }},
		{name: "path twice", line: badIndex, spec: func(s *installtest.Spec) { s.Index = func(x *manifest.Index) { x.Files[1].Path = x.Files[0].Path } }},
		{name: "setuid", line: badIndex, spec: func(s *installtest.Spec) { s.Index = func(x *manifest.Index) { x.Files[0].Mode = 0o4755 } }},
		{name: "size lies", line: badIndex, spec: func(s *installtest.Spec) { s.Index = func(x *manifest.Index) { x.Files[1].Size += 100 } }},
		{name: "chunk size lies", line: "verification_failure 2 Deferred ChunkCorrupt E2103", spec: func(s *installtest.Spec) {
			s.Index = func(x *manifest.Index) { f := file(x, "data"); f.Size += 5; f.Chunks[0].Size += 5 }
		}},
		{name: "file hash lies", line: badIndex, spec: func(s *installtest.Spec) {
			s.Index = func(x *manifest.Index) { file(x, "data").SHA256 = file(x, "version").SHA256 }
		}},
		{name: "total lies", line: badIndex, spec: func(s *installtest.Spec) { s.Manifest = func(m *manifest.Manifest) { m.TotalBytes++ } }},
		{name: "flipped bit in a stored chunk", line: "verification_failure 2 Deferred ChunkCorrupt E2103",
			spoil: func(t *testing.T, b *installtest.Bench, v *installtest.Bundle, _ *install.Request) {
				corrupt(t, b, file(v.Index, "data").Chunks[1].ID)
			}},
		{name: "flipped bit in the stored index", line: "verification_failure 2 Deferred ChunkCorrupt E2103",
			spoil: func(t *testing.T, b *installtest.Bench, v *installtest.Bundle, _ *install.Request) {
				corrupt(t, b, v.Manifest.Index.Chunks[0].ID)
			}},
		{name: "chunk missing", line: "deferred 1 Deferred NotStaged E1204",
			spoil: func(t *testing.T, b *installtest.Bench, v *installtest.Bundle, _ *install.Request) {
				if err := os.Remove(b.ChunkPath(file(v.Index, "data").Chunks[1].ID)); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "no store", line: "deferred 1 Deferred NotStaged E1204",
			spoil: func(_ *testing.T, b *installtest.Bench, _ *installtest.Bundle, r *install.Request) {
				r.Store = filepath.Join(b.Dir, "nowhere")
			}},
		{name: "fifo in the place of a chunk", line: "verification_failure 2 Deferred ChunkCorrupt E2103",
			spoil: func(t *testing.T, b *installtest.Bench, v *installtest.Bundle, _ *install.Request) {
				p := b.ChunkPath(file(v.Index, "data").Chunks[1].ID)
				if err := os.Remove(p); err != nil {
					t.Fatal(err)
				}
				if err := unix.Mkfifo(p, 0o644); err != nil {
					t.Fatal(err)
				}
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := installtest.New(t, nil)
			before := old(b)
			s := spec("1.1", 6)
			if c.spec != nil {
				c.spec(&s)
			}
			s.Files["only in the new one"] = "x"
			v := b.Bundle(t, s)
			r := b.Request(t, v, c.want)
			if c.spoil != nil {
				c.spoil(t, b, v, &r)
			}
			want(t, installer(b).Apply(t.Context(), r), c.line)
			inForce(t, b, before)
			if _, err := os.Lstat(filepath.Join(b.Dir, "escaped")); err == nil {
				t.Fatal("a file was written outside")
			}
		})
	}
}

func file(x *manifest.Index, path string) *manifest.File {
	for i := range x.Files {
		if x.Files[i].Path == path {
			return &x.Files[i]
		}
	}
	panic("no file " + path)
}

func corrupt(t *testing.T, b *installtest.Bench, id chunk.ID) {
	t.Helper()
	p := b.ChunkPath(id)
	data, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 0x10
	installtest.WriteFile(t, p, data)
}

// The positive control of the table above: the same request, not broken, goes through, so each line fails for its
// own reason. And what was refused for the store's sake goes through once the store is good again.
func TestRefusedThenRepaired(t *testing.T) {
	b := installtest.New(t, nil)
	v := b.Bundle(t, spec("1.0", 1))
	id := file(v.Index, "data").Chunks[1].ID
	good, err := os.ReadFile(b.ChunkPath(id))
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // more often than the attempts that count
		corrupt(t, b, id)
		r := apply(t, b, v, installtest.Want{})
		want(t, r, "verification_failure 2 Deferred ChunkCorrupt E2103")
		if r.Chunk != id.String() {
			t.Fatalf("chunk %q is named, want %s", r.Chunk, id)
		}
		inForce(t, b, nil)
		if _, err := os.Stat(filepath.Join(b.Config.Root, "pos")); !os.IsNotExist(err) {
			t.Fatalf("something is left of a release that never was: %v", err)
		}
		installtest.WriteFile(t, b.ChunkPath(id), good)
	}
	want(t, apply(t, b, v, installtest.Want{}), done)
	inForce(t, b, v)
}

func TestLabels(t *testing.T) {
	b := installtest.New(t, nil)
	v := b.Bundle(t, spec("1.0", 1))
	b.Config.Labels = map[string]string{"role": "kiosk"}
	want(t, apply(t, b, v, installtest.Want{}), "verification_failure 3 Quarantined NotSelected E1203")
	b.Config.Labels = map[string]string{"role": "pos", "ring": "canary"}
	want(t, apply(t, b, v, installtest.Want{}), done)
}

func TestHealth(t *testing.T) {
	var code int
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
	defer srv.Close()
	b := installtest.New(t, nil)
	v1, v2, v3 := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2)), b.Bundle(t, spec("3", 3))
	code = 204
	want(t, apply(t, b, v1, installtest.Want{URL: srv.URL, Timeout: 1}), done)
	code = 500
	r := apply(t, b, v2, installtest.Want{URL: srv.URL, Timeout: 1})
	want(t, r, unhealthy)
	if !strings.Contains(r.Detail, "status 500") {
		t.Errorf("detail %q does not say what was seen", r.Detail)
	}
	inForce(t, b, v1, v2)
	// It is held: not tried again although the service would be well now, until somebody says so.
	code = 200
	want(t, apply(t, b, v2, installtest.Want{URL: srv.URL, Timeout: 1}), unhealthy)
	inForce(t, b, v1, v2)
	// Another checksum is another matter.
	want(t, apply(t, b, v3, installtest.Want{URL: srv.URL, Timeout: 1}), done)
	inForce(t, b, v3)

	b = installtest.New(t, nil)
	v1, v2 = b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
	code = 503
	want(t, apply(t, b, v1, installtest.Want{URL: srv.URL, Timeout: 1}), unhealthy)
	inForce(t, b, nil, v1) // the first one ever: nothing is what it goes back to
	want(t, installer(b).Retry(t.Context(), "pos"), "success 0 Installed FailuresForgotten ")
	code = 200
	want(t, apply(t, b, v1, installtest.Want{URL: srv.URL, Timeout: 1}), done)
	code = 503
	want(t, apply(t, b, v2, installtest.Want{URL: srv.URL, Timeout: 1, Disabled: true}), done)
	inForce(t, b, v2) // rollback switched off: nothing is asked
}

func TestHealthCommand(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "healthy.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ \"$MESH_BUNDLE\" = pos ] && test -e "+dir+"/ok\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := installtest.New(t, func(c *install.Config) { c.Health.Command, c.Health.TimeoutSeconds = []string{script}, 1 })
	v1, v2 := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
	installtest.WriteFile(t, filepath.Join(dir, "ok"), nil)
	want(t, apply(t, b, v1, installtest.Want{}), done)
	if err := os.Remove(filepath.Join(dir, "ok")); err != nil {
		t.Fatal(err)
	}
	want(t, apply(t, b, v2, installtest.Want{}), unhealthy)
	inForce(t, b, v1, v2)
}

func TestLocked(t *testing.T) {
	b := installtest.New(t, nil)
	v := b.Bundle(t, spec("1", 1))
	if err := os.MkdirAll(b.Config.State, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(b.Config.State, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	want(t, apply(t, b, v, installtest.Want{}), "deferred 1 Deferred Locked E4104")
	inForce(t, b, nil, v)
	f.Close()
	want(t, apply(t, b, v, installtest.Want{}), done)
}

// A clock at 1970 or 2099 changes nothing: no date is judged by it.
func TestClocks(t *testing.T) {
	for _, year := range []int{1970, 2099} {
		b := installtest.New(t, nil)
		v := b.Bundle(t, spec("1", 1))
		in := installer(b)
		in.Now = func() time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
		want(t, in.Apply(t.Context(), b.Request(t, v, installtest.Want{})), done)
	}
}

// Asked to end while it copies, it leaves nothing; asked while it waits for an answer, it leaves the journal, and the
// next run asks again.
func TestAskedToEnd(t *testing.T) {
	b := installtest.New(t, nil)
	v := b.Bundle(t, spec("1", 1))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, installer(b).Apply(gone, b.Request(t, v, installtest.Want{})), "deferred 1 Deferred Interrupted E3302")
	inForce(t, b, nil, v)

	ln, err := net.Listen("tcp", "127.0.0.1:0") // a service that never answers
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithCancel(t.Context())
	in := installer(b)
	in.Host = installtest.Host{Well: func(ctx context.Context, c health.Check) error { cancel(); return health.Runner{}.Probe(ctx, c) }}
	req := b.Request(t, v, installtest.Want{URL: "http://" + ln.Addr().String(), Timeout: 60})
	want(t, in.Apply(ctx, req), "deferred 1 Deferred Interrupted E3302")
	st, err := install.ReadStatus(b.Config)
	if err != nil || st.Open == nil || st.Open.Step != "check" {
		t.Fatalf("open transaction %+v, %v", st.Open, err)
	}
	in = installer(b)
	in.Host = installtest.Host{Well: func(context.Context, health.Check) error { return nil }}
	r := in.Apply(t.Context(), req)
	want(t, r, done) // not that there was nothing to do, with the new release in force before
	if !strings.Contains(r.Recovered, "cut off before check: success") || r.Before != nil {
		t.Errorf("recovered %q, before %+v", r.Recovered, r.Before)
	}
	want(t, in.Apply(t.Context(), req), nothing)
	inForce(t, b, v)
}

func TestTwoBundles(t *testing.T) {
	b := installtest.New(t, nil)
	s := spec("7", 1)
	s.Name = "prices"
	pos, prices := b.Bundle(t, spec("1", 9)), b.Bundle(t, s)
	want(t, apply(t, b, pos, installtest.Want{}), done)
	want(t, apply(t, b, prices, installtest.Want{}), done) // its own floor
	inForce(t, b, pos)
	inForce(t, b, prices)
}

// Everything that goes over a pipe to the daemon comes back as it was.
func TestResultJSON(t *testing.T) {
	b := installtest.New(t, nil)
	v := b.Bundle(t, spec("1", 1))
	r := apply(t, b, v, installtest.Want{})
	var buf bytes.Buffer
	if err := r.WriteJSON(&buf); err != nil {
		t.Fatal(err)
	}
	back, err := install.DecodeResult(buf.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if back.Phase != status.Installed || back.Installed.Checksum != v.Digest || back.Isolation != "none: test" {
		t.Errorf("came back as %+v", back)
	}
	if _, err := install.DecodeResult([]byte(`{}`)); err == nil {
		t.Error("an empty document is taken for a result")
	}
}

func TestConfig(t *testing.T) {
	if _, err := install.ParseConfig(nil); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
	for _, y := range []string{
		"rot: /x", "root: relative", "root: /a/../b", "root: '/with blank'", "keep: 0", "keep: many", "reserveBytes: -1",
		"health: {timeoutSeconds: 0}", "health: {command: [sh]}", "isolation: maybe", "health: {timeout: 1}",
	} {
		if _, err := install.ParseConfig([]byte(y)); problem.CodeOf(err) != problem.InvalidFile {
			t.Errorf("%q: %v", y, err)
		}
	}
	name := filepath.Join(t.TempDir(), "c.yaml")
	installtest.WriteFile(t, name, []byte("keep: 3\n"))
	if c, err := install.ReadConfig(name); err != nil || c.Keep != 3 {
		t.Errorf("keep %d, %v", c.Keep, err)
	}
	if err := os.Chmod(name, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := install.ReadConfig(name); err == nil {
		t.Error("a configuration that anybody may write is used")
	}
}

// The same for the keys: whoever may write them decides what is installed.
func TestTrustFile(t *testing.T) {
	b := installtest.New(t, nil)
	v := b.Bundle(t, spec("1", 1))
	if err := os.Chmod(b.Config.Trust, 0o666); err != nil {
		t.Fatal(err)
	}
	want(t, apply(t, b, v, installtest.Want{}), "deferred 1 Deferred Unusable E1002")
	if err := os.Chmod(b.Config.Trust, 0o644); err != nil {
		t.Fatal(err)
	}
	want(t, apply(t, b, v, installtest.Want{}), done)
}

func TestParseOSRelease(t *testing.T) {
	f := install.ParseOSRelease([]byte("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\nVERSION_ID=\"12\"\n# ID=x\n"))
	if f.OS != "debian" || f.Release != "12" || f.Arch == "" {
		t.Errorf("%+v", f)
	}
}

func FuzzRequest(f *testing.F) {
	good, err := install.NewRequest(trust.Signed{Doc: []byte("m"), Sig: []byte("s")}, trust.Signed{Doc: []byte("p"), Sig: []byte("q")}, "/store").Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"schema":"patchmesh.io/install-request/v1","manifest":"AA==","store":"../x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := install.ParseRequest(b)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := install.ParseRequest(again); err != nil || back.Store != r.Store || !bytes.Equal(back.Manifest, r.Manifest) {
			t.Fatalf("does not come back: %v", err)
		}
	})
}
