package policy

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// policy reads the values that walk has noted.
func (r *reader) policy() *Policy {
	r.required("apiVersion")
	r.required("kind")
	p := &Policy{
		Name:        r.name("metadata.name"),
		Labels:      r.pairs("metadata.labels"),
		Annotations: r.pairs("metadata.annotations"),
		Bundle:      r.bundle("spec.bundleRef"),
		Selector:    r.targets("spec.targets.selector"),
		Exclude:     r.selector("spec.targets.exclude"),
		Priority:    r.number("spec.priority"),
		Suspend:     r.boolean("spec.suspend"),
		Downgrade:   r.boolean("spec.allowDowngrade"),
		Schedule:    r.schedule(),
		Staging: Staging{
			StartBefore:         r.duration(pathStartBefore, MaxDeadline),
			RequireBeforeWindow: r.boolean(pathRequire),
		},
		Rollout:   r.rollout(),
		FastTrack: r.fastTrack("spec.fastTrack"),
		Reboot:    Reboot(r.word("spec.reboot")),
		Rollback: Rollback{
			Enabled:              r.boolean("spec.rollback.enabled"),
			HealthCheckURL:       r.healthURL("spec.rollback.healthCheckUrl"),
			HealthTimeoutSeconds: r.number(pathTimeout),
			IntervalSeconds:      r.number("spec.rollback.healthCheckIntervalSeconds"),
			HealthyForSeconds:    r.number(pathHealthy),
			Snapshot: Snapshot{
				Provider:   r.word("spec.rollback.snapshot.provider"),
				Required:   r.boolean("spec.rollback.snapshot.required"),
				Keep:       r.number("spec.rollback.snapshot.keep"),
				MaxAgeDays: r.number("spec.rollback.snapshot.maxAgeDays"),
			},
		},
	}
	if r.values["metadata.namespace"] != nil {
		p.Namespace = r.name("metadata.namespace")
	}
	r.word("spec.staging.wan.profile") // has one value, which is what is done without it
	r.agree(p)
	return p
}

func (r *reader) bundle(path string) BundleRef {
	b := BundleRef{Name: r.name(path + ".name")}
	if v, ok := r.required(path + ".version"); ok {
		if b.Version = v; !manifest.ValidVersion(v) {
			r.invalid(r.values[path+".version"], "%s.version %q: want letters, digits, . + ~ _ : -, at most 64", path, v)
		}
	}
	if v, ok := r.required(path + ".checksum"); ok {
		d, err := manifest.ParseDigest(v)
		if err != nil {
			r.invalid(r.values[path+".checksum"], "%s.checksum: %v", path, err)
		}
		b.Checksum = d
	}
	return b
}

// targets reads the selector of the policy, which has to say something.
func (r *reader) targets(path string) Selector {
	s := r.selector(path)
	s.All = r.boolean(path + ".matchAll")
	switch n := r.near(path + ".matchLabels"); {
	case s.All && (len(s.Labels) > 0 || len(s.Expressions) > 0):
		r.invalid(r.values[path+".matchAll"], "%s.matchAll: true picks every node, and %s has conditions too: remove one of them", path, path)
	case s.IsZero():
		r.invalid(n, "%s.matchLabels is empty or missing: name at least one label, or write matchAll: true, so that no policy selects every machine by accident", path)
	}
	return s
}

func (r *reader) selector(path string) Selector {
	s := Selector{Labels: r.pairs(path + ".matchLabels")}
	if n := r.values[path+".matchExpressions"]; n != nil {
		for i := range n.Content {
			s.Expressions = append(s.Expressions, r.expression(fmt.Sprintf("%s.matchExpressions[%d]", path, i)))
		}
	}
	return s
}

func (r *reader) expression(path string) (e Expression) {
	if v, ok := r.required(path + ".key"); ok {
		if e.Key = v; v == "" {
			r.invalid(r.values[path+".key"], "%s.key is empty: name a label", path)
		}
	}
	operator, ok := r.required(path + ".operator")
	e.Operator, e.Values = Operator(operator), r.texts(path+".values")
	takes := e.Operator == In || e.Operator == NotIn
	switch n := r.values[path+".values"]; {
	case !ok:
	case takes && (n == nil || len(n.Content) == 0):
		r.invalid(r.near(path+".values"), "%s.values is empty or missing: %s needs at least one", path, operator)
	case !takes && n != nil && len(n.Content) > 0:
		r.invalid(n, "%s.values is of In and NotIn: %s takes none", path, operator)
	}
	return e
}

var cve = regexp.MustCompile(`^CVE-[0-9]{4}-[0-9]{4,}$`)

func (r *reader) fastTrack(path string) *FastTrack {
	if r.values[path] == nil {
		return nil
	}
	t := &FastTrack{Approvers: r.texts(path + ".approvers")}
	if v, ok := r.required(path + ".cve"); ok {
		if t.CVE = v; !cve.MatchString(v) {
			r.invalid(r.values[path+".cve"], "%s.cve %.40q is not a CVE number: write it as CVE-2026-12345", path, v)
		}
	}
	if people := slices.Compact(slices.Sorted(slices.Values(t.Approvers))); len(people) < 2 || people[0] == "" {
		r.invalid(r.near(path+".approvers"), "%s.approvers needs two different people", path)
	}
	return t
}
