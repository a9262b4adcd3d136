package seeder

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/seeder/fleet"
	"github.com/patchmesh/patchmesh/seeder/rollout"
)

// metrics is what Prometheus may ask of the whole fleet. Labels are sites, policies and words of closed lists: what a node
// says of itself never becomes a label, and no node has one. What can be counted when it is asked for is; the rest follows
// the reports, from the start of this process.
type metrics struct {
	registry  *prometheus.Registry
	handler   http.Handler
	policies  func() []string // that are known: others have no label
	outcomes  *prometheus.CounterVec
	deferrals *prometheus.CounterVec
	lag       prometheus.Histogram
	stages    prometheus.Histogram
	installs  prometheus.Histogram
	rollbacks prometheus.Histogram
	syncs     prometheus.Counter // of the Git repository that failed
	traffic   *traffic
}

func newMetrics(s *Seeder) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), policies: s.policyNames, traffic: newTraffic(),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "patchmesh_outcomes_total", Help: "Outcomes that nodes reported since this seeder began."}, []string{"policy", "outcome"}),
		deferrals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "patchmesh_deferrals_total",
			Help: "Deferred installs that nodes reported since this seeder began."}, []string{"policy", "reason"}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "patchmesh_report_lag_seconds", Help: "From when something happened to when its report was recorded.",
			Buckets: []float64{1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600}}),
		stages: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "patchmesh_stage_duration_seconds", Help: "From when a bundle was asked for to when it was whole on the node.",
			Buckets: []float64{10, 30, 60, 300, 900, 3600, 3 * 3600, 8 * 3600, 24 * 3600, 7 * 24 * 3600}}),
		installs: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "patchmesh_install_duration_seconds", Help: "How long installs took.",
			Buckets: []float64{5, 15, 30, 60, 120, 300, 600, 1200, 2400, 3600}}),
		rollbacks: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "patchmesh_rollback_duration_seconds", Help: "Of installs and orders that ended with the state before in force again: how long all of it took.",
			Buckets: []float64{5, 15, 30, 60, 120, 300, 600, 1200, 2400, 3600}}),
		syncs: prometheus.NewCounter(prometheus.CounterOpts{Name: "patchmesh_git_sync_failures_total", Help: "Looks at the Git repository that brought nothing in force: it was not reached, or refused."})}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "patchmesh_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"software": Software()}})
	build.Set(1)
	m.registry.MustRegister(build, m.outcomes, m.deferrals, m.lag, m.stages, m.installs, m.rollbacks, m.syncs, &census{s})
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 30 * time.Second})
	return m
}

// heard counts a report that was recorded.
func (m *metrics) heard(r fleet.Report, b status.ReportBody) {
	m.lag.Observe(max(0, r.Recorded.Sub(b.Occurred).Seconds()))
	if b.Phase == status.Staged && b.Seconds > 0 {
		m.stages.Observe(float64(b.Seconds))
	}
	if b.Outcome == "" {
		return
	}
	policy := ""
	if slices.Contains(m.policies(), b.Policy) {
		policy = b.Policy
	}
	m.outcomes.WithLabelValues(policy, among(b.Outcome, "success", "deferred", "verification_failure", "install_failure", "rolled_back", "rollback_failed")).Inc()
	if b.Outcome == "deferred" {
		m.deferrals.WithLabelValues(policy, among(b.Reason, "LowDisk", "LowPower", "AppLock", "HookDeferred", "Locked", "ClockUnsure", "SnapshotUnavailable")).Inc()
	}
	if b.Seconds > 0 {
		m.installs.Observe(float64(b.Seconds))
	}
	if c := b.Receipt; b.Outcome == "rolled_back" && c != nil && c.Ended.After(c.Started) {
		m.rollbacks.Observe(c.Ended.Sub(c.Started).Seconds())
	}
}

// among is a word of a closed list, or "other".
func among(word string, known ...string) string {
	if slices.Contains(known, word) {
		return word
	}
	return "other"
}

// policyNames lists the policies that are known here.
func (s *Seeder) policyNames() (out []string) {
	for _, p := range s.desired.all() {
		out = append(out, p.Name)
	}
	return out
}

// census counts the fleet when it is asked.
type census struct{ s *Seeder }

