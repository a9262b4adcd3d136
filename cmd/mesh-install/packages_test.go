package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/isolate"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// onMachine makes a bench whose machine has these packages.
func onMachine(t *testing.T, bed managertest.Bed, installed ...managertest.Package) *installtest.Bench {
	t.Helper()
	bed.Needs(t)
	b := installtest.New(t, func(c *install.Config) { c.Reboot.Command = []string{"/bin/false"} })
	if err := os.MkdirAll(filepath.Join(b.Config.Machine, "tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	bed.Machine(t, b.Config.Machine, installed...)
	return b
}

// dial is a script's way to connect.
func dial(port int) string { return fmt.Sprintf("echo | /bin/busybox nc -w 3 127.0.0.1 %d", port) }

// listener is a service on the machine's loopback.
func listener(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

func hook(t *testing.T, b *installtest.Bench, name, text string) {
	t.Helper()
	if err := os.MkdirAll(b.Config.Hooks, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.Config.Hooks, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// The program itself, in its namespace, with the real tools: a script of a package sees no network, a hook of the machine
// sees the machine's, and may put the install off; what a script says is in the result and in the log.
func TestPackages(t *testing.T) {
	rpm, err := managertest.NewRPM()
	if err != nil {
		t.Fatal(err)
	}
	defer rpm.Close()
	for name, bed := range map[string]managertest.Bed{"deb": managertest.Deb(), "rpm": rpm} {
		t.Run(name, func(t *testing.T) {
			b := onMachine(t, bed, managertest.Package{Name: "demo", Version: "1.0-1"})
			port := listener(t)
			repo := bed.Repo(t, managertest.Spec{
				Packages: []managertest.Package{{Name: "demo", Version: "2.0-1", Post: "if " + dial(port) + "; then echo reached; exit 1; fi; echo said by a script"}, {Name: "fresh", Version: "1.0-1"}},
				Roles:    map[string]packages.Role{"fresh": packages.Install},
			})
			if out, err := exec.Command("chroot", b.Config.Machine, "/bin/sh", "-c", dial(port)).CombinedOutput(); err != nil { // the positive control
				t.Fatalf("a script with a network does not reach it either: %v %s", err, out)
			}
			two := b.Packages(t, repo, "2", 2)
			req := b.WriteRequest(t, two, installtest.Want{})

			flag, seen := filepath.Join(b.Dir, "selling"), filepath.Join(b.Dir, "seen")
			hook(t, b, "10-till", "if test -e "+flag+"; then echo retry-after: 120; echo the till is open; exit 75; fi\n"+
				"echo $HOOK_PHASE $HOOK_BUNDLE $HOOK_VERSION $(readlink /proc/self/ns/net) >> "+seen)
			installtest.WriteFile(t, flag, nil)
			r := do(t, b, "apply", "--request", req)
			if r.Exit != 1 || r.Reason != "HookDeferred" || !strings.Contains(r.Detail, "the till is open") || r.Next == nil {
				t.Fatalf("%+v", r)
			}
			if err := os.Remove(flag); err != nil {
				t.Fatal(err)
			}
			r = do(t, b, "apply", "--request", req)
			if r.Exit != 0 || r.Reason != install.ReasonInstalled || len(r.Changes) != 2 || r.Snapshot == "" || !strings.Contains(r.Log, "said by a script") {
				t.Fatalf("%+v", r)
			}
			if r.Isolation != isolate.Isolated {
				t.Skip("needs network namespaces: run as root, or allow unprivileged user namespaces")
			}
			own, err := os.Readlink("/proc/self/ns/net")
			if err != nil {
				t.Fatal(err)
			}
			told, err := os.ReadFile(seen)
			if err != nil || string(told) != "preflight os 2 "+own+"\npost-install os 2 "+own+"\n" {
				t.Errorf("hooks saw %q, %v", told, err)
			}
			logs, err := filepath.Glob(filepath.Join(b.Config.State, "log", "mesh-*.log"))
			if err != nil || len(logs) == 0 {
				t.Fatalf("logs %v, %v", logs, err)
			}
			r = do(t, b, "rollback", "os")
			if r.Exit != 0 || r.Reason != install.ReasonOperator || len(r.Changes) != 2 {
				t.Fatalf("%+v", r)
			}
			if v, err := os.ReadFile(filepath.Join(b.Config.Machine, "usr/share/demo/version")); err != nil || strings.TrimSpace(string(v)) != "1.0-1" {
				t.Errorf("demo %s, %v", v, err)
			}
		})
	}
}
