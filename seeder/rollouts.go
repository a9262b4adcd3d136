package seeder

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/seeder/fleet"
	"github.com/patchmesh/patchmesh/seeder/rollout"
)

// stepEvery is how often the rollouts look at the world.
const stepEvery = time.Second

// rollouts keeps the state of every policy's newest rollout. What is decided is in package rollout; here facts are
// gathered, the outcome is written, and then it is acted upon.
type rollouts struct {
	*Seeder
	key *signer.KeyFile // of the rosters: what it signs can only hold back what a policy allows, or send back what one lets it

	stepping sync.Mutex // one step or command at a time
	mu       sync.RWMutex
	states   map[string]kept                   // by policy; replaced, never changed
	granted  map[string]map[string]fleet.Grant // by site and policy
	zones    map[string]*time.Location         // of the sites, as the last step saw them; replaced, never changed
}

// kept is a state as it is on disk.
type kept struct {
	rollout.State
	bytes   []byte
	updated time.Time
}

func loadRollouts(ctx context.Context, s *Seeder, key *signer.KeyFile) (*rollouts, error) {
	x := &rollouts{Seeder: s, key: key, states: map[string]kept{}, granted: map[string]map[string]fleet.Grant{}}
	rows, err := s.db.Rollouts(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		st, err := rollout.Decode(r.State)
		if err != nil {
			return nil, problem.New(problem.StoreDamaged, "rollout of policy %s, revision %d, in the seeder's database", r.Policy, r.Revision).Because(err)
		}
		x.states[r.Policy] = kept{st, r.State, r.Updated}
	}
	grants, err := s.db.Grants(ctx)
	if err != nil {
		return nil, err
	}
	x.show(grants)
	return x, nil
}

// show makes grants the newest of their sites. Whoever reads them holds mu.
func (x *rollouts) show(grants []fleet.Grant) {
	for _, g := range grants {
		if x.granted[g.Site] == nil {
			x.granted[g.Site] = map[string]fleet.Grant{}
		}
		x.granted[g.Site][g.Policy] = g
	}
}

// grant is the newest grant of a site for a revision of a policy.
func (x *rollouts) grant(site, name string, revision uint64) (fleet.Grant, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	g, ok := x.granted[site][name]
	return g, ok && g.Revision == revision
}

// state is where a policy's newest rollout stands.
func (x *rollouts) state(name string) (kept, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	k, ok := x.states[name]
	return k, ok
}

func (x *rollouts) run(ctx context.Context) error {
	step := func() {
		if err := x.step(ctx); err != nil && ctx.Err() == nil {
			x.log.Error("rollouts did not get on; trying again", "in", stepEvery.String(), "err", err)
		}
	}
	step()
	return every(ctx, stepEvery, step)
}

// step brings every rollout up to date. One that cannot be keeps none of the others.
func (x *rollouts) step(ctx context.Context) error {
	x.stepping.Lock()
	defer x.stepping.Unlock()
	return x.stepAll(ctx)
}

// stepAll is step for who holds stepping.
func (x *rollouts) stepAll(ctx context.Context) error {
	wants := x.desired.all()
	var due []want
	for _, w := range wants {
		k, ok := x.state(w.Name)
		if w.policy != nil && w.policy.Rollout != nil || ok && !k.Final() && (w.document.Deleted || w.policy != nil) {
			due = append(due, w)
		}
	}
	if len(due) == 0 {
		return nil
	}
	v, err := x.survey(ctx, wants)
	if err != nil {
		return err
	}
	var first error
	for _, w := range due {
		if err := x.advance(ctx, v, w); err != nil && first == nil {
			first = fmt.Errorf("rollout of policy %s: %w", w.Name, err)
		}
	}
	return first
}

// advance makes the step of one policy.
func (x *rollouts) advance(ctx context.Context, v *survey, w want) error {
	k, ok := x.state(w.Name)
	if ok && !k.Final() && (w.policy == nil || w.Revision != k.Revision) {
		if err := x.take(ctx, k, rollout.World{Policy: w.policy, Revision: w.Revision}); err != nil {
			return err
		}
		k, _ = x.state(w.Name)
	}
	if w.policy == nil || w.policy.Rollout == nil {
		return nil
	}
	if !ok || k.Revision != w.Revision {
		var prev *rollout.State
		if ok {
			prev = &k.State
		}
		k = kept{State: rollout.New(x.now(), w.Name, w.Revision, prev)}
	}
	world := v.world(w)
	world.Revoked = x.revocations.why(w.policy.Bundle.Checksum)
	return x.take(ctx, k, world)
}

// take makes a step of a state, writes what came of it, and then acts.
func (x *rollouts) take(ctx context.Context, k kept, w rollout.World) error {
	next, actions := rollout.Step(x.now(), k.State, w)
	var grants []fleet.Grant
	for _, a := range actions {
		if a.Grant == nil {
			continue
		}
		g, err := x.sign(ctx, a.Grant)
		if err != nil {
			return err
		}
		grants = append(grants, g)
	}
	if err := x.keep(ctx, k, next, grants); err != nil {
		return err
	}
	for _, a := range actions {
		switch {
		case a.Event != nil:
			x.tell(next, *a.Event)
		case a.Back != nil:
			if err := x.sendBack(ctx, next, w.Policy, *a.Back); err != nil {
				x.log.Error("nodes were not sent back; they will be asked again", "policy", next.Policy, "site", a.Back.Site, "err", err)
			}
		}
	}
	for _, g := range grants {
		if err := x.publish(ctx, g.Site); err != nil {
			return err
		}
	}
	return nil
}