// descs of the census, by name without the prefix. A function, as it is asked for a few times a minute.
func descs() map[string]*prometheus.Desc {
	out := map[string]*prometheus.Desc{}
	for _, d := range []struct {
		name, help string
		labels     []string
	}{
		{"nodes", "Nodes by the policy that they follow and their phase.", []string{"policy", "phase"}},
		{"site_nodes", "Nodes on the roster of the site.", []string{"site"}},
		{"nodes_silent", "Nodes of which nothing was heard for too long.", []string{"site"}},
		{"site_ready_ratio", "Share of the nodes that want a bundle and hold it whole.", []string{"site", "bundle"}},
		{"site_rarest_chunk_holders", "Nodes of the site that hold the chunk of the wanted bundle that fewest hold, as its uplink sees it; absent: unknown.", []string{"site"}},
		{"wan_received_bytes_total", "Bytes of chunks sent to the site over its WAN, as encoded.", []string{"site"}},
		{"wan_limit_bytes_per_second", "What the site may use of its WAN now; absent: no limit.", []string{"site"}},
		{"lan_received_bytes_total", "Bytes of chunks that the nodes of a site had from each other, as they say, since this seeder began.", []string{"site"}},
		{"lan_sent_bytes_total", "Bytes of chunks that the nodes of a site sent each other, as they say, since this seeder began.", []string{"site"}},
		{"wan_avoided_bytes_total", "Of the bytes received over the LAN, what would have had to come over the WAN had each node fetched for itself.", []string{"site"}},
		{"wasted_bytes_total", "Bytes that crossed the WAN more than once (sent_again), and bytes that nodes received and had (twice) or could not keep (spoilt).", []string{"site", "reason"}},
		{"chunk_verify_failures_total", "Chunks that failed their verification on a node, by where they came from: wan, lan, disk.", []string{"site", "source"}},
		{"clock_skew_seconds", "Furthest that a clock in the site is from the others, either way.", []string{"site"}},
		{"outbox_reports", "Reports that nodes hold and the seeder has not acknowledged.", []string{"site"}},
		{"quarantined", "Quarantines in force.", []string{"scope"}},
		{"sessions", "Nodes that are connected with the seeder.", nil},
		{"failure_budget_used_ratio", "Failed nodes by failures that are allowed now, of the policy's newest rollout; above 1 it pauses.", []string{"policy"}},
		{"rollout_paused", "1 while the policy's newest rollout starts nobody because it is paused, by its budget or by a person.", []string{"policy"}},
		{"rollout_window_closes_timestamp_seconds", "When the window that is open now closes; absent: none is.", []string{"policy"}},
		{"policy_sync_timestamp_seconds", "When what the Git repository has was last found to be in force; absent: never, or none is followed.", nil},
		{"certificate_expiry_timestamp_seconds", "When the first of the trusted keys of a role ends; absent: none does.", []string{"role"}},
		{"webhook_letters", "Events that wait for a webhook, or were given up.", []string{"webhook", "state"}},
	} {
		out[d.name] = prometheus.NewDesc("patchmesh_"+d.name, d.help, d.labels, nil)
	}
	return out
}

