package seeder

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// maxOrders bounds the orders that are remembered in memory, the newest: what a board holds is a part of them.
const maxOrders = 4096

// orders are what operators have told nodes to do once. Nodes verify the signatures themselves; they are checked here so
// that a mistake is told to the one who made it.
type orders struct {
	db  *fleet.Store
	set *trust.Set

	putting sync.Mutex // one at a time
	mu      sync.RWMutex
	list    []standing // in the order of their sequences; replaced, never changed
}

// standing is one order.
type standing struct {
	fleet.Order
	order *order.Order
}

func loadOrders(ctx context.Context, db *fleet.Store, set *trust.Set) (*orders, error) {
	x := &orders{db: db, set: set}
	return x, x.reload(ctx)
}

// reload reads what was given. Signatures were verified when it came; a key that has expired since changes nothing.
func (x *orders) reload(ctx context.Context) error {
	rows, err := x.db.Orders(ctx, maxOrders)
	if err != nil {
		return err
	}
	list := make([]standing, len(rows))
	for i, r := range rows {
		o, err := order.Parse(r.Document.Doc)
		if err != nil {
			return problem.New(problem.StoreDamaged, "order %d in the seeder's database", r.Sequence).Because(err)
		}
		list[len(rows)-1-i] = standing{r, o}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.list = list
	return nil
}

func (x *orders) all() []standing {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.list
}

// site returns the newest orders of operators that may be meant for one of a site's nodes.
func (x *orders) site(name string) []standing {
	return x.newest(func(o *order.Order) bool { return o.Under == nil && o.Targets.Concerns(name) })
}

// backs returns the newest orders that we gave a site's nodes under a revision of a policy.
func (x *orders) backs(site, name string, revision uint64) []standing {
	by := order.Under{Policy: name, Revision: revision}
	return x.newest(func(o *order.Order) bool { return o.Under != nil && *o.Under == by && o.Targets.Concerns(site) })
}

func (x *orders) newest(which func(*order.Order) bool) []standing {
	var out []standing
	for _, s := range x.all() {
		if which(s.order) {
			out = append(out, s)
		}
	}
	return order.Newest(out, func(s standing) uint64 { return s.Sequence })
}

// put takes a signed order. members says whom it may concern: one for nobody is a mistake.
func (x *orders) put(ctx context.Context, members *members, s trust.Signed, at, now time.Time) (standing, error) {
	o, err := order.Open(x.set, s, at)
	if err != nil {
		return standing{}, err
	}
	if members.addressed(o.Targets) == 0 {
		return standing{}, problem.New(problem.NotFound, "the %s is for no node of any site", o).WithDone("it was not given").
			WithNext("meshctl status shows the sites and nodes there are")
	}
	out := standing{fleet.Order{Sequence: o.Sequence, Document: s, Recorded: now}, o}
	x.putting.Lock()
	defer x.putting.Unlock()
	if _, err := x.db.PutOrder(ctx, out.Order); err != nil {
		return standing{}, err
	}
	return out, x.reload(ctx)
}

// delegate takes an order that the seeder itself has signed.
func (x *orders) delegate(ctx context.Context, o fleet.Order) error {
	if _, err := x.db.PutOrder(ctx, o); err != nil {
		return err
	}
	return x.reload(ctx)
}

// next calls put with the last sequence, while no other order is given.
func (x *orders) next(put func(last uint64) error) error {
	x.putting.Lock()
	defer x.putting.Unlock()
	var last uint64
	if all := x.all(); len(all) > 0 {
		last = all[len(all)-1].Sequence
	}
	return put(last)
}

// line is an order for the audit log.
func (s standing) line() string {
	return fmt.Sprintf("order %d: %s: %s", s.Sequence, s.order, s.order.Reason)
}

func (s standing) info(members *members) api.OrderInfo {
	return api.OrderInfo{Order: *s.order, Nodes: members.addressed(s.order.Targets), Recorded: s.Recorded.UTC(), Document: s.Document}
}
