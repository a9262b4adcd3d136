package install_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
	"github.com/patchmesh/patchmesh/install/preflight"
)

// nobody is the user that the daemon is here: neither root nor in any group.
const nobody = 65534

// spool is a directory of the daemon's user, with a request that is good, beside what belongs to root.
type spool struct {
	dir, request, secret string
	good                 []byte
	stop                 atomic.Bool
	swaps                atomic.Int64
	wait                 sync.WaitGroup
}

const secretWord = "TOPSECRET"

func newSpool(t *testing.T, b *installtest.Bench, v *installtest.Bundle) *spool {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run the tests as root")
	}
	for _, dir := range []string{filepath.Dir(b.Dir), b.Dir} { // so that others get as far as theirs
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := &spool{dir: filepath.Join(b.Dir, "spool"), secret: filepath.Join(b.Dir, "secret")}
	s.request = filepath.Join(s.dir, "request.json")
	if err := os.Mkdir(s.dir, 0o750); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{s.dir, b.Store} {
		if err := filepath.WalkDir(p, func(p string, _ os.DirEntry, err error) error { return errors.Join(err, os.Lchown(p, nobody, nobody)) }); err != nil {
			t.Fatal(err)
		}
	}
	installtest.WriteFile(t, s.secret, []byte(secretWord))
	if err := os.Chmod(s.secret, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.good, err = b.Request(t, v, installtest.Want{}).Fresh().Encode(); err != nil {
		t.Fatal(err)
	}
	return s
}

// haunt lets the daemon's user do to its directory what it can, on a thread that has no more rights than it.
func (s *spool) haunt(t *testing.T, tricks []func(*spool, *rand.Rand)) {
	t.Helper()
	ready := make(chan error)
	s.wait.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its user
		for _, call := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
			if _, _, e := unix.RawSyscall(call, nobody, nobody, nobody); e != 0 {
				ready <- e
				return
			}
		}
		if _, err := os.ReadFile(s.secret); err == nil {
			ready <- errors.New("the thread has kept its rights")
			return
		}
		ready <- nil
		rnd := rand.New(rand.NewPCG(1, 2))
		for !s.stop.Load() {
			tricks[rnd.IntN(len(tricks))](s, rnd)
			s.swaps.Add(1)
		}
	})
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.end)
}

func (s *spool) end() { s.stop.Store(true); s.wait.Wait() }

// put makes something and moves it over the request.
func (s *spool) put(make func(tmp string) error) {
	tmp := filepath.Join(s.dir, "tmp")
	os.RemoveAll(tmp)
	if make(tmp) != nil {
		return
	}
	if os.Rename(tmp, s.request) != nil { // a directory is in the way
		os.RemoveAll(s.request)
		os.Rename(tmp, s.request)
	}
}

func putGood(s *spool, _ *rand.Rand) {
	s.put(func(tmp string) error { return os.WriteFile(tmp, s.good, 0o644) })
}

func putLink(s *spool, _ *rand.Rand) {
	s.put(func(tmp string) error { return os.Symlink(s.secret, tmp) })
}

