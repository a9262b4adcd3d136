package main

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/patchmesh/patchmesh/internal/bed/postgres"
	"github.com/patchmesh/patchmesh/internal/wire"
)

// BenchmarkReports lets the uplinks of 20 sites send signed reports to a seeder process as after an outage, each a window
// of them ahead of the acknowledgements, and says how many a second were verified, kept and acknowledged. Uplinks and
// seeder share the machine. Their number comes from SEEDER_BENCH_REPORTS (20000; a day of 10,000 nodes, each of which
// reports ten changes, is 100000):
//
//	SEEDER_BENCH_REPORTS=100000 go test ./cmd/seeder -run '^$' -bench Reports -benchtime 1x
func BenchmarkReports(b *testing.B) {
	total := 20000
	if s := os.Getenv("SEEDER_BENCH_REPORTS"); s != "" {
		var err error
		if total, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("SQLite", func(b *testing.B) {
		for b.Loop() {
			benchReports(b, total)
		}
	})
	b.Run("PostgreSQL", func(b *testing.B) {
		server := postgres.Start(b)
		for b.Loop() {
			benchReports(b, total, "--database", server.Fresh())
		}
	})
}

func benchReports(b *testing.B, total int, more ...string) {
	const sites, window = 20, 200
	dir := b.TempDir()
	flags, _ := keys(b, dir)
	p := launch(b, filepath.Join(dir, "st"), append(flags, more...)...)
	up := make([]*reporter, sites)
	signed := make([][]*wire.Report, sites)
	for i := range up {
		up[i] = join(b, p, "site-"+strconv.Itoa(i))
		for seq := range total / sites {
			signed[i] = append(signed[i], up[i].report(b, uint64(seq+1)))
		}
	}
	before := usage(b, p)
	began := time.Now()
	var g errgroup.Group
	for i, r := range up {
		s := r.session(b, p)
		g.Go(func() error {
			sent := 0
			for acked := range signed[i] {
				for ; sent < len(signed[i]) && sent-acked < window; sent++ {
					s.Send(signed[i][sent])
				}
				<-r.acks
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	took := time.Since(began).Seconds()
	after := usage(b, p)
	b.ReportMetric(float64(total)/took, "reports/s")
	b.ReportMetric(took, "s-drained")
	b.ReportMetric(after.cpu-before.cpu, "cpu-s")
	b.ReportMetric(after.rss, "MB")
	p.signal(b, os.Interrupt)
}
