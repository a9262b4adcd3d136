package harness

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"sync"

	"github.com/patchmesh/patchmesh/internal/testbed"
)

// bedGround lets a lab's programs run in a bed: the seeder in the data centre, its stand-in beside it, NODE node-N of
// site siteS in its host.
type bedGround struct {
	bed *testbed.Bed

	mu    sync.Mutex
	ports map[string]int
}

// OnBed is the ground of a bed. Its sites are named site1, site2, ..., as their hosts are. The bed stays the caller's.
func OnBed(bed *testbed.Bed) Ground { return &bedGround{bed: bed, ports: map[string]int{}} }

var nodeName = regexp.MustCompile(`^site(\d+)-node-(\d+)$`)

// find returns the bed's name of a host, and its address.
func find(host string) (name, addr string, err error) {
	switch host {
	case seederHost:
		return testbed.DC, testbed.DCAddr, nil
	case StandIn:
		return testbed.DC2, testbed.DC2Addr, nil
	}
	m := nodeName.FindStringSubmatch(host)
	if m == nil {
		return "", "", fmt.Errorf("host %q has no place in the bed", host)
	}
	s, _ := strconv.Atoi(m[1])
	n, _ := strconv.Atoi(m[2])
	return testbed.Node(s, n), testbed.NodeAddr(s, n), nil
}

// Addr implements Ground. A host of the bed is all ours: any port is free.
func (g *bedGround) Addr(_ context.Context, host string) (string, error) {
	_, addr, err := find(host)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ports[host]++
	return fmt.Sprintf("%s:%d", addr, 7400+g.ports[host]), err
}

// Start implements Ground.
func (g *bedGround) Start(host string, cmd *exec.Cmd) error {
	name, _, err := find(host)
	if err != nil {
		return err
	}
	return g.bed.Exec(name, cmd)
}

// Close implements Ground.
func (g *bedGround) Close() error { return nil }
