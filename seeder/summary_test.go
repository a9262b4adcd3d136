package seeder

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// crowd gives the seeder sites and nodes that have spoken, in memory.
func (b *bed) crowd(sites, nodes int, label func(i int) map[string]string) {
	b.t.Helper()
	now := time.Now()
	byPeer, bySite := map[string]fleet.Node{}, map[string]map[string]fleet.Node{}
	for i := range nodes {
		site, name, peer := fmt.Sprintf("site-%04d", i%sites), fmt.Sprintf("pos-%02d", i/sites), fmt.Sprint("peer", i)
		n := fleet.Node{Site: site, Enrolled: now, Node: roster.Node{Name: name, PeerID: peer, Labels: label(i)}}
		byPeer[peer] = n
		if bySite[site] == nil {
			bySite[site] = map[string]fleet.Node{}
		}
		bySite[site][name] = n
		st := status.Node{Site: site, Node: name, PeerID: peer, Phase: status.Staged, Reason: "WindowClosed", Seq: 1, Installed: []status.InstalledItem{}, Alarms: []status.Alarm{}}
		if i%100 == 0 {
			st.Phase, st.Reason, st.Code = status.RolledBack, "HealthFailed", "E5103"
		}
		b.presence.mu.Lock()
		b.presence.peers[peer] = &heard{Statement: fleet.Statement{Peer: peer, Node: st, Seen: now}, kept: now}
		b.presence.mu.Unlock()
	}
	for i := range sites {
		b.site(fmt.Sprintf("site-%04d", i))
	}
	b.members.mu.Lock()
	defer b.members.mu.Unlock()
	b.members.byPeer, b.members.bySite = byPeer, bySite
}

// The fleet in a few lines counts what the whole of it does, and stays small.
func TestSummary(t *testing.T) {
	b := start(t, nil)
	b.crowd(12, 1000, func(int) map[string]string { return nil })
	sum, err := b.admin.Fleet(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	all, err := b.admin.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	phases := map[status.Phase]int{}
	for _, p := range sum.Phases {
		phases[p.Phase] = p.Nodes
	}
	if sum.Nodes != 1000 || sum.Nodes != all.Nodes || sum.Sites != 12 || sum.Silent != all.Silent || phases[status.Staged] != 990 || phases[status.RolledBack] != all.Phases[status.RolledBack] ||
		len(sum.Attention) != 1 || sum.Attention[0].Count != 10 || sum.SiteLines != nil {
		t.Errorf("%+v", sum)
	}
	if b, err := json.Marshal(sum); err != nil || len(b) > 2000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if sum, err = b.admin.Fleet(t.Context(), true); err != nil || len(sum.SiteLines) != 12 || sum.SiteLines[0].Nodes != 84 || sum.SiteLines[11].Site != "site-0011" {
		t.Errorf("%+v, %v", sum.SiteLines, err)
	}
}

// The dashboard's question at the size that the design names.
func BenchmarkSummary(b *testing.B) {
	x := start(b, nil)
	x.crowd(1200, 10_000, func(int) map[string]string { return map[string]string{"role": "pos"} })
	for b.Loop() {
		if _, err := x.admin.Fleet(b.Context(), false); err != nil {
			b.Fatal(err)
		}
	}
}
