package seeder

import (
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// order signs an order to go back from app 2.0.
func (b *bed) order(sequence uint64, k *signer.KeyFile, t order.Targets) trust.Signed {
	b.t.Helper()
	if t.Nodes == nil {
		t.Nodes = []string{}
	}
	if t.Sites == nil {
		t.Sites = []string{}
	}
	if t.Labels == nil {
		t.Labels = map[string]string{}
	}
	o := order.Order{Schema: order.Schema, Sequence: sequence, Created: order.Timestamp(time.Now()), Kind: order.Rollback, Bundle: "app", Version: "2.0",
		Checksum: manifest.DigestOf([]byte("2.0")), Targets: t, Reason: "tills freeze"}
	return b.sign(&o, k)
}

// ordered are the orders on a site's board, a person's and the seeder's own.
func (b *bed) ordered(site string) (out []uint64) {
	for _, e := range b.boards.site(site).entries {
		if e.Kind == wire.DocOrder || e.Kind == wire.DocBack {
			out = append(out, e.Revision)
		}
	}
	return out
}

// An order reaches the boards of the sites it may concern, connected nodes at once, and is there after a restart.
func TestOrdersReachTheirSites(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	b.site("s2")
	a := b.join("s1", "a", api.TokenSpec{})
	b.join("s2", "z", api.TokenSpec{Labels: map[string]string{"role": "kiosk"}})
	a.dial(b)
	next[*wire.Docs](a)
	for _, c := range []struct {
		what string
		s    trust.Signed
		code problem.Code
	}{
		{"one site", b.order(5, b.operator, order.Targets{Sites: []string{"s1"}}), ""},
		{"the same again", b.order(5, b.operator, order.Targets{Sites: []string{"s1"}}), ""},
		{"another with its sequence", b.order(5, b.operator, order.Targets{Sites: []string{"s2"}}), problem.AlreadyExists},
		{"an older sequence", b.order(4, b.operator, order.Targets{Sites: []string{"s1"}}), problem.AlreadyExists},
		{"a label", b.order(6, b.operator, order.Targets{Labels: map[string]string{"role": "pos"}}), ""},
		{"nobody", b.order(7, b.operator, order.Targets{Sites: []string{"s1"}, Nodes: []string{"z"}}), problem.NotFound},
		{"no such site", b.order(7, b.operator, order.Targets{Sites: []string{"s3"}}), problem.NotFound},
		{"another role's key", b.order(7, b.release, order.Targets{Sites: []string{"s1"}}), problem.SignatureInvalid},
		{"a stranger's key", b.order(7, key(t), order.Targets{Sites: []string{"s1"}}), problem.SignatureInvalid},
	} {
		info, err := b.admin.PutOrder(t.Context(), c.s)
		if c.code != "" {
			wantCode(t, c.what, err, c.code)
		} else if err != nil || info.Nodes != 1 {
			t.Errorf("%s: for %d nodes, %v", c.what, info.Nodes, err)
		}
	}
	log, err := b.db.AuditLog(t.Context(), 0, 100, true)
	if err != nil || !slices.ContainsFunc(log, func(a fleet.Audit) bool {
		return a.Subject == "order 5: rollback of app 2.0: tills freeze" && a.Status == 200
	}) {
		t.Errorf("%+v, %v", log, err)
	}
	for what, look := range map[string]func(){"now": func() {}, "after a restart": func() { b.stop(); b.run() }} {
		look()
		if s1, s2 := b.ordered("s1"), b.ordered("s2"); len(s1) != 2 || len(s2) != 1 || s2[0] != 6 {
			t.Errorf("%s: orders %v at s1, %v at s2", what, s1, s2)
		}
		list, err := b.admin.Orders(t.Context())
		if err != nil || len(list) != 2 || list[0].Order.Sequence != 5 || list[1].Order.Reason != "tills freeze" {
			t.Errorf("%s: %+v, %v", what, list, err)
		}
	}
	var seen []uint64
	for len(seen) < 2 { // a list came with each order
		seen = nil
		for _, e := range next[*wire.Docs](a).Entries {
			if e.Kind == wire.DocOrder {
				seen = append(seen, e.Revision)
			}
		}
	}
}

// The board holds the newest orders, however many were given.
func TestBoardOfManyOrders(t *testing.T) {
	var x orders
	for i := range uint64(order.MaxKept + 10) {
		s := standing{order: &order.Order{Sequence: i + 1, Targets: order.Targets{Sites: []string{"s1"}}}}
		s.Sequence = i + 1
		x.list = append(x.list, s)
	}
	if got := x.site("s1"); len(got) != order.MaxKept || got[0].Sequence != 11 {
		t.Errorf("%d orders from %d on", len(got), got[0].Sequence)
	}
	if got := x.site("s2"); len(got) != 0 {
		t.Errorf("%d orders of another site", len(got))
	}
}

// A report says more than this program knows of: it is kept as it was signed. One of an older node says less.
func TestReportsOfOtherVersions(t *testing.T) {
	b, _, a, c := published(t)
	a.dial(b)
	newer := c.report(1, nil)
	newer.Body = append(newer.Body[:len(newer.Body)-1], `,"invented":{"later":[1,2]}}`...)
	newer.Sig = ed25519.Sign(c.id, newer.Body)
	older := status.Report{Site: c.site, Node: c.name, Seq: 2,
		Body: []byte(`{"site":"s1","node":"c","seq":2,"occurred":"2026-11-21T10:00:00Z","phase":"Installed","outcome":"success","reason":"Installed","checksum":"sha256:` + "0000000000000000000000000000000000000000000000000000000000000000" + `"}`)}
	older.Sig = ed25519.Sign(c.id, older.Body)
	for _, r := range []status.Report{newer, older} {
		a.session.Send(&wire.Report{Report: r})
		if ack := next[*wire.ReportAck](a); ack.Seq != r.Seq {
			t.Fatalf("%+v", ack)
		}
	}
	p, err := b.admin.Reports(t.Context(), api.ReportQuery{Site: "s1", Node: "c", Newest: true, Limit: 2})
	if err != nil || len(p.Reports) != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	for i, want := range []status.Report{newer, older} {
		if got := p.Reports[i]; string(got.Signed.Body) != string(want.Body) || got.Body.Seq != want.Seq {
			t.Errorf("kept: %s", got.Signed.Body)
		}
	}
}

// The fleet counts why its nodes wait.
func TestFleetReasons(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	for name, reason := range map[string]string{"a": "WindowClosed", "b": "WindowClosed", "c": "LowDisk"} {
		st := b.join("s1", name, api.TokenSpec{})
		b.presence.said(st.peerID(), status.Node{Site: "s1", Node: name, PeerID: st.peerID(), Seq: 1, Phase: status.Deferred, Reason: reason}, b.now())
	}
	b.join("s1", "d", api.TokenSpec{})
	f, err := b.admin.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(f.Reasons)
	if want := `{"Deferred":{"LowDisk":1,"WindowClosed":2}}`; string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
	if l := f.Sites[0].Nodes[0].Labels; l["role"] != "pos" {
		t.Errorf("labels %v", l)
	}
}
