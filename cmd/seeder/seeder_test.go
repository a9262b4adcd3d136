package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
)

// TestMain lets the test binary be the program, so that a real process can be killed.
func TestMain(m *testing.M) {
	if os.Getenv("SEEDER_TEST_MAIN") == "1" {
		if at := os.Getenv("SEEDER_TEST_PROFILE"); at != "" {
			profile(at)
		}
		main()
		return
	}
	os.Exit(m.Run())
}

// process is a running seeder.
type process struct {
	*exec.Cmd
	stderr *bytes.Buffer
	mesh   netip.AddrPort
	peer   peer.ID
	admin  *api.Client
}

// keys makes a release and a policy key in a directory, and returns the flags and the release signer.
func keys(t testing.TB, dir string) (flags []string, release *signer.KeyFile) {
	t.Helper()
	for _, role := range []string{"release", "policy"} {
		priv, pub, _, err := signer.Generate(role, "")
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, role+".pub")
		if err := errors.Join(os.WriteFile(name, pub, 0o644), os.WriteFile(filepath.Join(dir, role+".key"), priv, 0o600)); err != nil {
			t.Fatal(err)
		}
		flags = append(flags, "--"+role+"-key", name)
		if role == "release" {
			if release, err = signer.FromKey(priv, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	return flags, release
}

func command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], args...)
	c.Env = append(os.Environ(), "SEEDER_TEST_MAIN=1")
	return c
}

func launch(t testing.TB, state string, args ...string) *process {
	t.Helper()
	return serve(t, command(t), state, args...)
}

// serve lets a program serve on the loopback, and waits until it does.
func serve(t testing.TB, c *exec.Cmd, state string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: c, stderr: new(bytes.Buffer)}
	p.Args = append(p.Args, append([]string{"serve", "--state", state, "--listen-mesh", "127.0.0.1:0", "--listen-api", "127.0.0.1:0"}, args...)...)
	p.Stderr = p.stderr
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	f := strings.Fields(line)
	if err != nil || len(f) < 3 || f[0] != "ready" {
		t.Fatalf("first line %q, %v\n%s", line, err, p.stderr)
	}
	if p.mesh, err = netip.ParseAddrPort(f[2]); err != nil {
		t.Fatal(err)
	}
	if p.peer, err = peer.Decode(f[len(f)-1]); err != nil {
		t.Fatal(err)
	}
	a, err := api.ReadAccess(filepath.Join(state, "admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	if p.admin, err = api.NewClient(a); err != nil {
		t.Fatal(err)
	}
	return p
}

// kill is kill -9.
func (p *process) kill(t testing.TB) {
	t.Helper()
	p.admin.CloseIdle()
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait() // "signal: killed"
}

func (p *process) signal(t testing.TB, s os.Signal) {
	t.Helper()
	p.admin.CloseIdle()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("after %s: %v\n%s", s, err, p.stderr)
	}
}

// reporter is a node that does nothing but report.
type reporter struct {
	*xfer.Host
	site string
	key  ed25519.PrivateKey
	up   chan *xfer.Session
	acks chan uint64
}

func (r *reporter) SessionUp(s *xfer.Session)        { r.up <- s }
func (r *reporter) SessionDown(*xfer.Session, error) {}
func (r *reporter) Message(_ *xfer.Session, m wire.Message) error {
	if a, ok := m.(*wire.ReportAck); ok {
		r.acks <- a.Seq
	}
	return nil
}

func (r *reporter) Chunk(context.Context, *xfer.Session, chunk.ID) (xfer.Served, error) {
	return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonNotHeld}
}

func (r *reporter) report(t testing.TB, seq uint64) *wire.Report {
	t.Helper()
	b, err := json.Marshal(status.ReportBody{Site: r.site, Node: "n1", Seq: seq, Occurred: time.Unix(int64(seq), 0).UTC(), Phase: status.Staged, Reason: "Complete"})
	if err != nil {
		t.Fatal(err)
	}
	return &wire.Report{Report: status.Report{Site: r.site, Node: "n1", Seq: seq, Body: b, Sig: ed25519.Sign(r.key, b)}}
}

