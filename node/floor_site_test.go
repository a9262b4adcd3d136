package node_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
)

// A seeder signs grants every few minutes. If each took the trusted time along, a seeder whose clock was years ahead for an hour
// would have nodes refuse every key that has an end date, for ever. The documents of people do.
func TestSeederDoesNotMoveTrustedTime(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.script("sleep 0\n")
	s.start(0)
	m := s.members[0]
	one := s.bundle("1.0", 1, map[string][]byte{"f": []byte("one\n")})
	s.hand(0, one, s.policyOf("all", one, 2, sendsBack))
	s.await(0, "told of the policy", func(st status.Node) bool { return desired(st) == 2 })
	ahead := s.now.Add(47 * time.Hour) // as far as what is signed now may say
	p := s.puppet(s.members[1].key, "n01")
	se := p.dial(m.id, m.addr)
	floor := func() time.Time {
		t.Helper()
		p.fence(se, s.roster)
		m.stop()
		var state struct{ Floor time.Time }
		s.fine(json.Unmarshal(must(os.ReadFile(filepath.Join(m.state, "state.json"))), &state))
		return state.Floor
	}
	tellDoc(p, se, wire.DocGrant, "all", 1, s.grantWith(one, 1, 2, 0, func(g *grant.Grant) { g.Created, g.Halted = grant.Timestamp(ahead), "paused" }, "n00"))
	p.fence(se, s.roster)
	tellDoc(p, se, wire.DocBack, "all", 5, s.back(s.rosterKey, one, 5, 2, func(o *order.Order) { o.Created, o.Targets.Nodes = order.Timestamp(ahead), []string{"n01"} }))
	if got := floor(); got.After(s.now.Add(time.Hour)) {
		t.Errorf("the seeder moved the trusted time to %v", got)
	}
	for _, kept := range []string{"grants", "orders"} {
		if es := must(os.ReadDir(filepath.Join(m.state, kept))); len(es) != 1 {
			t.Errorf("%s: %d kept", kept, len(es))
		}
	}
	s.start(0) // the control
	m = s.members[0]
	p = s.puppet(s.members[1].key, "n01")
	se = p.dial(m.id, m.addr)
	tell(p, se, 6, s.order(s.operator, one, order.Rollback, 6, func(o *order.Order) { o.Created, o.Targets.Nodes = order.Timestamp(ahead), []string{"n01"} }))
	if got := floor(); got.Before(s.now.Add(46 * time.Hour)) {
		t.Errorf("an operator's order left it at %v", got)
	}
}
