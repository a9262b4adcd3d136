package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/testbed"
)

// rival is another way to bring one file to every node.
type rival struct {
	name  string
	tools []tool
	each  bool // every node fetches for itself: moved is an eighth of the size, because it takes so much longer
	once  bool // it is so slow that it is measured once
	lan   bool // it can bring what one node has to its neighbours
	start func(context.Context, *race) error
}

// tool is a program that a rival needs, and the Debian package that has it.
type tool struct{ command, deb string }

// missing names the tools that are not installed, and how to get them.
func missing(tools []tool) (lines []string) {
	for _, t := range tools {
		var err error
		if t.command == libtorrent {
			err = exec.Command(python, "-c", "import libtorrent").Run()
		} else {
			_, err = exec.LookPath(t.command)
		}
		if err != nil {
			lines = append(lines, fmt.Sprintf("%s: scripts/setup bench, or apt-get install %s", t.command, t.deb))
		}
	}
	return lines
}

// race is one file on its way to every node by a rival.
type race struct {
	*stage
	crew    *crew
	file    string // in the data centre
	size    int64
	runners []*runner
	holder  *runner // has the file already; nil: the data centre has it
	stats   []testbed.SiteStats
	began   time.Time

	// What it took.
	cpu    float64 // seconds of all nodes' programs
	peak   int64   // largest resident memory of one
	copies float64 // over the WAN of the site that took most
}

// runner is a node in a race.
type runner struct {
	site, node int
	out        string // what it is to have in the end
	marker     string // a file that appears when it has; empty: its last process ends
	procs      []*proc
	at         time.Time // when it had it
	lost       bool      // it will never have it
}

// doneEnv tells a copy of this program, started by a rival's program as its hook, to leave a file and end.
const doneEnv = "PATCHMESH_BENCH_DONE"

