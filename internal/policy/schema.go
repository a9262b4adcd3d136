package policy

import (
	"slices"
	"strings"
)

// fields is every field of PatchPolicy, patchmgmt.io/v1, one a line. A field marked + is acted on; {} is a mapping
// with free keys, [] a list. The others are known, so that they are refused as "not supported yet" and a misspelt
// one as misspelt.
const fields = `
+apiVersion
+kind
+metadata.name
+metadata.namespace
+metadata.labels{}
+metadata.annotations{}
+spec.bundleRef.name
+spec.bundleRef.version
+spec.bundleRef.checksum
+spec.targets.selector.matchLabels{}
+spec.rollback.enabled
+spec.rollback.healthCheckUrl
+spec.rollback.healthCheckTimeoutSeconds
spec.targets.selector.matchExpressions[]
spec.targets.selector.matchAll
spec.targets.matchAll
spec.targets.exclude.matchLabels{}
spec.targets.exclude.matchExpressions[]
spec.priority
spec.suspend
+spec.allowDowngrade
+spec.schedule.maintenanceWindow
+spec.schedule.maintenanceWindows[]
+spec.schedule.timezone
+spec.schedule.blackouts[]
+spec.schedule.notBefore
+spec.schedule.startCutoffMinutes
+spec.schedule.deadline.after
+spec.schedule.deadline.action
+spec.schedule.maxDeferrals
ROLLOUT spec.schedule.rolloutStrategy
ROLLOUT spec.rolloutStrategy
spec.staging.startBefore
spec.staging.requireBeforeWindow
spec.staging.wan.profile
+spec.reboot
spec.fastTrack[]
+spec.rollback.healthCheckIntervalSeconds
+spec.rollback.healthyForSeconds
+spec.rollback.snapshot.provider
+spec.rollback.snapshot.required
+spec.rollback.snapshot.keep
+spec.rollback.snapshot.maxAgeDays
`

// rolloutFields stand below each ROLLOUT above: both places are allowed, a policy uses one of them.
const rolloutFields = `
type
batchSize
batchDelayMinutes
delayFrom
batchBy
maxUnavailablePerSite
canary.selector.matchLabels{}
canary.selector.matchExpressions[]
canary.soakMinutes
canary.promote
failureBudget.max
failureBudget.minSamples
failureBudget.maxPerSite
failureBudget.onExceeded
progressDeadlineMinutes
gating
`

// field is a node of the tree that the table above describes.
type field struct {
	supported bool // it, or something below it, is acted on
	free      bool // a mapping whose keys are the author's
	list      bool
	children  map[string]*field // nil for a value
}

// schema builds the tree.
func schema() *field {
	root := &field{}
	for line := range strings.Lines(fields) {
		line = strings.TrimSpace(line)
		if base, ok := strings.CutPrefix(line, "ROLLOUT "); ok {
			for f := range strings.Lines(rolloutFields) {
				root.add(base+"."+strings.TrimSpace(f), false)
			}
			continue
		}
		path, supported := strings.CutPrefix(line, "+")
		root.add(path, supported)
	}
	return root
}

func (f *field) add(path string, supported bool) {
	path, free := strings.CutSuffix(path, "{}")
	path, list := strings.CutSuffix(path, "[]")
	if path == "" || strings.HasSuffix(path, ".") {
		return
	}
	for name := range strings.SplitSeq(path, ".") {
		f.supported = f.supported || supported
		if f.children == nil {
			f.children = make(map[string]*field)
		}
		if f.children[name] == nil {
			f.children[name] = &field{}
		}
		f = f.children[name]
	}
	f.supported, f.free, f.list = supported, free, list
}

// nearest returns the known name that a misspelt one most resembles, or "".
func (f *field) nearest(name string) string {
	best, distance := "", 4
	for _, known := range f.names() {
		d := editDistance(strings.ToLower(name), strings.ToLower(known))
		if d < distance && d <= (len(known)+2)/3 {
			best, distance = known, d
		}
	}
	return best
}

func (f *field) names() []string {
	names := make([]string, 0, len(f.children))
	for name := range f.children {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// editDistance counts the insertions, deletions and replacements between two words (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