func tricks() []func(*spool, *rand.Rand) {
	return []func(*spool, *rand.Rand){
		putGood, putGood, putGood, putLink,
		func(s *spool, _ *rand.Rand) { s.put(func(tmp string) error { return os.Symlink("request.json", tmp) }) },
		func(s *spool, _ *rand.Rand) { s.put(func(tmp string) error { return unix.Mkfifo(tmp, 0o666) }) },
		func(s *spool, _ *rand.Rand) { s.put(func(tmp string) error { return os.Mkdir(tmp, 0o755) }) },
		func(s *spool, _ *rand.Rand) {
			s.put(func(tmp string) error { return errors.Join(os.WriteFile(tmp, nil, 0o644), os.Truncate(tmp, 1<<40)) })
		},
		func(s *spool, rnd *rand.Rand) { // garbage in the middle
			b := append([]byte(nil), s.good...)
			b[rnd.IntN(len(b))] ^= byte(1 + rnd.IntN(255))
			s.put(func(tmp string) error { return os.WriteFile(tmp, b, 0o644) })
		},
		func(s *spool, _ *rand.Rand) { // another place for the chunks: the secret's
			b := []byte(strings.Replace(string(s.good), `"store":"`, `"store":"`+filepath.Dir(s.secret)+`/secret/..`, 1))
			s.put(func(tmp string) error { return os.WriteFile(tmp, b, 0o644) })
		},
		func(s *spool, _ *rand.Rand) { // in place, and slowly
			f, err := os.OpenFile(s.request, os.O_WRONLY|os.O_TRUNC|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
			if err != nil {
				return
			}
			defer f.Close()
			for part := s.good; len(part) > 0; part = part[min(len(part), 1000):] {
				f.Write(part[:min(len(part), 1000)])
			}
		},
		func(s *spool, _ *rand.Rand) { os.RemoveAll(s.request) },
		func(s *spool, _ *rand.Rand) { // whoever opens it has to wait until it is given back
			f, err := os.OpenFile(s.request, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
			if err != nil {
				return
			}
			defer f.Close()
			unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
			runtime.Gosched()
		},
		func(s *spool, _ *rand.Rand) { // the directory itself, which is not its own to move
			if os.Rename(s.dir, s.dir+"2") == nil {
				panic("the directory could be moved")
			}
		},
	}
}

// Whatever the daemon's user does to its directory, the executor is not held up, reads nothing that is not its user's,
// installs verified bytes only, and tells no secret.
func TestHostileHandoff(t *testing.T) {
	b := installtest.New(t, nil)
	v := b.Bundle(t, toctouSpec())
	s := newSpool(t, b, v)
	s.haunt(t, tricks())
	const rounds = 100 // in which a request could be read
	installed, refused, unread := 0, 0, 0
	for installed+refused < rounds {
		req, err := install.ReadRequest(s.request)
		if err != nil {
			unread++
			if strings.Contains(err.Error(), secretWord) {
				t.Fatalf("the secret is told: %v", err)
			}
			continue
		}
		r := installer(b).Apply(t.Context(), req)
		if got, err := b.InForce("pos", v); err != nil || (got == v) != (r.Exit == install.ExitDone) {
			t.Fatalf("%v, %v: %+v", version(got), err, r)
		}
		if r.Exit == install.ExitDone {
			installed++
		} else {
			refused++
		}
		results, err := os.ReadFile(filepath.Join(b.Config.State, install.ResultsName))
		if err != nil || strings.Contains(string(results), secretWord) {
			t.Fatalf("%q, %v", results, err)
		}
		fi, err := os.Lstat(filepath.Join(b.Config.State, install.ResultsName))
		if st, ok := fi.Sys().(*syscall.Stat_t); err != nil || !ok || st.Uid != 0 || fi.Mode() != 0o644 {
			t.Fatalf("%v, %v", fi, err)
		}
		for _, dir := range []string{b.Config.Root, b.Config.State} {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.end()
	t.Logf("%d tricks: %d installed, %d refused, %d times there was nothing to read", s.swaps.Load(), installed, refused, unread)
	if installed == 0 || refused == 0 || unread == 0 {
		t.Error("always the same: the two do not meet")
	}
}

// The positive control: who opens the request as files are usually opened reads the secret.
func TestHostileHandoffIsNoticed(t *testing.T) {
	b := installtest.New(t, nil)
	s := newSpool(t, b, b.Bundle(t, toctouSpec()))
	s.haunt(t, []func(*spool, *rand.Rand){putGood, putLink})
	for range 100_000 {
		if got, err := os.ReadFile(s.request); err == nil && string(got) == secretWord {
			return
		}
	}
	t.Error("no link was ever followed: the test proves nothing")
}

// A daemon that says the machine's clock is wrong defers an install; it cannot do more by that.
func TestSkewDefers(t *testing.T) {
	p := newPatchBench(t, managertest.Deb(), pair("1.0-1")...)
	two := p.bundle("2", 2, managertest.Spec{Packages: pair("2.0-1")})
	req := p.Request(t, two, installtest.Want{})
	req.SkewSeconds = -301
	if r := p.installer().Apply(t.Context(), req); r.Exit != install.ExitDeferred || r.Reason != string(preflight.ClockUnsure) || p.version("demo") != "1.0-1" {
		t.Errorf("%+v", r)
	}
	req.SkewSeconds = 299
	if r := p.installer().Apply(t.Context(), req); r.Exit != install.ExitDone || p.version("demo") != "2.0-1" {
		t.Errorf("%+v", r)
	}
	req.SkewSeconds = 1 << 60
	doc, err := req.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := install.ParseRequest(doc); err == nil {
		t.Error("a skew of ages is accepted")
	}
}
