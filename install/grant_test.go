package install_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// A policy with a rollout strategy starts by a grant that the executor has verified for itself, whatever the daemon asks.
// The control is the same request under a policy without one: it is done at the same instant without any grant.
func TestGrant(t *testing.T) {
	opens := time.Date(2026, 11, 24, 2, 0, 0, 0, time.UTC)
	const windows = "  schedule: {maintenanceWindow: \"Tue 02:00-04:00\", timezone: UTC}\n"
	const rollout = windows + "  rolloutStrategy: {type: RollingUpdate, batchSize: 10%s}\n"
	const batch, missing, paused = "deferred 1 Deferred BatchNotReached ", "deferred 1 Deferred LeaseMissing ", "deferred 1 Deferred Paused "
	rolling, strict := fmt.Sprintf(rollout, ""), fmt.Sprintf(rollout, ", gating: Strict")
	for name, c := range map[string]struct {
		spec   string
		after  time.Duration // when it is asked, from the opening
		none   bool          // no grant in the request
		change func(*grant.Grant)
		key    *signer.KeyFile
		site   string // of the configuration
		node   string
		spoil  bool
		want   string
		next   time.Duration // from the opening; 0: none
	}{
		"granted":                  {spec: rolling, after: 40 * time.Minute, want: done},
		"named":                    {spec: rolling, after: 40 * time.Minute, site: "s1", node: "n1", want: done},
		"control: no rollout":      {spec: windows, none: true, want: done},
		"no grant":                 {spec: rolling, after: 40 * time.Minute, none: true, want: missing},
		"before the batch":         {spec: rolling, after: 10 * time.Minute, node: "n1", want: batch, next: 30 * time.Minute},
		"before any batch":         {spec: rolling, after: 10 * time.Minute, want: batch, next: 20 * time.Minute},
		"another's batch":          {spec: rolling, after: 25 * time.Minute, want: done}, // who it is only the daemon knows
		"the grant's window":       {spec: rolling, after: 10 * time.Minute, change: func(g *grant.Grant) { g.Opens = grant.Timestamp(opens.Add(time.Hour)) }, want: batch, next: time.Hour},
		"expired":                  {spec: rolling, after: time.Hour, change: func(g *grant.Grant) { g.Expires = grant.Timestamp(opens.Add(time.Hour)) }, want: missing},
		"halted":                   {spec: rolling, after: 40 * time.Minute, change: func(g *grant.Grant) { g.Halted = "paused by alice" }, want: paused},
		"another site":             {spec: rolling, after: 40 * time.Minute, site: "s2", want: missing},
		"another node":             {spec: rolling, after: 40 * time.Minute, node: "n9", want: batch},
		"another policy":           {spec: rolling, after: 40 * time.Minute, change: func(g *grant.Grant) { g.Policy = "till" }, want: missing},
		"another revision":         {spec: rolling, after: 40 * time.Minute, change: func(g *grant.Grant) { g.Revision = 1 }, want: missing},
		"another bundle":           {spec: rolling, after: 40 * time.Minute, change: func(g *grant.Grant) { g.Checksum[0] ^= 1 }, want: missing},
		"signed by somebody":       {spec: rolling, after: 40 * time.Minute, key: keyOf(t).Stranger, want: missing},
		"signed by the operator":   {spec: rolling, after: 40 * time.Minute, key: keyOf(t).Policy, want: missing},
		"changed":                  {spec: rolling, after: 40 * time.Minute, spoil: true, want: missing},
		"strict, fresh":            {spec: strict, after: 40 * time.Minute, change: func(g *grant.Grant) { g.Created = grant.Timestamp(opens.Add(36 * time.Minute)) }, want: done},
		"strict, stale":            {spec: strict, after: 40 * time.Minute, change: func(g *grant.Grant) { g.Created = grant.Timestamp(opens.Add(35 * time.Minute)) }, want: missing},
		"suspended":                {spec: windows + "  suspend: true\n", none: true, want: paused},
		"suspended, with a grant":  {spec: rolling + "  suspend: true\n", after: 40 * time.Minute, want: paused},
		"forged where none is due": {spec: windows, spoil: true, want: done},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := installtest.New(t, nil)
			b.Config.Site, b.Config.Node = c.site, c.node
			one, two := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2))
			want(t, apply(t, b, one, installtest.Want{}), done)
			g := &grant.Grant{Schema: grant.Schema, Serial: 1, Created: grant.Timestamp(installtest.Created), Site: "s1", Policy: "pos", Revision: 2, Bundle: "pos",
				Version: two.Version, Checksum: two.Digest, Opens: grant.Timestamp(opens), Expires: grant.Timestamp(opens.Add(2 * time.Hour)),
				Starts:         []grant.Start{{Node: "n0", After: grant.Timestamp(opens.Add(20 * time.Minute))}, {Node: "n1", Batch: 1, After: grant.Timestamp(opens.Add(30 * time.Minute))}},
				MaxUnavailable: 1, Deadline: 60}
			if c.change != nil {
				c.change(g)
			}
			key := b.Keys.Roster
			if c.key != nil {
				key = c.key
			}
			r := b.Request(t, two, installtest.Want{Revision: 2, Spec: c.spec})
			if !c.none {
				then := *key
				then.Now = func() time.Time { return grant.Time(g.Created) }
				signed := installtest.Sign(t, &then, encoded(t, g))
				if c.spoil {
					signed.Doc = append([]byte(nil), signed.Doc...)
					signed.Doc[len(signed.Doc)/2] ^= 1
				}
				r = r.WithGrant(trust.Signed{Doc: signed.Doc, Sig: signed.Sig})
			}
			in := installer(b)
			in.Now = func() time.Time { return opens.Add(c.after) }
			res := in.Apply(t.Context(), r)
			want(t, res, c.want)
			if (res.Next != nil) != (c.next != 0) || res.Next != nil && !res.Next.Equal(opens.Add(c.next)) {
				t.Errorf("next try %v, want %s after the opening", res.Next, c.next)
			}
			if c.want == done {
				one = two
			}
			inForce(t, b, one, one, two)
		})
	}
}

func keyOf(t *testing.T) *installtest.Keys { return installtest.New(t, nil).Keys }

func encoded(t *testing.T, g *grant.Grant) []byte {
	t.Helper()
	doc, err := g.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}
