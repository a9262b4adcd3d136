// Package postgres gives tests a PostgreSQL server of their own: a fresh cluster on a unix socket, without a network,
// run by an unprivileged user, stopped and removed at the end. It can be killed and started again. It is for tests only
// and not safe for concurrent use.
package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTime bounds how long a server may take until it answers, recovery after a kill included.
const startTime = 20 * time.Second

// Server is a running server.
type Server struct {
	t     testing.TB
	dir   string
	bin   string
	cred  *syscall.Credential // nil: as we are
	cmd   *exec.Cmd
	done  chan struct{} // closed when cmd has ended
	waits sync.WaitGroup
	log   bytes.Buffer
}

// Start makes a cluster and starts it, or skips the test where PostgreSQL is not installed. The server flushes to the disk
// as a real one does.
func Start(t testing.TB) *Server {
	t.Helper()
	bin := binaries()
	if bin == "" {
		t.Skip("needs initdb, postgres and psql: apt-get install postgresql")
	}
	s := &Server{t: t, bin: bin}
	// Not t.TempDir: the socket's path must be short, and the server's user must reach it.
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.dir = dir
	if os.Getuid() == 0 { // the server refuses to run as root
		if s.cred, err = unprivileged(); err != nil {
			t.Skip("needs a user who is not root: adduser --system postgres")
		}
		if err := os.Chown(dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	init := s.command("initdb", "--pgdata", s.data(), "--username", "patchmesh", "--auth", "trust", "--encoding", "UTF8", "--no-sync")
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	t.Cleanup(s.stop)
	s.Restart()
	return s
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// binaries finds the directory that holds the programs: Debian keeps them out of the PATH, others do not.
func binaries() string {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is good
	dirs = append(dirs, filepath.SplitList(os.Getenv("PATH"))...)
	for _, dir := range dirs {
		if !slices.ContainsFunc([]string{"initdb", "postgres", "psql"}, func(name string) bool {
			_, err := os.Stat(filepath.Join(dir, name))
			return err != nil
		}) {
			return dir
		}
	}
	return ""
}

func unprivileged() (*syscall.Credential, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(context.Background(), filepath.Join(s.bin, name), args...) // ends in Cleanup, when the test's context has ended
	c.Dir = s.dir
	c.Env = []string{"LC_ALL=C", "PATH=" + s.bin + ":/usr/bin:/bin"}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true}
	return c
}

// Restart starts the server, after a Kill too, and returns when it answers.
func (s *Server) Restart() {
	s.t.Helper()
	for end := time.Now().Add(startTime); ; time.Sleep(20 * time.Millisecond) {
		if s.cmd == nil {
			s.launch()
		}
		out, err := s.SQL("SELECT 1")
		if err == nil {
			return
		}
		select {
		case <-s.done: // what is left of the one before still holds the shared memory
			s.cmd = nil
		default:
		}
		if time.Now().After(end) {
			s.stop()
			s.t.Fatalf("the server does not answer: %v\n%s%s", err, out, &s.log)
		}
	}
}

func (s *Server) launch() {
	s.t.Helper()
	s.log.Reset()
	s.cmd = s.command("postgres", "-D", s.data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "max_connections=50", "-c", "shared_buffers=16MB")
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	done, cmd := make(chan struct{}), s.cmd
	s.waits.Go(func() {
		_ = cmd.Wait() // how it ended is in the log
		close(done)
	})
	s.done = done
}

// Kill is kill -9 of the server and of all its children.
func (s *Server) Kill() {
	s.t.Helper()
	pid := s.cmd.Process.Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil { // it shall start no more of them
		s.t.Fatal(err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		s.t.Skip("needs /proc/PID/task/PID/children: run on Linux with CONFIG_PROC_CHILDREN")
	}
	for _, f := range append(strings.Fields(string(children)), strconv.Itoa(pid)) {
		if n, err := strconv.Atoi(f); err == nil {
			_ = syscall.Kill(n, syscall.SIGKILL) // it may have ended by itself
		}
	}
	s.waits.Wait()
	s.cmd = nil
}

func (s *Server) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGQUIT) // at once: nothing is needed any more
	s.waits.Wait()
	s.cmd = nil
}

// Fresh makes an empty database, as a schema of its own, and returns its name for a seeder.
func (s *Server) Fresh() string {
	s.t.Helper()
	name := "t" + strings.ToLower(rand.Text())
	if out, err := s.SQL("CREATE SCHEMA " + name); err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	q := url.Values{"host": {s.dir}, "search_path": {name}}
	return fmt.Sprintf("postgres://patchmesh@/postgres?%s", q.Encode())
}

// SQL lets psql run a command.
func (s *Server) SQL(query string) (string, error) {
	out, err := s.command("psql", "-X", "-v", "ON_ERROR_STOP=1", "-h", s.dir, "-U", "patchmesh", "-d", "postgres", "-Atc", query).CombinedOutput()
	return string(out), err
}
