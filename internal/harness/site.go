package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// Site is a site and its nodes.
type Site struct {
	Name   string
	Nodes  []*Node
	seeder *Seeder
}

// Node is one node: a daemon, its state and what it has installed.
type Node struct {
	Name, Site   string
	State        string // of meshd
	Root         string // where mesh-install lays out releases
	Socket       string
	peer, gossip string
	install      string // configuration of mesh-install
	lab          *Lab
	proc         *Proc
}

// Join makes a new node, redeems a token for it and writes its installer's configuration. It is not started. The flags
// are further ones of "meshctl site token".
func (s *Site) Join(ctx context.Context, flags ...string) (*Node, error) {
	n, err := s.seeder.join(ctx, s.Name, fmt.Sprintf("node-%d", len(s.Nodes)+1), flags)
	if err == nil {
		s.Nodes = append(s.Nodes, n)
	}
	return n, err
}

func (s *Seeder) join(ctx context.Context, site, name string, flags []string) (*Node, error) {
	l := s.lab
	dir := l.Path(site, name)
	n := &Node{
		Name: name, Site: site, State: filepath.Join(dir, "state"), Root: filepath.Join(dir, "root"), Socket: filepath.Join(dir, "meshd.sock"),
		install: filepath.Join(dir, "mesh-install.yaml"), lab: l,
	}
	var err error
	if n.peer, err = l.ground.Addr(ctx, n.host()); err != nil {
		return nil, err
	}
	if n.gossip, err = l.ground.Addr(ctx, n.host()); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(n.Root, 0o755); err != nil {
		return nil, err
	}
	token, err := s.Meshctl(ctx, append([]string{"site", "token", site, "--label", "role=node", "--label", "name=" + name}, flags...)...)
	if err != nil {
		return nil, err
	}
	if _, err := l.run(ctx, n.host(), nil, "meshd", "join", "--state", n.State, "--name", name, "--listen-peer", n.peer, "--listen-gossip", n.gossip,
		strings.TrimSpace(string(token))); err != nil {
		return nil, err
	}
	config := fmt.Sprintf("root: %s\nstate: %s\ntrust: %s\nmachine: %s\nreserveBytes: 0\nsite: %s\nnode: %s\n",
		n.Root, filepath.Join(dir, "install"), filepath.Join(n.State, "trust.json"), filepath.Join(dir, "machine"), site, name)
	return n, os.WriteFile(n.install, []byte(config), 0o644)
}

// Start starts the daemon. It does not wait: Ready does.
func (n *Node) Start(flags ...string) error {
	args := append([]string{"run", "--state", n.State, "--socket", n.Socket, "--listen-peer", n.peer, "--listen-gossip", n.gossip, "--no-mdns",
		"--installer", filepath.Join(n.lab.Bin, "mesh-install"), "--install-config", n.install}, flags...)
	var err error
	n.proc, err = n.lab.Start(n.host(), "meshd", args...)
	return err
}

// InstallConfig is the configuration file of the node's mesh-install.
func (n *Node) InstallConfig() string { return n.install }

// Addr is where the daemon listens for its neighbours, host:port.
func (n *Node) Addr() string { return n.peer }

func (n *Node) host() string { return n.Site + "-" + n.Name }

// Ready waits until the daemon answers on its socket.
func (n *Node) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	return Await(ctx, n.Site+"/"+n.Name, pollEvery, func() (bool, string, error) {
		if !n.proc.Running() {
			return false, "", n.proc.ended()
		}
		_, err := n.View(ctx)
		return err == nil, fmt.Sprint(err), nil
	})
}

// answerTime is how long a daemon may take to say how it is.
const answerTime = 5 * time.Second

// Running reports whether the daemon runs.
func (n *Node) Running() bool { return n.proc != nil && n.proc.Running() }

