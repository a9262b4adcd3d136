package sitetest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/testbed"
)

// A node comes late, comes back, has no room, or wants to go; or all of them lose power.
func TestNode(t *testing.T) {
	cases(t,
		sitecase{name: "late and without WAN", stand: true, play: late},
		sitecase{name: "killed with half its chunks", stand: true, setup: setup{wan: slower()}, play: restarted},
		sitecase{name: "disk full", stand: true, setup: setup{wan: slower()}, play: noRoom},
		sitecase{name: "disk fills up", setup: setup{wan: slower()}, play: filledUp},
		sitecase{name: "last complete holder leaves", stand: true, setup: setup{size: 16 << 20}, play: holder(true)},
		sitecase{name: "last complete holder killed", setup: setup{size: 16 << 20}, play: holder(false)},
		sitecase{name: "all lose power", setup: setup{wan: slower()}, play: blackout},
	)
}

// late: a node is switched on when the others are done and the WAN is cut. It learns everything from them.
func late(tr *trial) {
	last := tr.site.Nodes[len(tr.site.Nodes)-1]
	tr.begin()
	tr.launch(tr.but(last)...)
	tr.awaitInstalled(tr.but(last)...)
	tr.must(tr.bed.Cut(1))
	before := tr.stats().DownArrived
	tr.launch(last)
	tr.awaitInstalled(last)
	if n := tr.stats().DownArrived - before; n > 0 {
		tr.Errorf("%d bytes arrived over a WAN that is cut", n)
	}
	tr.must(tr.bed.Heal(1)) // its report waits for that
	tr.once(tr.finish())
	self := tr.lastSeen(last)
	if self.Transfer.FromWAN > 0 || self.Transfer.FromLAN < tr.bytes {
		tr.Errorf("%s took %d bytes over the WAN and %d over the LAN of a bundle of %d", last.Name, self.Transfer.FromWAN, self.Transfer.FromLAN, tr.bytes)
	}
}

// lastSeen is what the seeder last heard of a node.
func (tr *trial) lastSeen(n *harness.Node) status.Seen {
	tr.Helper()
	v := tr.view()
	i := slices.IndexFunc(v.Nodes, func(s status.Seen) bool { return s.Node.Node == n.Name })
	if i < 0 {
		tr.Fatalf("the seeder does not know %s", n.Name)
	}
	return v.Nodes[i]
}

// restarted: a node that is not the uplink dies half-way and comes back when the others are done. What lies on its disk
// does not cross the LAN again.
func restarted(tr *trial) {
	tr.run()
	tr.awaitWAN(0.5)
	up, _ := tr.uplink()
	node, n := tr.site.Nodes[0], 1
	if node == up {
		node, n = tr.site.Nodes[1], 2
	}
	tr.must(tr.bed.Kill(tr.host(n)))
	tr.awaitInstalled(tr.but(node)...)
	have, err := treeSize(filepath.Join(node.State, "chunks"))
	tr.must(err)
	lacks := tr.bytes - have
	if have == 0 || lacks < tr.bytes/8 {
		tr.Fatalf("%s has %d of %d bytes: that is not half", node.Name, have, tr.bytes)
	}
	before := tr.stats()
	tr.launch(node)
	tr.awaitInstalled(node)
	after := tr.stats()
	if n := after.Nodes[n-1].LANReceived - before.Nodes[n-1].LANReceived; float64(n) > headroom*float64(lacks)+4*chunk {
		tr.Errorf("%s received %d bytes and lacked %d", node.Name, n, lacks)
	}
	tr.once(tr.finish())
	tr.Logf("%s had %.2f of the bundle, received %.2f and took %d bytes over the WAN", node.Name, float64(have)/float64(tr.bytes),
		float64(after.Nodes[n-1].LANReceived-before.Nodes[n-1].LANReceived)/float64(tr.bytes), after.Nodes[n-1].WANDown-before.Nodes[n-1].WANDown)
}

// treeSize is how many bytes the chunks in a store have.
func treeSize(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}

// noRoom: the disk of one node has room for a quarter of the bundle. The site completes, the node says what is the
// matter, and goes on when there is room.
func noRoom(tr *trial) {
	node := tr.site.Nodes[0]
	ballast := tr.smallDisk(node)
	tr.fill(ballast, tr.bytes/4)
	tr.run()
	tr.outOfRoom(node, ballast)
}

