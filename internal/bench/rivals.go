package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/testbed"
)

// rivals in the order of the table.
func rivals() []rival {
	http := tool{"curl", "curl"}
	aria := []tool{{"aria2c", "aria2"}}
	python := []tool{{libtorrent, libtorrent}}
	return []rival{
		{name: "rsync to each", tools: []tool{{"rsync", "rsync"}}, each: true, start: rsync},
		{name: "HTTP to each (curl)", tools: []tool{http}, each: true, start: curls},
		{name: nginxCache, tools: []tool{{"nginx", "nginx-light"}, http}, start: nginx},
		{name: ariaOne, tools: aria, start: aria2(1)},
		{name: "aria2", tools: aria, lan: true, start: aria2(0)},
		{name: "libtorrent", tools: python, once: true, lan: true, start: torrent("seed")},
		{name: "libtorrent, super-seeding", tools: python, once: true, start: torrent("super")},
		{name: "transmission", tools: []tool{{"transmission-cli", "transmission-cli"}}, once: true, start: transmission},
		{name: "curl once, then UFTP multicast", tools: []tool{{"uftp", "uftp"}, {"uftpd", "uftp"}, http}, lan: true, start: uftp},
	}
}

// times is how often a rival is measured.
func (s *stage) times(v rival) int {
	if v.once {
		return 1
	}
	return s.runs
}

// Rivals that are asked for by name.
const (
	nginxCache = "nginx slice cache in the site"
	ariaOne    = "aria2, seeder limited to one peer"
)

func (r *race) curl(x *runner, url string) error {
	return r.on(x, nil, "curl", "-sS", "--fail", "-o", x.out, url)
}

func curls(_ context.Context, r *race) error {
	for _, x := range r.runners {
		if err := r.curl(x, r.url(testbed.DCAddr, r.file)); err != nil {
			return err
		}
	}
	return nil
}

// rsync is the practice of today: the centre's files, fetched by each node.
func rsync(_ context.Context, r *race) error {
	conf := filepath.Join(r.crew.dir, "rsyncd.conf")
	text := fmt.Sprintf("uid = root\ngid = root\nuse chroot = no\nmax connections = 200\n[files]\npath = %s\nread only = yes\n", filepath.Dir(r.file))
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return err
	}
	if _, err := r.crew.start(testbed.DC, "rsyncd", nil, "rsync", "--daemon", "--no-detach", "--config="+conf, "--address="+testbed.DCAddr); err != nil {
		return err
	}
	for _, x := range r.runners {
		if err := r.on(x, nil, "rsync", "--contimeout=20", "rsync://"+testbed.DCAddr+"/files/"+filepath.Base(r.file), x.out); err != nil {
			return err
		}
	}
	return nil
}

// nginx keeps a cache on the first node of each site, through which all its nodes fetch.
func nginx(_ context.Context, r *race) error {
	for _, x := range r.runners {
		if x.node == 1 {
			if err := r.cache(x); err != nil {
				return err
			}
		}
		if err := r.on(x, nil, "curl", "-sS", "--fail", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "--retry-max-time", "10", "-o", x.out,
			r.url(testbed.NodeAddr(x.site, 1)+":8080", r.file)); err != nil {
			return err
		}
	}
	return nil
}

func (r *race) cache(x *runner) error {
	dir := filepath.Join(r.crew.dir, fmt.Sprintf("cache%d", x.site))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 512; }
