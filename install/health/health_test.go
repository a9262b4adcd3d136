package health

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

func TestParseURL(t *testing.T) {
	for _, s := range []string{"http://127.0.0.1:8080/healthz", "http://localhost/", "http://[::1]:9/x?y=z", "http://127.9.9.9"} {
		if _, err := parseURL(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{
		"", "https://127.0.0.1/", "http://192.0.2.1/", "http://example.com/", "http://127.0.0.1.example.com/", "http://u:p@127.0.0.1/",
		"http://127.0.0.1:0/", "http://127.0.0.1:99999/", "http://127.0.0.1/a b", "http://127.0.0.1/\r\nX: y", "http://[::1%25lo]/",
		"http://0.0.0.0/", "http://[::]/", "file:///etc/passwd", "http://2130706433/", "http://127.1/", "http://127.0.0.1/#f",
		"http://127.0.0.1/" + strings.Repeat("a", 3000),
	} {
		if _, err := parseURL(s); err == nil {
			t.Errorf("%.60q is accepted", s)
		}
	}
}

func TestURL(t *testing.T) {
	var tries, wellAfter int
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries <= wellAfter || r.URL.String() != "/health?x=1" || r.Host == "" {
			http.Redirect(w, r, "/elsewhere", http.StatusFound) // not an answer in the 200s, and not followed
		}
	}))
	defer srv.Close()
	r := Runner{Pause: time.Millisecond}
	wellAfter = 3
	if err := r.Probe(t.Context(), Check{URL: srv.URL + "/health?x=1", Timeout: time.Minute}); err != nil || tries != 4 {
		t.Errorf("%d tries, %v", tries, err)
	}
	wellAfter = 1 << 30
	var no *UnhealthyError
	err := r.Probe(t.Context(), Check{URL: srv.URL + "/health?x=1", Timeout: time.Second})
	if !errors.As(err, &no) || !strings.Contains(err.Error(), "status 302") {
		t.Errorf("%v", err)
	}
}

// What answers, but not in HTTP, or not at all, is not healthy; and nothing that answers can make the probe hang.
func TestStrangeAnswers(t *testing.T) {
	for _, answer := range []string{"", "SSH-2.0-OpenSSH\r\n", "HTTP/1.1 2x0 OK\r\n", "HTTP/2 200", "HTTP/1.1 099 x", "HTTP/1.1 200"[:11]} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				c.Write([]byte(answer))
				c.Close()
			}
		}()
		var no *UnhealthyError
		if err := (Runner{Pause: time.Millisecond}).Probe(t.Context(), Check{URL: "http://" + ln.Addr().String(), Timeout: 20 * time.Millisecond}); !errors.As(err, &no) {
			t.Errorf("%q: %v", answer, err)
		}
		ln.Close()
		<-done
	}
}

// A command that outlives its time is killed with everything it started.
func TestCommandGroupDies(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "slow.sh")
	fifo := filepath.Join(dir, "child")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte("#!/bin/sh\nsleep 1000 &\necho $! > "+fifo+"\nwait\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group errgroup.Group
	group.Go(func() error {
		return Runner{Command: []string{script}}.Probe(ctx, Check{Bundle: "pos", Command: true, Timeout: time.Hour})
	})
	b, err := os.ReadFile(fifo) // returns when the script has written
	cancel()
	if err := group.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if !dies(pid) {
		t.Errorf("process %d is still there", pid)
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// dies waits for the end of a process that is nobody's child here.
func dies(pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
	return n == 1 && err == nil
}

func TestGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Runner{Command: []string{"/bin/false"}, Pause: time.Millisecond}.Probe(ctx, Check{Command: true, Timeout: time.Hour})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestNothingToAsk(t *testing.T) {
	if err := (Runner{}).Probe(t.Context(), Check{}); err != nil {
		t.Error(err)
	}
	if err := (Runner{Pause: time.Millisecond}).Probe(t.Context(), Check{Command: true, Timeout: 10 * time.Millisecond}); err == nil {
		t.Error("a command that is not configured is healthy")
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("http://127.0.0.1:8080/healthz")
	f.Add("http://[::1]/?a=b")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := parseURL(s)
		if err != nil {
			return
		}
		if !u.addr.Addr().IsLoopback() || strings.ContainsAny(u.host+u.path, "\r\n ") {
			t.Fatalf("%q gives %+v", s, u)
		}
	})
}

// Well for a moment is not well for a while: a service that answers every third question with an error never holds, and
// one that stays well does, however ill it was at first.
func TestHold(t *testing.T) {
	var tries int
	var ill func(n int) bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if tries++; ill(tries) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	r := Runner{Pause: time.Millisecond}
	c := Check{URL: srv.URL, Timeout: time.Second, Hold: 500 * time.Millisecond}
	ill = func(n int) bool { return n%3 == 0 }
	var no *UnhealthyError
	if err := r.Probe(t.Context(), c); !errors.As(err, &no) {
		t.Errorf("now and then ill: %v", err)
	}
	c.Hold = 0
	if err := r.Probe(t.Context(), c); err != nil { // the positive control: once is enough, and it passes
		t.Errorf("without holding: %v", err)
	}
	c.Hold, c.Timeout, tries = 20*time.Millisecond, time.Minute, 0
	ill = func(n int) bool { return n <= 5 }
	if err := r.Probe(t.Context(), c); err != nil || tries < 7 {
		t.Errorf("well from the sixth on: %v after %d", err, tries)
	}
}