// done leaves the file that says when a download was complete.
func done(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// on starts a node's program. in is the node's directory.
func (r *race) on(n *runner, env []string, program string, args ...string) error {
	p, err := r.crew.start(testbed.Node(n.site, n.node), fmt.Sprintf("site%d-node%d-%d", n.site, n.node, len(n.procs)), env, program, args...)
	if err == nil {
		n.procs = append(n.procs, p)
	}
	return err
}

// hooked makes a runner whose program calls hook() when it has the file.
func (r *race) hooked(n *runner) (env []string) {
	n.marker = filepath.Join(r.crew.dir, fmt.Sprintf("site%d-node%d.done", n.site, n.node))
	return []string{doneEnv + "=" + n.marker}
}

func hook() (string, error) { return os.Executable() }

// race runs a rival once, from the data centre to every node. If kill is not nil, the node that it names loses its
// processes half-way.
func (s *stage) race(ctx context.Context, v rival, size int64, kill func(*race) (*runner, error)) (*race, error) {
	return s.contest(ctx, v, size, false, kill)
}

// raceFrom runs it once, from the first node to its neighbours.
func (s *stage) raceFrom(ctx context.Context, v rival, size int64) (*race, error) {
	return s.contest(ctx, v, size, true, nil)
}

func (s *stage) contest(ctx context.Context, v rival, size int64, held bool, kill func(*race) (*runner, error)) (_ *race, err error) {
	file, err := s.content(0, size)
	if err != nil {
		return nil, err
	}
	c, err := s.crew("race")
	if err != nil {
		return nil, err
	}
	defer c.end()
	defer func() { err = errors.Join(err, c.keepLogs(s.logs)) }()
	r := &race{stage: s, crew: c, file: file, size: size}
	for i := range max(1, s.cfg.Sites) {
		for n := range max(1, s.cfg.Nodes) {
			x := &runner{site: i + 1, node: n + 1}
			dir := filepath.Join(c.dir, testbed.Node(x.site, x.node))
			if err := os.Mkdir(dir, 0o755); err != nil {
				return nil, err
			}
			x.out = filepath.Join(dir, filepath.Base(file))
			r.runners = append(r.runners, x)
		}
		st, err := s.bed.Stats(i + 1)
		if err != nil {
			return nil, err
		}
		r.stats = append(r.stats, st)
	}
	if held {
		r.holder = r.runners[0]
		if err := os.Link(file, r.holder.out); err != nil {
			return nil, err
		}
	}
	r.began = time.Now()
	if r.holder != nil {
		r.holder.at = r.began
	}
	if err := v.start(ctx, r); err != nil {
		return nil, err
	}
	patience := 20*s.atRate(size) + 20
	if kill != nil {
		patience = 4*s.atRate(size) + 20
		if err := r.halfWay(ctx); err != nil {
			return nil, err
		}
		x, err := kill(r)
		if err != nil {
			return nil, err
		}
		if err := s.bed.Kill(testbed.Node(x.site, x.node)); err != nil {
			return nil, err
		}
		x.lost = true
	}
	deadline := time.Now().Add(time.Duration(patience * float64(time.Second)))
	for !r.over() && time.Now().Before(deadline) {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
	for _, x := range r.runners {
		if x.at.IsZero() {
			x.lost = true
		} else if err := same(file, x.out); err != nil {
			return nil, fmt.Errorf("%s delivered something else: %w", v.name, err)
		}
	}
	if r.cpu, r.peak, err = r.usage(); err != nil {
		return nil, err
	}
	r.copies, err = r.wan()
	return r, err
}

// over looks at every node and says whether there is nothing left to wait for.
func (r *race) over() bool {
	all := true
	for _, x := range r.runners {
		if !x.at.IsZero() || x.lost {
			continue
		}
		if x.marker != "" {
			if i, err := os.Stat(x.marker); err == nil {
				x.at = i.ModTime()
			}
		} else if len(x.procs) > 0 {
			if p := x.procs[len(x.procs)-1]; !p.running() {
				x.at, x.lost = p.ended, p.err != nil
				if x.lost {
					x.at = time.Time{}
				}
			}
		}
		all = all && (!x.at.IsZero() || x.lost)
	}
	return all
}

// halfWay waits until half of the file has crossed the first site's WAN.
func (r *race) halfWay(ctx context.Context) error {
	for {
		down, _, err := r.bed.Wires(1)
		if err != nil || down.Bytes-r.stats[0].Down.Bytes >= r.size/2 {
			return err
		}
		if err := pause(ctx, sampleEvery); err != nil {
			return err
		}
	}
}

// fetcher is the node of the first site that has taken most over the WAN.
func fetcher(r *race) (*runner, error) {
	st, err := r.bed.Stats(1)
	if err != nil {
		return nil, err
	}
	st = st.Sub(r.stats[0])
	most := 0
	for i, n := range st.Nodes {
		if n.WANDown > st.Nodes[most].WANDown {
			most = i
		}
	}
	return r.runners[most], nil
}

// firstOf is node 1 of the first site, where a cache of the site runs.
func firstOf(r *race) (*runner, error) { return r.runners[0], nil }

// wan is what the site that took most took, as a share of the size.
func (r *race) wan() (worst float64, err error) {
	for i, before := range r.stats {
		st, err := r.bed.Stats(i + 1)
		if err != nil {
			return 0, err
		}
		worst = max(worst, float64(st.Sub(before).DownArrived)/float64(r.size))
	}
	return worst, nil
}

// times until the first and the last node have it, in seconds; ok is false if one has not.
func (r *race) times() (first, last float64, ok bool) {
	var all []float64
	for _, x := range r.runners {
		if x.lost {
			return 0, 0, false
		}
		all = append(all, x.at.Sub(r.began).Seconds())
	}
	return slices.Min(all), slices.Max(all), true
}

// usage of all nodes' programs: CPU seconds, and the largest resident memory of one.
func (r *race) usage() (cpu float64, peak int64, err error) {
	for _, x := range r.runners {
		for _, p := range x.procs {
			u, err := p.usage()
			if err != nil {
				return 0, 0, err
			}
			cpu += u.cpu.Seconds()
			peak = max(peak, u.peak)
		}
	}
	return cpu, peak, nil
}

// same compares two files by their digest.
func same(a, b string) error {
	var sums [2][]byte
	for i, name := range []string{a, b} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		sums[i] = h.Sum(nil)
	}
	if !bytes.Equal(sums[0], sums[1]) {
		return fmt.Errorf("%s and %s differ", a, b)
	}
	return nil
}
