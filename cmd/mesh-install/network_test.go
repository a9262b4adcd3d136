package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
)

// ears are listeners on all that this machine is reached by; they count who comes.
type ears struct {
	addrs []string
	heard atomic.Int64
}

func listen(t *testing.T) *ears {
	t.Helper()
	e := new(ears)
	hosts := []string{"127.0.0.1"}
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			hosts = append(hosts, n.IP.String())
		}
	}
	for _, host := range hosts {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		t.Cleanup(func() { l.Close(); <-ended })
		go func() {
			defer close(ended)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				e.heard.Add(1)
				c.Close()
			}
		}()
		e.addrs = append(e.addrs, l.Addr().String())
	}
	return e
}

// A package's own script, run by the real package manager, reaches nobody. The control: the same package, put in force
// by an executor that is not apart, reaches everybody it tries.
func TestScriptsReachNobody(t *testing.T) {
	for name, bed := range map[string]func(*testing.T) managertest.Bed{
		"deb": func(*testing.T) managertest.Bed { return managertest.Deb() },
		"rpm": func(t *testing.T) managertest.Bed {
			bed, err := managertest.NewRPM()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := bed.Close(); err != nil {
					t.Error(err)
				}
			})
			return bed
		},
	} {
		t.Run(name, func(t *testing.T) {
			bed := bed(t)
			bed.Needs(t)
			e := listen(t)
			var script strings.Builder
			script.WriteString("echo tried >/said\n")
			for _, addr := range e.addrs {
				host, port, err := net.SplitHostPort(addr)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&script, "/bin/busybox nc -w 2 %s %s </said >>/said 2>&1 && echo reached >>/said || echo refused >>/said\n", host, port)
			}
			script.WriteString("exit 0\n")
			// bench is a machine that is to get the package.
			bench := func() (*installtest.Bench, install.Request) {
				b := installtest.New(t, nil)
				if err := os.MkdirAll(b.Config.Machine, 0o755); err != nil {
					t.Fatal(err)
				}
				bed.Machine(t, b.Config.Machine, managertest.Package{Name: "demo", Version: "1.0-1"})
				repo := bed.Repo(t, managertest.Spec{Packages: []managertest.Package{{Name: "demo", Version: "2.0-1", Post: script.String()}}})
				return b, b.Request(t, b.Packages(t, repo, "2", 2), installtest.Want{})
			}
			said := func(b *installtest.Bench, word string) int {
				out, err := os.ReadFile(filepath.Join(b.Config.Machine, "said"))
				if err != nil {
					t.Fatalf("the script did not run: %v", err)
				}
				return strings.Count(string(out), word)
			}

			b, req := bench()
			doc, err := req.Encode()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(b.Dir, "request.json")
			installtest.WriteFile(t, file, doc)
			r := do(t, b, "apply", "--request", file)
			if strings.HasPrefix(r.Isolation, "none") {
				t.Skip("needs network namespaces: run as root, or allow unprivileged user namespaces")
			}
			if r.Exit != install.ExitDone || said(b, "refused") != len(e.addrs) || e.heard.Load() != 0 {
				t.Errorf("apart: %d connections\n%+v", e.heard.Load(), r)
			}

			b, req = bench()
			in := &install.Installer{Config: b.Config, Host: installtest.Host{}, Providers: install.Providers(b.Config), Isolation: "none: the control",
				Now: time.Now, Log: slog.New(slog.DiscardHandler)}
			if r := in.Apply(t.Context(), req); r.Exit != install.ExitDone || said(b, "reached") != len(e.addrs) || e.heard.Load() != int64(len(e.addrs)) {
				t.Errorf("not apart: %d connections of %d: the test proves nothing\n%+v", e.heard.Load(), len(e.addrs), r)
			}
		})
	}
}
