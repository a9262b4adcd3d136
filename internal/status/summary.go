package status

import "time"

// Summary is the fleet in a few lines, whatever its size: what the fleet screen and the dashboard's strip show.
type Summary struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"` // FleetSummary
	AsOf       time.Time     `json:"asOf"`
	Nodes      int           `json:"nodes"`
	Sites      int           `json:"sites"`
	Silent     int           `json:"silent"`
	Longest    *SilentSite   `json:"longestSilence,omitempty"`
	Phases     []PhaseCount  `json:"phases"` // in the order of a node's life
	Rollouts   []RolloutLine `json:"rollouts"`
	WAN        WAN           `json:"wan"`
	Naive      int64         `json:"naive"`               // bytes of chunks that would have crossed the WANs had each node fetched for itself: WAN.Needed of each site, times its nodes
	Attention  []Attention   `json:"attention"`           // the most urgent first, at most MaxAttention
	More       int           `json:"more,omitempty"`      // how many more there are
	SiteLines  []SiteLine    `json:"siteLines,omitempty"` // with ?sites=1
}

// MaxAttention bounds Summary.Attention.
const MaxAttention = 20

// SilentSite is the site that has been silent for longest.
type SilentSite struct {
	Site  string    `json:"site"`
	Since time.Time `json:"since"`
}

// PhaseCount is how many nodes are in a phase.
type PhaseCount struct {
	Phase   Phase          `json:"phase"`
	Nodes   int            `json:"nodes"`
	Silent  int            `json:"silent"`
	Reasons map[string]int `json:"reasons,omitempty"` // where Explained
}

// RolloutLine is a rollout in one line: see api.Rollout for the whole.
type RolloutLine struct {
	Policy    string     `json:"policy"`
	Revision  uint64     `json:"revision"`
	Commit    string     `json:"commit,omitempty"`
	Bundle    string     `json:"bundle"`
	Version   string     `json:"version"`
	State     string     `json:"state"`
	Reason    string     `json:"reason,omitempty"`
	Batch     int        `json:"batch"`
	Batches   int        `json:"batches"`
	Nodes     int        `json:"nodes"`
	Settled   int        `json:"settled"`
	Failed    int        `json:"failed"`
	Budget    int        `json:"budget"`           // failures that are allowed now
	SitesOver int        `json:"sitesOver"`        // sites that stopped for their own budget
	Window    string     `json:"window,omitempty"` // as written, with its zone
	Open      bool       `json:"open"`
	Next      *time.Time `json:"next,omitempty"`   // when the window closes, or opens next
	Finish    *time.Time `json:"finish,omitempty"` // projected
}

// Attention is something that a person should look at, and the command that shows it.
type Attention struct {
	Subject string     `json:"subject"`
	Text    string     `json:"text"`
	Since   *time.Time `json:"since,omitempty"`
	Command string     `json:"command"`
	Code    string     `json:"code,omitempty"`
	Count   int        `json:"count"`
}

// SiteLine is a site in one line.
type SiteLine struct {
	Site      string        `json:"site"`
	Timezone  string        `json:"timezone"`
	Nodes     int           `json:"nodes"`
	Silent    int           `json:"silent"`
	Phases    map[Phase]int `json:"phases"`
	Ready     int           `json:"ready"` // nodes that hold all of what they want
	Failed    int           `json:"failed"`
	Uplink    string        `json:"uplink,omitempty"`
	Payload   int64         `json:"payload"`
	Needed    int64         `json:"needed"`
	Duplicate int64         `json:"duplicate"`
	Version   string        `json:"version,omitempty"` // the newest that it wants
}
