package node_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/status"
)

// scrape reads a node's metrics through its socket, as text.
func (s *site) scrape(i int) map[string]float64 {
	s.t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.members[i].socket)
	}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("http://meshd" + api.PathMetrics)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s %v: %s", resp.Status, err, text)
	}
	problems, err := promlint.New(bytes.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		s.t.Errorf("%v, %v", problems, err)
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			if out[strings.TrimPrefix(line[:i], "patchmesh_")], err = strconv.ParseFloat(line[i+1:], 64); err != nil {
				s.t.Fatalf("%q: %v", line, err)
			}
		}
	}
	return out
}

// One node gives, the other takes, and then a chunk rots on its disk.
func TestNodeMetrics(t *testing.T) {
	s := newSite(t, 2)
	s.start(0)
	s.start(1)
	if m := s.scrape(1); m[`node_phase{phase="Pending"}`] != 1 || m["lan_received_bytes_total"] != 0 || m[`quarantined{scope="node"}`] != 0 {
		t.Errorf("at the start: %v", m)
	}
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(31, 1<<20)})
	s.staged(b, 1, 0, 1)
	giver, taker := s.scrape(0), s.scrape(1)
	if giver["lan_sent_bytes_total"] < 1<<20 || giver["lan_received_bytes_total"] != 0 || giver["wan_avoided_bytes_total"] != 0 {
		t.Errorf("who gives: %v", giver)
	}
	if n := taker["lan_received_bytes_total"]; n < 1<<20 || taker["wan_avoided_bytes_total"]+taker[`wasted_bytes_total{reason="twice"}`] != n || taker["wan_received_bytes_total"] != 0 {
		t.Errorf("who takes: %v", taker)
	}
	if taker["bundle_ready_ratio"] != 1 || taker["peers"] != 1 || taker["rarest_chunk_holders"] != 2 || taker["outbox_reports"] == 0 || taker[`node_phase{phase="Deferred"}`] != 1 {
		t.Errorf("who takes: %v", taker)
	}
	if v, ok := taker["clock_skew_seconds"]; !ok || v != 0 {
		t.Errorf("skew %v", v)
	}
	ref := b.Index.Files[0].Chunks[1]
	file := filepath.Join(s.members[1].state, "chunks", store.Name(ref.ID))
	raw := must(os.ReadFile(file))
	raw[1000] ^= 1
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	c := s.client(1)
	defer c.CloseIdle()
	if _, err := c.GetChunk(t.Context(), ref.ID); err == nil {
		t.Fatal("a damaged chunk was served")
	}
	s.await(1, "an alarm", func(st status.Node) bool { return len(st.Alarms) > 0 })
	if m := s.scrape(1); m[`chunk_verify_failures_total{source="disk"}`] != 1 || m[`alarms{code="E2103"}`] != 1 {
		t.Errorf("a chunk is damaged: %v", m)
	}
}