// Ended says how the daemon ended; nil: it runs.
func (n *Node) Ended() error {
	if n.Running() {
		return nil
	}
	if n.proc == nil {
		return fmt.Errorf("%s was not started", n.host())
	}
	return n.proc.ended()
}

// Proc is the daemon's process; nil before Start.
func (n *Node) Proc() *Proc { return n.proc }

// Kill ends the daemon at once. An executor that is at work is in a process group of its own and goes on.
func (n *Node) Kill() { n.proc.Kill() }

// Stop asks the daemon to end.
func (n *Node) Stop(ctx context.Context) error { return n.proc.Stop(ctx) }

// Leave asks the daemon to leave its site and waits until it has ended. It is an error if neighbours still needed it.
func (n *Node) Leave(ctx context.Context, timeout time.Duration) error {
	if _, err := n.lab.run(ctx, n.host(), nil, "meshd", "leave", "--socket", n.Socket, "--timeout", timeout.String()); err != nil {
		return err
	}
	return n.proc.await(ctx)
}

// Meshctl runs meshctl against the daemon's socket.
func (n *Node) Meshctl(ctx context.Context, args ...string) ([]byte, error) {
	return n.lab.Run(ctx, "meshctl", append(args, "--socket", n.Socket)...)
}

// View is the site as this node sees it.
func (n *Node) View(ctx context.Context) (status.Site, error) {
	var s status.Site
	out, err := n.Meshctl(ctx, "status", "--json")
	return s, answered(out, err, &s)
}

// Self is what the node says of itself on its own socket. Unlike View it starts no process.
func (n *Node) Self(ctx context.Context) (status.Node, error) {
	c, err := api.NewNodeClient(n.Socket)
	if err != nil {
		return status.Node{}, err
	}
	defer c.CloseIdle()
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return c.Node(ctx)
}

// Current is the directory of the bundle's release that is in force on the node; it may not exist.
func (n *Node) Current(bundle string) string { return filepath.Join(n.Root, bundle, "current") }

// View is the site as the seeder sees it.
func (s *Site) View(ctx context.Context) (status.Site, error) {
	var v status.Site
	out, err := s.seeder.Meshctl(ctx, "status", s.Name, "--json")
	return v, answered(out, err, &v)
}

// Seen is what View is, and starts no process. A node that waits and does not say for what, and until when, is an error.
func (s *Site) Seen(ctx context.Context) (status.Site, error) {
	a, err := api.ReadAccess(s.seeder.Admin())
	if err != nil {
		return status.Site{}, err
	}
	c, err := api.NewClient(a)
	if err != nil {
		return status.Site{}, err
	}
	defer c.CloseIdle()
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	v, err := c.Site(ctx, s.Name)
	for _, n := range v.Nodes {
		if !status.Final(n.Phase) && (n.Reason == "" || n.NextAttempt == nil) {
			return v, fmt.Errorf("%s/%s is %s, with reason %q and next attempt %v", s.Name, n.Node.Node, n.Phase, n.Reason, n.NextAttempt)
		}
	}
	return v, err
}

// Start starts every node at once and waits until all are ready.
func (s *Site) Start(ctx context.Context, flags ...string) error {
	for _, n := range s.Nodes {
		if err := n.Start(flags...); err != nil {
			return err
		}
	}
	for _, n := range s.Nodes {
		if err := n.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Node finds a node by name.
func (s *Site) Node(name string) (*Node, error) {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n, nil
		}
	}
	return nil, fmt.Errorf("site %s has no node %q", s.Name, name)
}

// answered decodes the document of a command that says by its exit status that somebody should look at a node: the
// document is whole all the same.
func answered(out []byte, err error, v any) error {
	var exit *ExitError
	if err != nil && !(errors.As(err, &exit) && exit.Status == int(problem.ExitDegraded)) {
		return err
	}
	if err := json.Unmarshal(out, v); err != nil {
		return fmt.Errorf("answer %.200q: %w", out, err)
	}
	return nil
}