// keep writes a state and its grants, and shows them. One that is as it was is not written again.
func (x *rollouts) keep(ctx context.Context, was kept, next rollout.State, grants []fleet.Grant) error {
	b, err := next.Encode()
	if err != nil {
		return err
	}
	if bytes.Equal(b, was.bytes) {
		return nil
	}
	now := x.now()
	if err := x.db.PutRollout(ctx, fleet.Rollout{Policy: next.Policy, Revision: next.Revision, State: b, Updated: now}, grants); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.states[next.Policy] = kept{next, b, now}
	x.show(grants)
	return nil
}

func (x *rollouts) sign(ctx context.Context, g *grant.Grant) (fleet.Grant, error) {
	doc, err := g.Encode()
	if err != nil {
		return fleet.Grant{}, fmt.Errorf("grant of site %s: %w", g.Site, err)
	}
	sig, err := x.key.Sign(ctx, doc)
	return fleet.Grant{Policy: g.Policy, Site: g.Site, Revision: g.Revision, Serial: g.Serial, Document: trust.Signed{Doc: doc, Sig: sig}}, err
}

func (x *rollouts) tell(s rollout.State, e rollout.Event) {
	level := slog.LevelInfo
	if e.Severity != "info" {
		level = slog.LevelWarn
	}
	x.log.Log(context.Background(), level, "rollout", "event", e.Name, "policy", s.Policy, "revision", s.Revision, "what", e.Text)
	x.events.publish(api.Event{Kind: "rollout", Name: e.Name, Severity: e.Severity, Subject: s.Policy, Policy: s.Policy, Text: "rollout of " + s.Policy + ": " + e.Text})
}

// sendBack orders nodes of a site to go back, which the policy in force lets us do: see order.OpenDelegated.
func (x *rollouts) sendBack(ctx context.Context, s rollout.State, p *policy.Policy, b rollout.Back) error {
	now := x.now()
	put := func(last uint64) error {
		o := order.Order{Schema: order.Schema, Sequence: order.Next(last, now), Created: order.Timestamp(now), Kind: order.Rollback,
			Bundle: p.Bundle.Name, Version: p.Bundle.Version, Checksum: p.Bundle.Checksum,
			Targets: order.Targets{Sites: []string{b.Site}, Nodes: b.Nodes, Labels: map[string]string{}}, Under: &order.Under{Policy: s.Policy, Revision: s.Revision},
			Reason: status.Clip("rollout of "+s.Policy+": the failure budget is exceeded", order.MaxReason)}
		doc, err := o.Encode()
		if err != nil {
			return err
		}
		sig, err := x.key.Sign(ctx, doc)
		if err != nil {
			return err
		}
		given := standing{fleet.Order{Sequence: o.Sequence, Document: trust.Signed{Doc: doc, Sig: sig}, Recorded: now}, &o}
		if err := x.orders.delegate(ctx, given.Order); err != nil {
			return err
		}
		x.audit.own(ctx, "rollout", "policy "+s.Policy, "give order", given.line(), "")
		return nil
	}
	if err := x.orders.next(put); err != nil {
		return err
	}
	return x.publish(ctx, b.Site)
}

// change lets a person change where a rollout stands: it is written before it is answered, and acted upon at once.
func (x *rollouts) change(ctx context.Context, name, event string, c api.RolloutChange, fn func(rollout.State) (rollout.State, error)) error {
	if err := func() error {
		x.stepping.Lock()
		defer x.stepping.Unlock()
		k, ok := x.state(name)
		if !ok || x.outdated(k) { // what a person stops is the revision in force, put there a moment ago too
			if err := x.stepAll(ctx); err != nil {
				return err
			}
			k, ok = x.state(name)
		}
		if !ok {
			return noRollout(name)
		}
		if event != "paused" {
			if err := x.refuseRevoked(name); err != nil {
				return err
			}
		}
		next, err := fn(k.State)
		if err != nil {
			return err
		}
		if err := x.keep(ctx, k, next, nil); err != nil {
			return err
		}
		x.tell(next, rollout.Event{Name: event, Severity: "info", Text: fmt.Sprintf("%s by %s: %s", event, c.By, c.Reason)})
		return nil
	}(); err != nil {
		return err
	}
	return x.step(ctx)
}

// outdated: another revision of the policy is in force.
func (x *rollouts) outdated(k kept) bool {
	return slices.ContainsFunc(x.desired.all(), func(w want) bool { return w.Name == k.Policy && w.Revision != k.Revision })
}

func noRollout(name string) error {
	return problem.New(problem.NotFound, "policy %.80q has no rollout", name).
		WithNext("list them: meshctl rollout status; a policy has one if it says rolloutStrategy")
}

// names are the policies that have a rollout, in order.
func (x *rollouts) names() []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []string
	for name := range x.states {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