// filledUp: there is room when the transfer begins, and none any more half-way.
func filledUp(tr *trial) {
	node := tr.site.Nodes[0]
	ballast := tr.smallDisk(node)
	tr.run()
	tr.awaitWAN(0.4)
	tr.fill(ballast, 0)
	tr.outOfRoom(node, ballast)
}

func (tr *trial) outOfRoom(node *harness.Node, ballast string) {
	tr.Helper()
	tr.awaitInstalled(tr.but(node)...)
	tr.await("the node to say that its disk is full", func() (bool, string) {
		var said []string
		for _, a := range tr.lastSeen(node).Alarms {
			said = append(said, a.Code)
		}
		return slices.Contains(said, string(problem.DiskFull)), fmt.Sprint(said)
	})
	out, _ := tr.seeder.Meshctl(tr.ctx, "status", tr.site.Name, "-o", "wide")
	if !strings.Contains(string(out), string(problem.DiskFull)) {
		tr.Errorf("meshctl status does not say %s:\n%s", problem.DiskFull, out)
	}
	tr.must(os.Remove(ballast))
	tr.atMostTwice(tr.finish(), 1)
}

// smallDisk puts a node's state on a disk of its own and returns the name of a file to fill that with.
func (tr *trial) smallDisk(n *harness.Node) (ballast string) {
	tr.Helper()
	dir := filepath.Join(tr.disk, n.Name)
	tr.must(os.Mkdir(dir, 0o755))
	tr.must(tr.bed.Disk(dir, 4*tr.bytes)) // half of a disk is the quota where none is set
	state := filepath.Join(dir, "state")
	_, err := harness.CopyTree(state, n.State)
	tr.must(err)
	n.State = state
	return filepath.Join(dir, "ballast")
}

// fill leaves so much room beside the ballast.
func (tr *trial) fill(ballast string, room int64) {
	tr.Helper()
	f, err := os.Create(ballast)
	tr.must(err)
	defer f.Close()
	var s unix.Statfs_t
	tr.must(unix.Fstatfs(int(f.Fd()), &s))
	buf := make([]byte, 1<<20)
	for left := int64(s.Bavail)*s.Bsize - room; left > 0; {
		n, err := f.Write(buf[:min(left, int64(len(buf)))])
		left -= int64(n)
		if errors.Is(err, unix.ENOSPC) {
			return // the node writes beside us
		}
		tr.must(err)
	}
}

// holder: the only node that has all is asked to leave while the others, on a WAN that is cut, take it from there. It
// goes when it is not needed any more. The control is that it dies instead: then the rest crosses the WAN again.
func holder(asked bool) func(*trial) {
	return func(tr *trial) {
		first := tr.site.Nodes[0]
		others := tr.but(first)
		tr.begin()
		tr.launch(first)
		tr.awaitInstalled(first)
		tr.must(tr.bed.Cut(1))
		tr.must(tr.bed.NodeRate(1, 1, 20*testbed.Mbit)) // the transfer is to outlive the request
		before := tr.stats()
		tr.launch(others...)
		tr.await("others that have begun", func() (bool, string) {
			n := lan(tr.stats()) - lan(before)
			return n > tr.bytes/8, fmt.Sprint(n)
		})
		if asked {
			tr.must(first.Leave(tr.ctx, time.Minute))
			tr.awaitInstalled(others...)
			if n := tr.stats().DownArrived - before.DownArrived; n > 0 {
				tr.Errorf("%d bytes arrived over a WAN that is cut", n)
			}
		} else {
			tr.must(tr.bed.Kill(tr.host(1)))
		}
		tr.must(tr.bed.Heal(1)) // the reports, and the control, wait for that
		tr.awaitInstalled(others...)
		tr.launch(first)
		f := tr.finish()
		if asked {
			tr.once(f)
		} else if f.twice() == 0 {
			tr.Error("nothing was fetched again, although the only node that had it was gone")
		}
	}
}

// blackout: the power of the whole site fails half-way. What is on the disks is not fetched again.
func blackout(tr *trial) {
	tr.run()
	tr.awaitWAN(0.5)
	for n := range tr.site.Nodes {
		tr.must(tr.bed.Kill(tr.host(n + 1)))
	}
	tr.launch(tr.site.Nodes...)
	tr.atMostTwice(tr.finish(), 1)
}
