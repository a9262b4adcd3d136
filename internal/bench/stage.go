package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/testbed"
)

// options of a whole run.
type options struct {
	runs  int
	size  int64
	seed  uint64
	bin   string
	rival string // the one to run; empty: all
	logs  string // a directory for the programs' logs, or none
	say   func(format string, args ...any)
}

// stage is a bed that is up, what is distributed on it, and what its links carry.
type stage struct {
	options
	cfg  testbed.Config
	want testbed.Config // as it was asked for
	bed  *testbed.Bed
	dir  string
	home *origin
	took []time.Duration // of the plain transfers
}

// open brings a bed up and a web server in its data centre.
func (o options) open(cfg testbed.Config) (*stage, error) {
	want := cfg
	cfg.Seed = o.seed
	dir, err := os.MkdirTemp("", "patchmesh-bench-")
	if err != nil {
		return nil, err
	}
	s := &stage{options: o, cfg: cfg, want: want, dir: dir}
	if s.bed, err = testbed.Up(cfg); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if s.home, err = s.serve(testbed.DC, testbed.DCAddr+":80"); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stage) close() error {
	var err error
	if s.home != nil {
		err = s.home.close()
	}
	return errors.Join(err, s.bed.Down(), os.RemoveAll(s.dir))
}

func (s *stage) spec() bedSpec {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	queue := s.cfg.Queue
	if queue == 0 {
		queue = 50 * time.Millisecond // what testbed takes
	}
	return bedSpec{Sites: max(1, s.cfg.Sites), Nodes: max(1, s.cfg.Nodes), WAN: int64(s.cfg.WAN), RTT: ms(s.cfg.RTT), Queue: ms(queue), LAN: int64(s.cfg.LAN)}
}

// row of a part, for something measured on this stage.
func (s *stage) row(p *part, tool, situation string, size int64) *row {
	r := p.row(tool, situation)
	r.Bed, r.Size = s.spec(), size
	return r
}

// atRate is the time in seconds that n bytes take at the WAN's rate.
func (s *stage) atRate(n int64) float64 { return float64(n) * 8 / float64(s.cfg.WAN) }

// content makes a file of bytes that do not compress: the same for the same seed, number and size.
func (s *stage) content(number int, size int64) (name string, err error) {
	name = filepath.Join(s.dir, "content", fmt.Sprintf("%d-%d", number, size), "image.bin")
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return "", err
	}
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	var seed [32]byte
	seed[0], seed[1], seed[2] = byte(s.seed), byte(s.seed>>8), byte(number)
	_, err = io.CopyN(f, rand.NewChaCha8(seed), size)
	return name, errors.Join(err, f.Close())
}

// fresh makes an empty directory of that name.
func (s *stage) fresh(name string) (string, error) {
	dir := filepath.Join(s.dir, name)
	return dir, errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
}

// crew that works in an empty directory of that name.
func (s *stage) crew(name string) (*crew, error) {
	dir, err := s.fresh(name)
	return &crew{bed: s.bed, dir: dir}, err
}

// origin is a plain web server in a host: the files of the stage, and a tracker.
type origin struct {
	srv     *http.Server
	tracker *tracker
	work    sync.WaitGroup
	err     error
}

func (s *stage) serve(host, addr string) (*origin, error) {
	var l net.Listener
	err := s.bed.Inside(host, func() (err error) { l, err = net.Listen("tcp4", addr); return err })
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(filepath.Join(s.dir, "content"))))
	tr := &tracker{}
	tr.forget()
	mux.Handle("/announce", tr)
	o := &origin{tracker: tr, srv: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}}
	o.work.Go(func() {
		if err := o.srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			o.err = err
		}
	})
	return o, nil
}

func (o *origin) close() error {
	err := o.srv.Close()
	o.work.Wait()
	return errors.Join(err, o.err)
}

// url of a content file on a host's web server.
func (s *stage) url(addr, file string) string {
	rel, err := filepath.Rel(filepath.Join(s.dir, "content"), file)
	if err != nil {
		return ""
	}
	return "http://" + addr + "/" + filepath.ToSlash(rel)
}

// plain is one HTTP transfer by curl, the yardstick: how long it took, and what curl used.
func (s *stage) plain(ctx context.Context, host, url string) (time.Duration, usage, error) {
	c, err := s.crew("plain")
	if err != nil {
		return 0, usage{}, err
	}
	defer c.end()
	began := time.Now()
	p, err := c.start(host, "curl", nil, "curl", "-sS", "--fail", "--max-time", "300", "-o", "out", url)
	if err != nil {
		return 0, usage{}, err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return 0, usage{}, context.Cause(ctx)
	}
	if p.err != nil {
		return 0, usage{}, fmt.Errorf("curl %s: %w", url, p.err)
	}
	u, err := p.usage()
	return p.ended.Sub(began), u, err
}

// yardstick is the i-th plain transfer of the whole size over the WAN. One bed after the first is measured once.
func (s *stage) yardstick(ctx context.Context, i int) (time.Duration, error) {
	if i < len(s.took) {
		return s.took[i], nil
	}
	file, err := s.content(0, s.size)
	if err != nil {
		return 0, err
	}
	d, _, err := s.plain(ctx, testbed.Node(1, 1), s.url(testbed.DCAddr, file))
	if err == nil {
		s.took = append(s.took, d)
	}
	return d, err
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
