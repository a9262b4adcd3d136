package fleet

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
)

var then = time.Unix(1_800_000_000, 0).UTC()

func testAccessAndAudit(t *testing.T, db engine) {
	s := open(t, db.fresh(t))
	ctx := t.Context()
	a := Access{Name: "alice", Role: "operator", By: "admin", Hash: sha256.Sum256([]byte("x")), Created: then, Expires: then.Add(time.Hour)}
	if err := s.PutAccess(ctx, a); err != nil {
		t.Fatal(err)
	}
	if err := s.PutAccess(ctx, a); problem.CodeOf(err) != problem.NameTaken {
		t.Error(err)
	}
	if err := s.UsedAccess(ctx, map[string]time.Time{"alice": then.Add(time.Minute), "nobody": then}); err != nil {
		t.Error(err)
	}
	for i := range 2 {
		if err := s.RevokeAccess(ctx, "alice", then.Add(time.Duration(i+2)*time.Minute)); err != nil {
			t.Error(err)
		}
	}
	if err := s.RevokeAccess(ctx, "nobody", then); problem.CodeOf(err) != problem.NotFound {
		t.Error(err)
	}
	a.LastUsed, a.Revoked = then.Add(time.Minute), then.Add(2*time.Minute)
	if l, err := s.AccessList(ctx); err != nil || len(l) != 1 || l[0] != a {
		t.Errorf("%+v, %v", l, err)
	}
	for i := range 5 {
		id, err := s.AddAudit(ctx, Audit{At: then, Who: "alice", Action: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		for _, status := range []int{200, 500} { // the first end stays
			if err := s.EndAudit(ctx, id, status, "s1", "well"); err != nil {
				t.Fatal(err)
			}
		}
	}
	l, err := s.AuditLog(ctx, 0, 2, true)
	if err != nil || len(l) != 2 || l[0].Action != "3" || l[1].Action != "4" || l[1].Status != 200 || l[1].Subject != "s1" || l[1].Detail != "well" || !l[1].At.Equal(then) {
		t.Errorf("%+v, %v", l, err)
	}
	if l, err = s.AuditLog(ctx, l[0].ID, 9, false); err != nil || len(l) != 1 || l[0].Action != "4" {
		t.Errorf("%+v, %v", l, err)
	}
}

func testAnswers(t *testing.T, db engine) {
	s := open(t, db.fresh(t))
	ctx := t.Context()
	a := Answer{Who: "alice", Key: "k", Request: sha256.Sum256([]byte("r")), At: then, Status: 204}
	if err := s.PutAnswer(ctx, a, then.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got, ok, err := s.Answer(ctx, "alice", "k", then); err != nil || !ok || got.Status != 204 || got.Request != a.Request || len(got.Body) != 0 {
		t.Errorf("%+v %v, %v", got, ok, err)
	}
	for _, q := range []struct {
		who, key string
		after    time.Time
	}{{"bob", "k", then}, {"alice", "l", then}, {"alice", "k", then.Add(time.Second)}} {
		if _, ok, err := s.Answer(ctx, q.who, q.key, q.after); ok || err != nil {
			t.Errorf("%+v: %v, %v", q, ok, err)
		}
	}
	a.At = then.Add(time.Hour)
	if err := s.PutAnswer(ctx, a, then.Add(time.Minute)); err != nil { // the old one is gone by then
		t.Error(err)
	}
}

func testLetters(t *testing.T, db engine) {
	s := open(t, db.fresh(t))
	ctx := t.Context()
	for _, name := range []string{"a", "b"} {
		if err := s.PutWebhook(ctx, Webhook{Name: name, URL: "https://h/", Format: "patchmesh", Secret: "secret", Created: then}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutWebhook(ctx, Webhook{Name: "a", Created: then}); problem.CodeOf(err) != problem.NameTaken {
		t.Error(err)
	}
	if n, err := s.PostLetters(ctx, []Letter{{Webhook: "a", Event: "1", At: then, Due: then}, {Webhook: "gone", Event: "x", At: then, Due: then}, {Webhook: "a", Event: "2", At: then, Due: then}, {Webhook: "b", Event: "3", At: then, Due: then}}); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	l, err := s.NextLetters(ctx, "a", 9)
	if err != nil || len(l) != 2 || l[0].Event != "1" || !l[0].Due.Equal(then) {
		t.Fatalf("%+v, %v", l, err)
	}
	l[0].Tries, l[0].Error, l[0].Due = 3, "500", then.Add(time.Hour)
	if err := s.NotDelivered(ctx, l[0], true, then); err != nil {
		t.Error(err)
	}
	if err := s.Delivered(ctx, l[1], then.Add(time.Minute)); err != nil {
		t.Error(err)
	}
	if dead, err := s.DeadLetters(ctx, "a", 0, 9); err != nil || len(dead) != 1 || dead[0].Tries != 3 || dead[0].Error != "500" {
		t.Errorf("%+v, %v", dead, err)
	}
	h, err := s.Webhooks(ctx)
	if err != nil || len(h) != 2 || h[0].Delivered != 1 || h[0].Waiting != 0 || h[0].Dead != 1 || !h[0].LastTry.Equal(then.Add(time.Minute)) || h[1].Waiting != 1 || !h[1].LastTry.IsZero() {
		t.Errorf("%+v, %v", h, err)
	}
	if err := s.RemoveWebhook(ctx, "a"); err != nil {
		t.Error(err)
	}
	if err := s.RemoveWebhook(ctx, "a"); problem.CodeOf(err) != problem.NotFound {
		t.Error(err)
	}
}

func testQuarantine(t *testing.T, db engine) {
	s := open(t, db.fresh(t))
	ctx := t.Context()
	q := Quarantine{Scope: "node", Site: "s1", Node: "n1", Reason: "bad", Code: "E2103", By: "node", Evidence: "report 1", Ends: "release", Since: then}
	put := func(q Quarantine, found, want bool) Quarantine {
		t.Helper()
		out, added, err := s.PutQuarantine(ctx, q, found)
		if err != nil || added != want {
			t.Fatalf("%+v %v, %v", out, added, err)
		}
		return out
	}
	first := put(q, true, true)
	put(q, true, false)
	put(q, false, false)
	source := q
	source.Scope = "source"
	put(source, true, true)
	for _, who := range []string{"alice", "bob"} { // the first stays
		out, err := s.ReleaseQuarantine(ctx, first.ID, who, "well again", then.Add(time.Hour))
		if err != nil || out.ReleasedBy != "alice" || out.Why != "well again" || !out.Released.Equal(then.Add(time.Hour)) {
			t.Errorf("%+v, %v", out, err)
		}
	}
	if _, err := s.ReleaseQuarantine(ctx, 999, "x", "y", then); problem.CodeOf(err) != problem.NotFound {
		t.Error(err)
	}
	put(q, true, false) // it was known when it was released
	q.Since = then.Add(2 * time.Hour)
	put(q, true, true)
	if l, err := s.Quarantines(ctx, false); err != nil || len(l) != 2 || !l[0].Since.Equal(q.Since) {
		t.Errorf("%+v, %v", l, err)
	}
	if l, err := s.Quarantines(ctx, true); err != nil || len(l) != 3 {
		t.Errorf("%+v, %v", l, err)
	}
	if x, err := s.Quarantine(ctx, first.ID); err != nil || x.Evidence != "report 1" {
		t.Errorf("%+v, %v", x, err)
	}
	if _, ok, err := s.Cursor(ctx, "x"); ok || err != nil {
		t.Error(ok, err)
	}
	for _, n := range []int64{5, 7} {
		if err := s.PutCursor(ctx, "x", n); err != nil {
			t.Error(err)
		}
		if at, ok, err := s.Cursor(ctx, "x"); at != n || !ok || err != nil {
			t.Error(at, ok, err)
		}
	}
}
