package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/durable"
)

// schema of the document; another number is another document.
const schema = 1

// results is the document: the newest run of each part.
type results struct {
	Schema int    `json:"schema"`
	Parts  []part `json:"parts"` // in the order of the parts' list
}

// part is one run of one part of the benchmark: on one machine, from one commit.
type part struct {
	Name    string    `json:"name"`
	At      time.Time `json:"at"`
	Seconds float64   `json:"seconds"` // how long the part took
	Commit  string    `json:"commit"`
	Machine machine   `json:"machine"`
	Seed    uint64    `json:"seed"`
	Runs    int       `json:"runs"`
	Rows    []row     `json:"rows"`
	Skipped []string  `json:"skipped,omitempty"` // what is missing on the machine and how to get it
	Trouble []string  `json:"trouble,omitempty"` // what went wrong
}

// machine is where it ran.
type machine struct {
	Cores  int    `json:"cores"`
	CPU    string `json:"cpu"`
	Memory int64  `json:"memoryBytes"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Files  string `json:"files"` // "in memory" or "on disk": one disk stands for those of all hosts
}

// row is one tool in one situation.
type row struct {
	Tool    string            `json:"tool"` // "patchmesh", or a rival
	Case    string            `json:"case"` // e.g. "8 nodes, uplink killed"
	Bed     bedSpec           `json:"bed"`
	Size    int64             `json:"sizeBytes"` // of what is distributed
	Figures map[string]figure `json:"figures"`
}

// bedSpec is the network, in bits per second and milliseconds.
type bedSpec struct {
	Sites int     `json:"sites"`
	Nodes int     `json:"nodes"` // of each site
	WAN   int64   `json:"wanBitPerSecond"`
	RTT   float64 `json:"rttMillis"`
	Queue float64 `json:"queueMillis"`
	LAN   int64   `json:"lanBitPerSecond"`
}

// figure is a value by its median, and every sample.
type figure struct {
	Median  float64   `json:"median"`
	Samples []float64 `json:"samples"`
}

// Names of figures. Ratios have no unit; others say it.
const (
	wanBytes    = "wan"          // WAN interface bytes / size, of the site that took most
	wanPayload  = "wanPayload"   // the same, chunks only
	firstNode   = "first"        // time until the first node has it / (size / rate)
	lastNode    = "last"         // time until the last node has it / (size / rate)
	eWAN        = "eWan"         // time of one plain HTTP transfer / time until the last node has it
	fillRatio   = "fill"         // time until the last node has it / the fill bound
	cpuPerGB    = "cpu"          // CPU seconds of all node processes per GB delivered
	rssPeak     = "rssPeakMiB"   // of the largest process of a node
	rssIdle     = "rssIdleMiB"   // the same with nothing to do
	twiceBytes  = "twiceBytes"   // bytes that crossed the WAN again
	idleSeconds = "idleSeconds"  // WAN idle after the fault
	extra       = "extraSeconds" // beyond the time without a fault
	linkRate    = "linkMbit"     // what one HTTP transfer gets of the WAN, Mbit/s
	portRate    = "portMbit"     // and from neighbour to neighbour
	rLAN        = "rLan"         // time until the last node / the broadcast bound
	aLAN        = "aLan"         // LAN bytes received / ((nodes - 1) * size)
	idleWAN     = "idleWanBps"   // bytes per second of a site, both ways
	idleLAN     = "idleLanBps"   // bytes per second of a node, both ways
	idleCPU     = "idleCpu"      // share of one core, a node
	pingBase    = "pingBaseP95"  // ms
	pingMedian  = "pingMedian"   // ms, during a fill
	pingP95     = "pingP95"      // ms, during a fill
	pingRise    = "pingRise"     // ms, p95 during a fill beyond p95 before
	linkUse     = "use"          // payload / what the link carries
	bulkShare   = "bulkShare"    // our share of the link 5 to 10 s after a bulk flow began
	recovered   = "recovered"    // link use 3 to 8 s after it ended
	restDone    = "restDone"     // share of the other nodes that completed
	wanKilled   = "wanKilled"    // WAN interface bytes / size where the fetching node was killed
)

// record adds a sample to a row's figure.
func (r *row) record(name string, v float64) {
	if r.Figures == nil {
		r.Figures = map[string]figure{}
	}
	f := r.Figures[name]
	f.Samples = append(f.Samples, v)
	f.Median = median(f.Samples)
	r.Figures[name] = f
}

// value is a figure's median.
func (r *row) value(name string) (v float64, ok bool) {
	if r == nil {
		return 0, false
	}
	f, ok := r.Figures[name]
	return f.Median, ok
}

// row finds or makes the row of a tool in a situation.
func (p *part) row(tool, situation string) *row {
	for i := range p.Rows {
		if p.Rows[i].Tool == tool && p.Rows[i].Case == situation {
			return &p.Rows[i]
		}
	}
	p.Rows = append(p.Rows, row{Tool: tool, Case: situation})
	return &p.Rows[len(p.Rows)-1]
}

// find returns a row of a part, or nil.
func (d *results) find(name, tool, situation string) *row {
	for i := range d.Parts {
		p := &d.Parts[i]
		for j := range p.Rows {
			if p.Name == name && p.Rows[j].Tool == tool && p.Rows[j].Case == situation {
				return &p.Rows[j]
			}
		}
	}
	return nil
}

// put takes a part in, in the place of an older run of it.
func (d *results) put(p part, order []string) {
	d.Schema = schema
	d.Parts = slices.DeleteFunc(d.Parts, func(o part) bool { return o.Name == p.Name || !slices.Contains(order, o.Name) })
	d.Parts = append(d.Parts, p)
	slices.SortStableFunc(d.Parts, func(a, b part) int { return slices.Index(order, a.Name) - slices.Index(order, b.Name) })
}

// parse reads a document.
func parse(b []byte) (*results, error) {
	var d results
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return nil, err
	}
	if d.Schema != schema {
		return nil, fmt.Errorf("schema %d, not %d: remove the file and measure again", d.Schema, schema)
	}
	return &d, nil
}

func (d *results) encode() ([]byte, error) {
	b, err := json.MarshalIndent(d, "", "\t")
	return append(b, '\n'), err
}

// load reads the document; of one that is not there it makes an empty one.
func load(name string) (*results, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return &results{Schema: schema}, nil
	}
	if err != nil {
		return nil, err
	}
	d, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("results %s: %w", name, err)
	}
	return d, nil
}

func (d *results) save(name string) error {
	b, err := d.encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(name, b, 0o644)
}
