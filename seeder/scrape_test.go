package seeder

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// scrape reads the metrics as Prometheus does: over HTTP, as text.
func (b *bed) scrape() map[string]float64 {
	b.t.Helper()
	srv := httptest.NewServer(b.onlyMetrics())
	defer srv.Close()
	defer http.DefaultClient.CloseIdleConnections()
	resp, err := http.Get(srv.URL + api.PathMetrics)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.t.Fatalf("%s %v: %s", resp.Status, err, text)
	}
	problems, err := promlint.New(bytes.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		b.t.Errorf("%v, %v", problems, err)
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			b.t.Fatalf("%q: %v", line, err)
		}
		out[strings.TrimPrefix(line[:i], "patchmesh_")] = v
	}
	return out
}

// shown compares some metrics; a negative value stands for one that is absent.
func (b *bed) shown(what string, want map[string]float64) {
	b.t.Helper()
	have := b.scrape()
	for name, v := range want {
		if got, ok := have[name]; v < 0 && ok || v >= 0 && (!ok || got != v) {
			b.t.Errorf("%s: %s is %v (there: %v), want %v", what, name, got, ok, v)
		}
	}
}

// What nodes say they have moved is added up by site, once, whatever becomes of nodes and seeder.
func TestTrafficMetrics(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	a, c := b.join("s1", "a", api.TokenSpec{}), b.join("s1", "c", api.TokenSpec{})
	a.dial(b)
	if g, _ := a.ask(wire.LeaseAsk{Active: true}); g == nil {
		t.Fatal("no lease")
	}
	b.shown("nobody has said anything", map[string]float64{`lan_received_bytes_total{site="s1"}`: 0, `site_nodes{site="s1"}`: 2, `clock_skew_seconds{site="s1"}`: 0,
		`chunk_verify_failures_total{site="s1",source="disk"}`: 0, `site_rarest_chunk_holders{site="s1"}`: -1})
	began := time.Now().UTC()
	say := func(st *station, seq uint64, skew int64, t status.Traffic) {
		n, _ := b.members.named("s1", st.name)
		mesh{b.Seeder}.statement(n, n, status.Node{Site: "s1", Node: st.name, PeerID: st.peerID(), Seq: seq, Phase: status.Staging, Traffic: t, SkewSeconds: skew, Transfer: status.Transfer{Rarest: int(seq)}})
	}
	say(a, 1, 2, status.Traffic{Since: began, FromLAN: 100, Avoided: 90, ToLAN: 7, Twice: 10, BadLAN: 1})
	say(c, 1, -40, status.Traffic{Since: began, FromLAN: 50, Avoided: 50, Spoilt: 3, BadDisk: 2, BadWAN: 4})
	say(a, 2, 2, status.Traffic{Since: began, FromLAN: 130, Avoided: 120, ToLAN: 7, Twice: 10, BadLAN: 1})
	say(a, 1, 2, status.Traffic{Since: began, FromLAN: 9_000}) // old news
	want := map[string]float64{`lan_received_bytes_total{site="s1"}`: 180, `wan_avoided_bytes_total{site="s1"}`: 170, `lan_sent_bytes_total{site="s1"}`: 7,
		`wasted_bytes_total{reason="twice",site="s1"}`: 10, `wasted_bytes_total{reason="spoilt",site="s1"}`: 3, `chunk_verify_failures_total{site="s1",source="lan"}`: 1,
		`chunk_verify_failures_total{site="s1",source="disk"}`: 2, `chunk_verify_failures_total{site="s1",source="wan"}`: 4, `clock_skew_seconds{site="s1"}`: 40, `site_rarest_chunk_holders{site="s1"}`: 2}
	b.shown("three statements", want)
	say(a, 3, 2, status.Traffic{Since: began.Add(time.Hour), FromLAN: 20, Avoided: 20}) // started anew
	b.shown("a daemon that began anew", map[string]float64{`lan_received_bytes_total{site="s1"}`: 200, `wan_avoided_bytes_total{site="s1"}`: 190})
	b.stop()
	b.run()
	say(a, 4, 2, status.Traffic{Since: began.Add(time.Hour), FromLAN: 25, Avoided: 20})
	b.shown("a seeder that began anew counts what is new", map[string]float64{`lan_received_bytes_total{site="s1"}`: 5, `wan_avoided_bytes_total{site="s1"}`: 0})
}

