package node

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/patchmesh/patchmesh/internal/build"
	"github.com/patchmesh/patchmesh/internal/status"
)

// gauges is what Prometheus may ask of this node, through its socket: the seeder's metrics are of sites and policies, and
// know no node. Each scrape asks the loop.
type gauges struct {
	n     *Node
	descs map[string]*prometheus.Desc // by name without the prefix
}

func newGauges(n *Node) *gauges {
	g := &gauges{n: n, descs: map[string]*prometheus.Desc{}}
	for _, d := range []struct {
		name, help string
		labels     []string
	}{
		{"node_phase", "1 for the phase that the node is in.", []string{"phase"}},
		{"bundle_ready_ratio", "Share of the bytes of the wanted bundle that are here and verified.", nil},
		{"peers", "Nodes of the site that this one is connected with.", nil},
		{"rarest_chunk_holders", "Nodes of the site that hold the chunk of the wanted bundle that fewest hold.", nil},
		{"wan_received_bytes_total", "Bytes of chunks received over the WAN, as encoded, since the daemon was started.", nil},
		{"lan_received_bytes_total", "Bytes of chunks received from neighbours since the daemon was started.", nil},
		{"lan_sent_bytes_total", "Bytes of chunks sent to neighbours since the daemon was started.", nil},
		{"wan_avoided_bytes_total", "Bytes of chunks received from neighbours that would have had to come over the WAN.", nil},
		{"wasted_bytes_total", "Bytes received and not kept since the daemon was started.", []string{"reason"}},
		{"chunk_verify_failures_total", "Chunks that failed their verification since the daemon was started, by where they came from.", []string{"source"}},
		{"outbox_reports", "Reports that the seeder has not acknowledged.", nil},
		{"quarantined", "1 while the node trusts itself with nothing new.", []string{"scope"}},
		{"alarms", "Alarms that are raised.", []string{"code"}},
		{"clock_skew_seconds", "How far the site's clocks are ahead of this node's.", nil},
		{"certificate_expiry_timestamp_seconds", "When the first of the trusted keys of a role ends; absent: none does.", []string{"role"}},
	} {
		g.descs[d.name] = prometheus.NewDesc("patchmesh_"+d.name, d.help, d.labels, nil)
	}
	return g
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range g.descs {
		ch <- d
	}
}

// scrapeTime is how long a scrape waits for the loop.
const scrapeTime = 10 * time.Second

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	n := g.n
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime) // a scrape has none of its own here
	defer cancel()
	var st status.Node
	var skew time.Duration
	rarest := 0
	if err := n.call(ctx, func() {
		st, skew = n.describe(), n.skew()
		if st.Desired != nil {
			rarest = n.sw.Rarest(st.Desired.Checksum)
		}
	}); err != nil {
		ch <- prometheus.NewInvalidMetric(g.descs["node_phase"], err)
		return
	}
	put := func(kind prometheus.ValueType, name string, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(g.descs[name], kind, v, labels...)
	}
	gauge := func(name string, v float64, labels ...string) { put(prometheus.GaugeValue, name, v, labels...) }
	total := func(name string, v int64, labels ...string) {
		put(prometheus.CounterValue, name, float64(v), labels...)
	}
	gauge("node_phase", 1, string(st.Phase))
	if t := st.Transfer; t.Bytes > 0 {
		gauge("bundle_ready_ratio", float64(t.BytesHave)/float64(t.Bytes))
	}
	if rarest > 0 {
		gauge("rarest_chunk_holders", float64(rarest))
	}
	gauge("peers", float64(st.Transfer.Peers))
	t := st.Traffic
	total("wan_received_bytes_total", t.WANPayload)
	total("lan_received_bytes_total", t.FromLAN)
	total("lan_sent_bytes_total", t.ToLAN)
	total("wan_avoided_bytes_total", t.Avoided)
	total("wasted_bytes_total", t.Twice, "twice")
	total("wasted_bytes_total", t.Spoilt, "spoilt")
	total("chunk_verify_failures_total", t.BadWAN, "wan")
	total("chunk_verify_failures_total", t.BadLAN, "lan")
	total("chunk_verify_failures_total", t.BadDisk, "disk")
	gauge("outbox_reports", float64(st.Outbox))
	held := 0.0
	if st.Quarantine != "" {
		held = 1
	}
	gauge("quarantined", held, "node")
	for _, a := range st.Alarms {
		gauge("alarms", 1, a.Code)
	}
	gauge("clock_skew_seconds", skew.Seconds())
	for role, end := range n.e.Trust.Ends() {
		gauge("certificate_expiry_timestamp_seconds", float64(end.Unix()), string(role))
	}
}

func (n *Node) metricsHandler() http.Handler {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "patchmesh_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"software": build.Software("meshd")}})
	info.Set(1)
	r.MustRegister(info, newGauges(n))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: 2 * scrapeTime})
}

// moved is what this daemon has moved.
func (n *Node) moved() status.Traffic {
	t := n.traffic
	t.ToLAN, t.BadDisk = n.servedB.Load(), n.badDisk.Load()
	return t
}

// skewWord is the skew as our statement says it: in whole seconds, and another one only when it has become another by a
// second, so that a clock at the edge of one makes no news.
func (n *Node) skewWord() int64 {
	if s := n.skew(); (s - n.skewSaid).Abs() >= time.Second {
		n.skewSaid = s.Round(time.Second)
	}
	return int64(n.skewSaid / time.Second)
}
