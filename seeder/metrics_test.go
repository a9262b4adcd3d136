package seeder

import (
	"crypto/ed25519"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// Names follow Prometheus's rules, no label is a node's, and no word of a node's becomes a label.
func TestMetrics(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	n := b.join("s1", "pos-01", api.TokenSpec{})
	b.presence.said(api.PeerID(n.id.Public().(ed25519.PublicKey)), status.Node{Site: "s1", Node: "pos-01", Seq: 1, Phase: "Dancing", Desired: &status.Desired{Policy: "invented"}}, time.Now())
	now := time.Now()
	for _, body := range []status.ReportBody{{Outcome: "success", Policy: "invented", Occurred: now.Add(-time.Minute), Seconds: 20}, {Outcome: "deferred", Reason: "AppLock", Occurred: now},
		{Outcome: "deferred", Reason: "my own word", Occurred: now}, {Outcome: "exploded", Occurred: now}, {Phase: status.Staging, Occurred: now.Add(time.Hour)}} {
		b.metrics.heard(fleet.Report{Recorded: now}, body)
	}
	families, err := b.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	allowed := map[string]bool{"site": true, "policy": true, "phase": true, "bundle": true, "outcome": true, "reason": true, "scope": true, "webhook": true, "state": true, "software": true, "source": true, "role": true}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "patchmesh_") {
			t.Errorf("%s has not our prefix", f.GetName())
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !allowed[l.GetName()] || strings.Contains(l.GetValue(), "pos-01") {
					t.Errorf("%s{%s=%q}", f.GetName(), l.GetName(), l.GetValue())
				}
			}
		}
	}
	w := b.as(b.access("prometheus", api.RoleViewer), "GET", api.PathMetrics, "")
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, line := range []string{`patchmesh_nodes{phase="other",policy=""} 1`, `patchmesh_nodes_silent{site="s1"} 0`, `patchmesh_outcomes_total{outcome="success",policy=""} 1`,
		`patchmesh_outcomes_total{outcome="other",policy=""} 1`, `patchmesh_deferrals_total{policy="",reason="AppLock"} 1`, `patchmesh_deferrals_total{policy="",reason="other"} 1`,
		`patchmesh_report_lag_seconds_count 5`, `patchmesh_quarantined{scope="node"} 0`, `patchmesh_wan_received_bytes_total{site="s1"} 0`, `patchmesh_install_duration_seconds_count 1`} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	if strings.Contains(w.Body.String(), "invented") || strings.Contains(w.Body.String(), "my own word") {
		t.Error("a node's word is a label")
	}
}

// On the loopback metrics need no token, and nothing else is served there. Anywhere else is refused.
func TestMetricsListener(t *testing.T) {
	b := start(t, func(c *Config) { c.ListenMetrics = "127.0.0.1:0" })
	base := "http://" + b.metricsListener.Addr().String()
	for path, want := range map[string]int{api.PathMetrics: 200, api.PathStatus: 404, "/": 404} {
		resp, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	for _, addr := range []string{"0.0.0.0:0", "192.0.2.1:9", "localhost:9", "[::]:0", "x"} {
		cfg := b.cfg
		cfg.State, cfg.ListenMetrics = t.TempDir(), addr
		_, err := New(t.Context(), cfg)
		wantCode(t, addr, err, problem.Usage)
	}
}
