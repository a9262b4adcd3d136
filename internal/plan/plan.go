// Package plan says what policies would change before they do: which nodes and sites, in conflict with what, how many
// bytes over which WANs, by when they are staged, in which windows and batches they install, and when that ends. It is
// arithmetic on what the seeder knows, for the batches with that of package batch; nothing is promised: installs that take
// long, nodes that are away and links that carry less than their profile make it later, never earlier.
//
// Pure: time and facts are handed in. Safe for concurrent use.
package plan

import "time"

// Plan is what would change, policy by policy.
type Plan struct {
	AsOf     time.Time `json:"asOf"`
	Changes  []Change  `json:"changes"`
	Pairs    int       `json:"pairs"`   // (policy, node) that are managed now
	Removed  int       `json:"removed"` // of them gone after
	Held     bool      `json:"held"`    // too many are removed: it needs a person's word
	Warnings []Warning `json:"warnings"`
}

// Warning is a warning, or with Error set what keeps the plan from being applied.
type Warning struct {
	Code  string `json:"code"`
	Text  string `json:"text"`
	Error bool   `json:"error"`
}

// Change is what would become of one policy.
type Change struct {
	Policy     string     `json:"policy"`
	File       string     `json:"file"`
	Action     string     `json:"action"` // add, change, remove, same
	Fields     []Field    `json:"fields"`
	Bundle     string     `json:"bundle"`
	Version    string     `json:"version"`
	Nodes      int        `json:"nodes"`
	NodesWere  int        `json:"nodesWere"`
	Sites      int        `json:"sites"`
	Conflicts  []Conflict `json:"conflicts"`
	Downgrades int        `json:"downgrades"` // nodes that have a newer sequence
	Revoked    bool       `json:"revoked"`
	SiteBytes  int64      `json:"siteBytes"` // new chunks of a site, at most
	WANBytes   int64      `json:"wanBytes"`  // of all sites together
	StagedBy   *time.Time `json:"stagedBy,omitempty"`
	Late       []Late     `json:"late"` // sites that are not staged before their window
	Windows    []Window   `json:"windows"`
	Batches    int        `json:"batches"` // after the canary; each time zone goes through its share of each
	PerWindow  int        `json:"batchesPerWindow"`
	Count      int        `json:"windowCount"`               // windows until it is done
	Finish     *time.Time `json:"finish,omitempty"`          // the earliest
	Deadline   *time.Time `json:"deadline,omitempty"`        // by the policy's schedule.deadline
	Enough     int        `json:"batchSizeEnough,omitempty"` // the batch size that would keep it
	Why        string     `json:"why,omitempty"`             // there is no finish
}

// Field is a field whose value changes.
type Field struct {
	Path string `json:"path"`
	Was  string `json:"was"`
	Is   string `json:"is"`
}

// Conflict is another policy for the same bundle name and nodes at the same priority.
type Conflict struct {
	With    string `json:"with"`
	Nodes   int    `json:"nodes"`
	Example string `json:"example"` // SITE/NODE
}

// Late is a site that would not be staged in time.
type Late struct {
	Site   string        `json:"site"`
	Late   time.Duration `json:"lateNanos"`
	Rate   int64         `json:"rate"`
	Reason string        `json:"reason"`
}

// Window is an opening that would be used, for the zone of most sites first.
type Window struct {
	Zone   string    `json:"zone"`
	Opens  time.Time `json:"opens"`
	Closes time.Time `json:"closes"`
	Sites  int       `json:"sites"`
}

// Changed reports whether anything would be another than it is.
func (p *Plan) Changed() bool {
	for _, c := range p.Changes {
		if c.Action != Same {
			return true
		}
	}
	return false
}

// The actions.
const (
	Add    = "add"
	Modify = "change"
	Remove = "remove"
	Same   = "same"
)
