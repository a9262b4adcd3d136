package seeder

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"
)

var (
	descPattern   = regexp.MustCompile(`fqName: "([^"]+)".*constLabels: \{([^}]*)\}.*variableLabels: \{([^}]*)\}`)
	metricPattern = regexp.MustCompile(`patchmesh_[a-z_]+`)
	labelPattern  = regexp.MustCompile(`\b(?:by|on) \(([a-z, ]+)\)|\{([a-z]+)=|\$labels\.([a-z]+)|\{\{([a-z]+)\}\}|label_values\([a-z_]+, ([a-z]+)\)`)
)

// exported are the metrics of a seeder and their labels, whether or not there is anything to count.
func (b *bed) exported() (names, labels map[string]bool) {
	b.t.Helper()
	names, labels = map[string]bool{}, map[string]bool{"le": true}
	ch := make(chan *prometheus.Desc, 100)
	go func() { b.metrics.registry.Describe(ch); close(ch) }()
	for d := range ch {
		m := descPattern.FindStringSubmatch(d.String())
		if m == nil {
			b.t.Fatalf("%s", d)
		}
		names[m[1]] = true
		if strings.HasSuffix(m[1], "_seconds") {
			for _, of := range []string{"_bucket", "_sum", "_count"} {
				names[m[1]+of] = true
			}
		}
		constant, _, _ := strings.Cut(m[2], "=")
		for _, l := range append(strings.Split(m[3], ","), constant) {
			labels[l] = true
		}
	}
	return names, labels
}

// invented lists what a text names of ours and no seeder exports.
func invented(text string, names, labels map[string]bool) (out []string) {
	for _, m := range metricPattern.FindAllString(text, -1) {
		if !names[m] {
			out = append(out, m)
		}
	}
	for _, m := range labelPattern.FindAllStringSubmatch(text, -1) {
		for _, l := range strings.Split(strings.Join(m[1:], ""), ",") {
			if l = strings.TrimSpace(l); !labels[l] {
				out = append(out, l)
			}
		}
	}
	return out
}

// Alerts and dashboard ask for nothing that is not there.
func TestMonitoring(t *testing.T) {
	b := start(t, nil)
	names, labels := b.exported()
	if got := invented(`sum by (store) (patchmesh_invented{node="x"}) {{$labels.shop}}`, names, labels); !slices.Equal(got, []string{"patchmesh_invented", "store", "node", "shop"}) {
		t.Fatalf("what does not exist is not seen: %v", got)
	}
	dir := filepath.Join("..", "packaging", "monitoring")
	rules, err := os.ReadFile(filepath.Join(dir, "patchmesh.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Expr        string            `yaml:"expr"`
				For         string            `yaml:"for"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	d := yaml.NewDecoder(bytes.NewReader(rules))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range file.Groups[0].Rules {
		if seen[r.Alert] || r.Expr == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("alert %q: %+v", r.Alert, r)
		}
		seen[r.Alert] = true
		if !strings.Contains(r.Expr, "patchmesh_") {
			t.Errorf("alert %s is about something else", r.Alert)
		}
	}
	if len(seen) == 0 {
		t.Error("no alerts")
	}
	board, err := os.ReadFile(filepath.Join(dir, "patchmesh-dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dash struct {
		Panels []struct {
			Title   string                  `json:"title"`
			Targets []struct{ Expr string } `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(board, &dash); err != nil {
		t.Fatal(err)
	}
	for _, p := range dash.Panels {
		for _, x := range p.Targets {
			if !strings.Contains(x.Expr, "patchmesh_") {
				t.Errorf("panel %s: %q", p.Title, x.Expr)
			}
		}
		if len(p.Targets) == 0 {
			t.Errorf("panel %s shows nothing", p.Title)
		}
	}
	for file, text := range map[string][]byte{"alerts": rules, "dashboard": board} {
		if got := invented(string(text), names, labels); len(got) > 0 {
			t.Errorf("the %s ask for %v", file, got)
		}
	}
}

// Prometheus's own tool reads the alerts, and has them fire and not fire.
func TestAlertsFire(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool: make alerts-test")
	}
	dir := filepath.Join("..", "packaging", "monitoring")
	for _, args := range [][]string{{"check", "rules", "patchmesh.rules.yml"}, {"test", "rules", "patchmesh.rules.test.yml"}} {
		cmd := exec.Command(tool, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