func join(t testing.TB, p *process, site string) *reporter {
	t.Helper()
	if _, err := p.admin.CreateSite(t.Context(), api.SiteSpec{Name: site}); err != nil {
		t.Fatal(err)
	}
	reply, err := p.admin.CreateToken(t.Context(), site, api.TokenSpec{})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := enrol.ParseToken(reply.Token)
	if err != nil {
		t.Fatal(err)
	}
	r := &reporter{site: site, up: make(chan *xfer.Session, 16), acks: make(chan uint64, 1<<16)}
	if _, r.key, err = ed25519.GenerateKey(nil); err != nil {
		t.Fatal(err)
	}
	id := api.PeerID(r.key.Public().(ed25519.PublicKey))
	if _, err := p.admin.Enrol(t.Context(), enrol.Request{Secret: tok.Secret, Name: "n1", PeerID: id, Proof: ed25519.Sign(r.key, enrol.ProofMessage(tok.Secret, "n1", id)), Addrs: []string{}}); err != nil {
		t.Fatal(err)
	}
	lk, err := crypto.UnmarshalEd25519PrivateKey(r.key)
	if err != nil {
		t.Fatal(err)
	}
	r.Host, err = xfer.New(xfer.Config{Key: lk, Site: site, Name: "n1", Listen: "127.0.0.1:0", Limits: xfer.NodeLimits(), Allow: func(peer.ID) bool { return true }, Handler: r})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

// session dials until a session stands: the old connection may take a moment to be noticed as dead.
func (r *reporter) session(t testing.TB, p *process) *xfer.Session {
	t.Helper()
	for try := 0; ; try++ {
		r.Disconnect(p.peer, fmt.Errorf("the seeder was killed"))
		err := r.Dial(t.Context(), p.peer, p.mesh)
		select {
		case s := <-r.up:
			return s
		case <-time.After(2 * time.Second):
			if try == 10 {
				t.Fatalf("no session: %v\n%s", err, p.stderr)
			}
		}
	}
}

// An upload survives kills: nothing that was put has to be put again, and what is published is whole.
func TestKillDuringUpload(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "st")
	flags, release := keys(t, dir)
	b := noiseBundle(t, dir, 6<<20, release)
	sums, err := b.SignedSums()
	if err != nil {
		t.Fatal(err)
	}
	catalog := b.Catalog()
	p := launch(t, state, flags...)
	left := len(catalog.Chunks)
	for kills := 0; ; kills++ {
		begun, err := p.admin.BeginBundle(t.Context(), api.BundleUpload{Manifest: b.Signed, Index: b.IndexBytes(), Sums: sums})
		if err != nil {
			t.Fatal(err)
		}
		if len(begun.Missing) >= left {
			t.Fatalf("after %d kills %d chunks are missing, %d were before", kills, len(begun.Missing), left)
		}
		left = len(begun.Missing)
		if left == 0 {
			if _, err := p.admin.CommitBundle(t.Context(), b.Digest); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d kills", kills)
			break
		}
		for _, id := range begun.Missing[:min(5, left)] {
			i, _ := catalog.Position(id)
			plain, err := b.ReadChunk(catalog.Chunks[i])
			if err != nil {
				t.Fatal(err)
			}
			if err := p.admin.PutChunk(t.Context(), id, plain); err != nil {
				t.Fatal(err)
			}
		}
		left -= min(5, left) - 1 // the next round must know of all of them
		p.kill(t)
		p = launch(t, state, flags...)
	}
	p.kill(t)
	if out, err := command(t, "fsck", "--state", state).CombinedOutput(); err != nil {
		t.Errorf("fsck: %v\n%s", err, out)
	}
}

func TestStopsOnSignals(t *testing.T) {
	dir := t.TempDir()
	flags, _ := keys(t, dir)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		p := launch(t, filepath.Join(dir, "st"), flags...)
		if out, err := command(t, "fsck", "--state", filepath.Join(dir, "st")).CombinedOutput(); err == nil || !strings.Contains(string(out), "E4104") {
			t.Errorf("fsck of a running seeder: %v\n%s", err, out)
		}
		p.signal(t, s)
	}
}