// Describe implements prometheus.Collector.
func (c *census) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs() {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *census) Collect(ch chan<- prometheus.Metric) {
	d := descs()
	gauge := func(name string, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d[name], prometheus.GaugeValue, v, labels...)
	}
	total := func(name string, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d[name], prometheus.CounterValue, float64(v), labels...)
	}
	s := c.s
	sites, err := s.db.Sites(context.Background()) // a scrape has no context here; the query is short
	if err != nil {
		ch <- prometheus.NewInvalidMetric(d["nodes"], err)
		return
	}
	known := s.policyNames()
	phases := status.Order()
	counts := map[[2]string]int{}
	sessions := 0
	for _, x := range sites {
		nodes := make([]status.Seen, 0, s.members.count(x.Name))
		silent, outbox, rarest, skew := 0, 0, 0, int64(0)
		uplink := s.leases.primary(x.Name)
		for _, n := range s.members.site(x.Name) {
			y := s.seen(n, false)
			nodes = append(nodes, y)
			policy, phase := "", "other"
			if y.Desired != nil && slices.Contains(known, y.Desired.Policy) {
				policy = y.Desired.Policy
			}
			if slices.Contains(phases, y.Phase) {
				phase = string(y.Phase)
			}
			counts[[2]string{policy, phase}]++
			if y.Silent {
				silent++
			}
			outbox += y.Outbox
			skew = max(skew, y.SkewSeconds, -y.SkewSeconds)
			if n.PeerID == uplink && !y.Silent {
				rarest = y.Transfer.Rarest
			}
		}
		sessions += len(s.sessions.of(x.Name))
		gauge("nodes_silent", float64(silent), x.Name)
		gauge("outbox_reports", float64(outbox), x.Name)
		gauge("site_nodes", float64(len(nodes)), x.Name)
		gauge("clock_skew_seconds", float64(skew), x.Name)
		if rarest > 0 {
			gauge("site_rarest_chunk_holders", float64(rarest), x.Name)
		}
		m := s.metrics.traffic.site(x.Name)
		total("lan_received_bytes_total", m.FromLAN, x.Name)
		total("lan_sent_bytes_total", m.ToLAN, x.Name)
		total("wan_avoided_bytes_total", m.Avoided, x.Name)
		total("wasted_bytes_total", m.Twice, x.Name, "twice")
		total("wasted_bytes_total", m.Spoilt, x.Name, "spoilt")
		total("chunk_verify_failures_total", m.BadWAN, x.Name, "wan")
		total("chunk_verify_failures_total", m.BadLAN, x.Name, "lan")
		total("chunk_verify_failures_total", m.BadDisk, x.Name, "disk")
		ready := map[string][2]int{} // by bundle name: of two versions at once, both count
		for _, w := range s.wants(x.Name, nodes) {
			r := ready[w.Bundle]
			ready[w.Bundle] = [2]int{r[0] + w.Holders, r[1] + w.Wanted}
		}
		for bundle, r := range ready {
			if r[1] > 0 {
				gauge("site_ready_ratio", float64(r[0])/float64(r[1]), x.Name, bundle)
			}
		}
		a, t := s.ledger.site(x.Name), s.pace.terms(x.Name)
		total("wan_received_bytes_total", a.Payload, x.Name)
		total("wasted_bytes_total", a.Duplicate, x.Name, "sent_again")
		switch {
		case t.Paused:
			gauge("wan_limit_bytes_per_second", 0, x.Name)
		case t.BytesPerSecond > 0:
			gauge("wan_limit_bytes_per_second", float64(t.BytesPerSecond), x.Name)
		}
	}
	for k, n := range counts {
		gauge("nodes", float64(n), k[0], k[1])
	}
	gauge("sessions", float64(sessions))
	for scope, n := range s.quarantine.count() {
		gauge("quarantined", float64(n), string(scope))
	}
	c.rollouts(gauge)
	if at := s.follower.record().Synced; !at.IsZero() {
		gauge("policy_sync_timestamp_seconds", float64(at.Unix()))
	}
	for role, end := range s.set.Ends() {
		gauge("certificate_expiry_timestamp_seconds", float64(end.Unix()), string(role))
	}
	hooks, err := s.db.Webhooks(context.Background())
	if err != nil {
		ch <- prometheus.NewInvalidMetric(d["webhook_letters"], err)
		return
	}
	for _, h := range hooks {
		gauge("webhook_letters", float64(h.Waiting), h.Name, "waiting")
		gauge("webhook_letters", float64(h.Dead), h.Name, "dead")
	}
}

// rollouts tells of the newest rollout of every policy that is in force.
func (c *census) rollouts(gauge func(name string, v float64, labels ...string)) {
	x := c.s.rollouts
	for _, w := range c.s.desired.all() {
		k, ok := x.state(w.Name)
		if !ok || k.Revision != w.Revision || w.policy == nil {
			continue
		}
		v := x.view(k)
		paused := 0.0
		if k.Phase == rollout.Paused {
			paused = 1
		}
		gauge("rollout_paused", paused, w.Name)
		if v.Budget > 0 {
			gauge("failure_budget_used_ratio", float64(v.Failed)/float64(v.Budget), w.Name)
		}
		if v.Open && v.Next != nil && !k.Final() {
			gauge("rollout_window_closes_timestamp_seconds", float64(v.Next.Unix()), w.Name)
		}
	}
}

func (s *Seeder) getMetrics(w http.ResponseWriter, r *http.Request) (any, error) {
	s.metrics.handler.ServeHTTP(w, r)
	return written{}, nil
}

// onlyMetrics serves metrics and nothing else, to whoever reaches the loopback.
func (s *Seeder) onlyMetrics() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+api.PathMetrics, s.metrics.handler)
	return mux
}