http {
	access_log off;
	client_body_temp_path %[1]s/b; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s; proxy_temp_path %[1]s/p;
	proxy_cache_path %[1]s/cache levels=1:2 keys_zone=c:10m max_size=10g inactive=1d use_temp_path=off;
	server {
		listen %[2]s:8080;
		location / {
			slice 1m;
			proxy_cache c;
			proxy_cache_key $uri$slice_range;
			proxy_cache_valid 200 206 1d;
			proxy_cache_lock on; proxy_cache_lock_age 60s; proxy_cache_lock_timeout 60s;
			proxy_set_header Range $slice_range;
			proxy_http_version 1.1;
			proxy_pass http://%[3]s;
		}
	}
}
`, dir, testbed.NodeAddr(x.site, x.node), testbed.DCAddr)
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return err
	}
	return r.on(x, nil, "nginx", "-c", conf, "-p", dir, "-e", filepath.Join(dir, "error.log"))
}

// torrentFile writes the torrent of the race's file.
func (r *race) torrentFile() (string, error) {
	b, err := metainfo(r.file, "http://"+testbed.DCAddr+"/announce")
	if err != nil {
		return "", err
	}
	name := filepath.Join(r.crew.dir, "file.torrent")
	return name, os.WriteFile(name, b, 0o644)
}

// aria2 distributes by BitTorrent; the seeder serves so many peers at most, 0 is no limit.
func aria2(peers int) func(context.Context, *race) error {
	return func(ctx context.Context, r *race) error {
		file, err := r.torrentFile()
		if err != nil {
			return err
		}
		exe, err := hook()
		if err != nil {
			return err
		}
		common := func(dir string, more ...string) []string {
			return append([]string{
				"--no-conf", "--dir=" + dir, "--enable-dht=false", "--bt-enable-lpd=true", "--bt-lpd-interface=eth0", "--listen-port=6881", "--file-allocation=none",
				"--summary-interval=0", "--console-log-level=warn", "--show-console-readout=false", "--disable-ipv6=true",
			}, append(more, file)...)
		}
		seed := []string{"--check-integrity=true", "--seed-ratio=0.0"}
		if peers > 0 {
			seed = append(seed, fmt.Sprintf("--bt-max-peers=%d", peers))
		}
		if err := r.seeder(ctx, "aria2c", common(r.seedDir(), seed...)...); err != nil {
			return err
		}
		for _, x := range r.fetchers() {
			if err := r.on(x, r.hooked(x), "aria2c", common(filepath.Dir(x.out), "--seed-ratio=0.0", "--on-bt-download-complete="+exe)...); err != nil {
				return err
			}
		}
		return nil
	}
}

// libtorrent is the Python module, python the interpreter that has it on Debian.
const (
	libtorrent = "python3-libtorrent"
	python     = "/usr/bin/python3"
)

//go:embed libtorrent.py
var libtorrentScript []byte

func torrent(how string) func(context.Context, *race) error {
	return func(ctx context.Context, r *race) error {
		file, err := r.torrentFile()
		if err != nil {
			return err
		}
		script := filepath.Join(r.crew.dir, "client.py") // under the module's own name it would import itself
		if err := os.WriteFile(script, libtorrentScript, 0o644); err != nil {
			return err
		}
		if err := r.seeder(ctx, python, script, file, r.seedDir(), "0.0.0.0", "-", how); err != nil {
			return err
		}
		for _, x := range r.fetchers() {
			r.hooked(x)
			if err := r.on(x, nil, python, script, file, filepath.Dir(x.out), testbed.NodeAddr(x.site, x.node), x.marker, "fetch"); err != nil {
				return err
			}
		}
		return nil
	}
}

func transmission(ctx context.Context, r *race) error {
	file, err := r.torrentFile()
	if err != nil {
		return err
	}
	exe, err := hook()
	if err != nil {
		return err
	}
	args := func(name, dir string, more ...string) ([]string, error) {
		conf := filepath.Join(r.crew.dir, name+".conf")
		if err := os.Mkdir(conf, 0o755); err != nil {
			return nil, err
		}
		settings := `{"dht-enabled": false, "lpd-enabled": true, "pex-enabled": true, "peer-limit-per-torrent": 60}`
		err := os.WriteFile(filepath.Join(conf, "settings.json"), []byte(settings), 0o644)
		return append(append([]string{"-w", dir, "-g", conf, "-M", "-D", "-U"}, more...), file), err
	}
	seed, err := args("seeder", r.seedDir(), "-v")
	if err != nil {
		return err
	}
	if err := r.seeder(ctx, "transmission-cli", seed...); err != nil {
		return err
	}
	for _, x := range r.fetchers() {
		fetch, err := args(testbed.Node(x.site, x.node), filepath.Dir(x.out), "-f", exe)
		if err != nil {
			return err
		}
		if err := r.on(x, r.hooked(x), "transmission-cli", fetch...); err != nil {
			return err
		}
	}
	return nil
}

// uftp has the first node of each site fetch, and then tell all others at once.
func uftp(ctx context.Context, r *race) error {
	exe, err := hook()
	if err != nil {
		return err
	}
	for _, x := range r.fetchers() {
		if x.node == 1 {
			continue
		}
		if err := r.on(x, r.hooked(x), "uftpd", "-d", "-x", "1", "-t", "-I", "eth0", "-D", filepath.Dir(x.out), "-s", exe); err != nil {
			return err
		}
	}
	for _, x := range r.runners {
		if x.node != 1 || x == r.holder {
			continue
		}
		if err := r.curl(x, r.url(testbed.DCAddr, r.file)); err != nil {
			return err
		}
	}
	for _, x := range r.runners {
		if x.node != 1 {
			continue
		}
		if len(x.procs) > 0 {
			p := x.procs[0]
			select {
			case <-p.done:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if p.err != nil {
				return fmt.Errorf("curl: %w", p.err)
			}
			x.at = p.ended
		}
		// A rate that the ports carry with headers, and that two processors copy to eight hosts.
		rate := min(r.cfg.LAN*85/100, 200*testbed.Mbit)
		var others []string
		for _, o := range r.runners {
			if o.site == x.site && o.node != 1 {
				others = append(others, fmt.Sprintf("0x%02X%02X%02X%02X", 10, 10+o.site, 0, 10+o.node)) // its address is its name
			}
		}
		if err := r.on(x, nil, "uftp", "-x", "1", "-I", "eth0", "-R", fmt.Sprint(int64(rate/testbed.Kbit)), "-H", strings.Join(others, ","), x.out); err != nil {
			return err
		}
	}
	return nil
}

// seeder starts the program that has the file, in the data centre, or, where the first node has it, there. The race
// begins when it has told the tracker.
func (r *race) seeder(ctx context.Context, program string, args ...string) (err error) {
	r.home.tracker.forget()
	if r.holder != nil {
		err = r.on(r.holder, nil, program, args...)
	} else {
		_, err = r.crew.start(testbed.DC, "seeder", nil, program, args...)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("its seeder does not announce itself"))
	defer cancel()
	for !r.home.tracker.seeded() {
		if err := pause(ctx, sampleEvery); err != nil {
			return err
		}
	}
	r.began = time.Now()
	return nil
}

// seedDir is where the seeder finds the file.
func (r *race) seedDir() string {
	if r.holder != nil {
		return filepath.Dir(r.holder.out)
	}
	return filepath.Dir(r.file)
}

// fetchers are the nodes that do not have the file.
func (r *race) fetchers() []*runner {
	return slices.DeleteFunc(slices.Clone(r.runners), func(x *runner) bool { return x == r.holder })
}

// rivals that this machine has the tools for; the others are noted as skipped.
func (s *stage) rivals(p *part) (list []rival) {
	for _, v := range rivals() {
		lines := missing(v.tools)
		switch {
		case s.rival != "" && v.name != s.rival:
		case len(lines) > 0:
			p.Skipped = append(p.Skipped, fmt.Sprintf("%s: %s", v.name, strings.Join(lines, "; ")))
		default:
			list = append(list, v)
		}
	}
	return list
}

// compare runs every rival on the stage, and kills the fetching node of those who know one.
func compare(ctx context.Context, s *stage, p *part) error {
	if err := s.single(ctx, p); err != nil {
		return err
	}
	var trouble []error
	for _, v := range s.rivals(p) {
		for range s.times(v) {
			if err := s.compete(ctx, p, v); err != nil {
				trouble = append(trouble, fmt.Errorf("%s: %w", v.name, err))
				break
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return errors.Join(trouble...)
}

// single is the yardstick as a row.
func (s *stage) single(ctx context.Context, p *part) error {
	file, err := s.content(0, s.size)
	if err != nil {
		return err
	}
	r := s.row(p, "one curl, one node", situation(s), s.size)
	for range s.runs {
		before, err := s.bed.Stats(1)
		if err != nil {
			return err
		}
		took, u, err := s.plain(ctx, testbed.Node(1, 1), s.url(testbed.DCAddr, file))
		if err != nil {
			return err
		}
		after, err := s.bed.Stats(1)
		if err != nil {
			return err
		}
		r.record(wanBytes, float64(after.Sub(before).DownArrived)/float64(s.size))
		r.record(firstNode, took.Seconds()/s.atRate(s.size))
		r.record(lastNode, took.Seconds()/s.atRate(s.size))
		r.record(cpuPerGB, u.cpu.Seconds()/(float64(s.size)/1e9))
		r.record(rssPeak, float64(u.peak)/(1<<20))
	}
	return nil
}

func (s *stage) compete(ctx context.Context, p *part, v rival) error {
	size := s.size
	if v.each {
		size /= 8
	}
	r, err := s.race(ctx, v, size, nil)
	if err != nil {
		return err
	}
	first, last, ok := r.times()
	s.say("%s: %.3f copies, all complete: %v, last after %.1f s = %.2f x size/rate", v.name, r.copies, ok, last, last/s.atRate(size))
	row := s.row(p, v.name, situation(s), size)
	row.record(wanBytes, r.copies)
	if !ok {
		return errors.New("not every node had the file in time")
	}
	row.record(firstNode, first/s.atRate(size))
	row.record(lastNode, last/s.atRate(size))
	row.record(cpuPerGB, r.cpu/(float64(size)*float64(len(r.runners))/1e9))
	row.record(rssPeak, float64(r.peak)/(1<<20))
	return nil
}

// compareSites runs those that know of peers on several sites at once.
func compareSites(ctx context.Context, s *stage, p *part) error {
	var trouble []error
	for _, v := range s.rivals(p) {
		if v.name != "aria2" {
			continue
		}
		for range s.runs {
			if err := s.compete(ctx, p, v); err != nil {
				trouble = append(trouble, fmt.Errorf("%s: %w", v.name, err))
				break
			}
		}
	}
	return errors.Join(trouble...)
}

// compareKilled kills the node that fetches, or has the cache, half-way. Once: it is counted who completes.
func compareKilled(ctx context.Context, s *stage, p *part) error {
	var trouble []error
	for _, v := range s.rivals(p) {
		victim := fetcher
		switch v.name {
		case nginxCache:
			victim = firstOf
		case "aria2", ariaOne:
		default:
			continue
		}
		r, err := s.race(ctx, v, s.faultSize(), victim)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			trouble = append(trouble, fmt.Errorf("%s: %w", v.name, err))
			continue
		}
		complete := 0
		for _, x := range r.runners {
			if !x.lost {
				complete++
			}
		}
		s.say("%s, its fetching node killed: %d of %d complete, %.3f copies", v.name, complete, len(r.runners)-1, r.copies)
		row := s.row(p, v.name, situation(s), s.faultSize())
		row.record(restDone, float64(complete)/float64(len(r.runners)-1))
		row.record(wanKilled, r.copies)
	}
	return errors.Join(trouble...)
}