func TestDurationMetrics(t *testing.T) {
	b := start(t, nil)
	now := time.Now()
	for _, body := range []status.ReportBody{
		{Phase: status.Staged, Seconds: 90}, {Phase: status.Staged}, // the second was here already
		{Phase: status.Installed, Outcome: "success", Seconds: 40, Receipt: &status.Receipt{Started: now, Ended: now.Add(40 * time.Second)}},
		{Phase: status.RolledBack, Outcome: "rolled_back", Seconds: 70, Receipt: &status.Receipt{Started: now, Ended: now.Add(70 * time.Second)}},
		{Phase: status.RolledBack, Outcome: "rolled_back", Receipt: &status.Receipt{Started: now, Ended: now}}, // nobody knows how long
	} {
		body.Occurred = now
		b.metrics.heard(fleet.Report{Recorded: now}, body)
	}
	b.shown("", map[string]float64{`stage_duration_seconds_count`: 1, `stage_duration_seconds_sum`: 90, `install_duration_seconds_count`: 2,
		`rollback_duration_seconds_count`: 1, `rollback_duration_seconds_sum`: 70, `rollback_duration_seconds_bucket{le="60"}`: 0, `rollback_duration_seconds_bucket{le="120"}`: 1,
		`outcomes_total{outcome="rolled_back",policy=""}`: 2})
}

func TestRolloutMetrics(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	for _, name := range []string{"a", "b", "c", "d"} {
		b.join("s1", name, api.TokenSpec{Labels: map[string]string{"role": "pos"}})
	}
	b.shown("no policy", map[string]float64{`rollout_paused{policy="pos"}`: -1, `failure_budget_used_ratio{policy="pos"}`: -1})
	x := b.bundle("2.0", 2, b.release)
	b.push(x, -1)
	b.rolling(x, 1, `batchSize: 4, maxUnavailablePerSite: 4, failureBudget: {max: 1}`)
	b.shown("begun", map[string]float64{`rollout_paused{policy="pos"}`: 0, `failure_budget_used_ratio{policy="pos"}`: 0, `rollout_window_closes_timestamp_seconds{policy="pos"}`: -1})
	b.says("s1", "a", x, status.RolledBack)
	b.shown("one failed", map[string]float64{`rollout_paused{policy="pos"}`: 0, `failure_budget_used_ratio{policy="pos"}`: 1})
	b.says("s1", "b", x, status.InstallFailed)
	b.shown("two failed", map[string]float64{`rollout_paused{policy="pos"}`: 1, `failure_budget_used_ratio{policy="pos"}`: 2})
	if _, err := b.admin.ResumeRollout(t.Context(), "pos", api.RolloutChange{Reason: "known"}); err != nil {
		t.Fatal(err)
	}
	b.shown("let go on", map[string]float64{`rollout_paused{policy="pos"}`: 0})
}

func TestGitMetrics(t *testing.T) {
	g := startGit(t)
	x := g.bundle("1.0", 1, g.release)
	g.push(x, -1)
	g.now()
	before := g.scrape()
	if before["git_sync_failures_total"] == 0 {
		t.Error("a repository without a branch is no failure")
	}
	g.shown("never in force", map[string]float64{`policy_sync_timestamp_seconds`: -1})
	g.r.Commit(g.key, "begin", map[string]string{"policies/pos.yaml": text("pos", x, "")})
	g.now()
	synced := g.scrape()
	if at := time.Unix(int64(synced["policy_sync_timestamp_seconds"]), 0); time.Since(at) > time.Minute || synced["git_sync_failures_total"] != before["git_sync_failures_total"] {
		t.Errorf("synced at %v, %v failures", at, synced["git_sync_failures_total"])
	}
	if err := os.Rename(g.r.Dir+"/.git", g.r.Dir+"/gone"); err != nil {
		t.Fatal(err)
	}
	g.now()
	g.shown("the repository is gone", map[string]float64{`git_sync_failures_total`: synced["git_sync_failures_total"] + 1, `policy_sync_timestamp_seconds`: synced["policy_sync_timestamp_seconds"]})
}

// The seeder's own keys have no end; an operator's may.
func TestExpiryMetrics(t *testing.T) {
	created := time.Now().Add(-time.Hour).Truncate(time.Second)
	_, pub, _, err := signer.GenerateKey(signer.KeyOptions{Name: "test", Email: "test@example.org", Created: created, Lifetime: 48 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := trust.ReadKeys(pub)
	if err != nil {
		t.Fatal(err)
	}
	rk, err := trust.NewRoleKeys(1, keys...)
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, func(c *Config) { c.Policy = rk })
	b.shown("", map[string]float64{`certificate_expiry_timestamp_seconds{role="policy"}`: float64(created.Add(48 * time.Hour).Unix()), `certificate_expiry_timestamp_seconds{role="roster"}`: -1})
}
