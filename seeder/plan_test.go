package seeder

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// What a plan says of the WANs is what the sites were not sent yet.
func TestPlan(t *testing.T) {
	b := start(t, nil)
	x := b.bundle("1.0", 1, b.release)
	b.push(x, -1)
	b.crowd(3, 60, func(int) map[string]string { return map[string]string{"role": "pos"} })
	doc, err := policy.Read(b.policy(x, 1, x.Digest, b.operator))
	if err != nil {
		t.Fatal(err)
	}
	ask := func() api.Plan {
		t.Helper()
		p, err := b.admin.Plan(t.Context(), api.PlanRequest{Policies: []api.PlanFile{{File: "a.yaml", Text: doc.Policy}}})
		if err != nil || len(p.Changes) != 1 {
			t.Fatalf("%+v, %v", p, err)
		}
		return p
	}
	whole := x.Catalog().Bytes()
	c := ask().Changes[0]
	if c.Action != "add" || c.Nodes != 60 || c.Sites != 3 || c.SiteBytes < whole || c.SiteBytes > whole*105/100 || c.WANBytes != 3*c.SiteBytes || c.Finish == nil {
		t.Errorf("%+v", c)
	}
	// One site was sent a chunk: so much less is missing there.
	first := x.Catalog().Chunks[0]
	k, _ := b.library.chunk(first.ID)
	a := &account{Account: fleet.Account{Site: "site-0001", Pages: map[uint32][]byte{k.number / fleet.PageBits: make([]byte, fleet.PageBits/8)}}}
	a.Pages[k.number/fleet.PageBits][k.number%fleet.PageBits/8] |= 1 << (k.number % 8)
	b.ledger.mu.Lock()
	b.ledger.sites["site-0001"] = a
	b.ledger.mu.Unlock()
	if less := c.WANBytes - ask().Changes[0].WANBytes; less < first.Size || less > first.Size*105/100+1 {
		t.Errorf("%d bytes less, the chunk has %d", less, first.Size)
	}
	if _, err := b.admin.Plan(t.Context(), api.PlanRequest{Policies: []api.PlanFile{{File: "a.yaml", Text: "kind: Pod"}}}); err == nil {
		t.Error("a plan of no policy")
	}
}

// Who asks for many plans at once waits: nobody else is kept from the processor for it.
func TestPlansWait(t *testing.T) {
	b := start(t, nil)
	for range maxPlanners {
		b.planners <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.admin.Plan(ctx, api.PlanRequest{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a plan too many: %v", err)
	}
	<-b.planners
	if _, err := b.admin.Plan(t.Context(), api.PlanRequest{}); err != nil {
		t.Error(err)
	}
	if len(b.planners) != maxPlanners-1 {
		t.Errorf("%d plans are made", len(b.planners))
	}
}
