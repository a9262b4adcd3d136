package harness

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// Ground is what the programs of a lab run on. A host is named "seeder", or "SITE-NODE" for a node.
type Ground interface {
	// Addr returns an address with a port of the host, free for TCP and UDP and never returned before.
	Addr(ctx context.Context, host string) (string, error)
	// Start starts a command on the host.
	Start(host string, cmd *exec.Cmd) error
	// Close is called once, when every command has ended.
	Close() error
}

// loopback is the ground of [New]: each host has an address of its own in 127.0.0.0/8.
type loopback struct {
	subnet string // "127.A.B.", its own for each lab, so that two at a time do not meet
	start  chan func()
	work   sync.WaitGroup

	mu    sync.Mutex // guards hosts
	hosts map[string]string
}

func newLoopback() *loopback {
	pid := os.Getpid()
	g := &loopback{subnet: fmt.Sprintf("127.%d.%d.", 64+(pid>>8)%128, pid&255), start: make(chan func()), hosts: map[string]string{}}
	// The kernel ends a child when the thread that started it ends (Pdeathsig), so all are started by one thread that
	// lives as long as the lab.
	g.work.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for f := range g.start {
			f()
		}
	})
	return g
}

// Start implements Ground. The command does not outlive the lab's program.
func (g *loopback) Start(_ string, cmd *exec.Cmd) error {
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error)
	g.start <- func() { started <- cmd.Start() }
	return <-started
}

// Addr implements Ground: it asks the system for a port that is free. Nothing else uses the host's address, so the
// port stays free until it is listened on.
func (g *loopback) Addr(ctx context.Context, host string) (string, error) {
	g.mu.Lock()
	addr, ok := g.hosts[host]
	if !ok {
		addr = g.subnet + fmt.Sprint(len(g.hosts)+1)
		g.hosts[host] = addr
	}
	g.mu.Unlock()
	var lc net.ListenConfig
	for range 16 {
		t, err := lc.Listen(ctx, "tcp", net.JoinHostPort(addr, "0"))
		if err != nil {
			return "", err
		}
		u, err := lc.ListenPacket(ctx, "udp", t.Addr().String())
		t.Close()
		if err == nil {
			u.Close()
			return t.Addr().String(), nil
		}
	}
	return "", fmt.Errorf("host %s: no port is free", host)
}

// Close implements Ground.
func (g *loopback) Close() error {
	close(g.start)
	g.work.Wait()
	return nil
}
