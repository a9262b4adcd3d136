package fleet

import (
	"fmt"
	"testing"
	"time"
)

func testPrune(t *testing.T, db engine) {
	s := open(t, db.fresh(t))
	ctx := t.Context()
	if err := s.PutWebhook(ctx, Webhook{Name: "h", URL: "https://h/", Format: "patchmesh", Secret: "secret", Created: then}); err != nil {
		t.Fatal(err)
	}
	const days = 20
	day := func(n int) time.Time { return then.AddDate(0, 0, n) }
	for i := range days {
		for _, status := range []int{0, 200, 401, 403, 404} {
			if _, err := s.AddAudit(ctx, Audit{At: day(i), Action: fmt.Sprint(i), Status: status}); err != nil {
				t.Fatal(err)
			}
		}
		q, _, err := s.PutQuarantine(ctx, Quarantine{Scope: "node", Site: "s1", Node: "n1", Since: day(i)}, false)
		if err != nil {
			t.Fatal(err)
		}
		if i < days-1 {
			if _, err := s.ReleaseQuarantine(ctx, q.ID, "alice", "why", day(i)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.PostLetters(ctx, []Letter{{Webhook: "h", Event: "1", At: day(i), Due: day(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	waiting, err := s.NextLetters(ctx, "h", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range waiting[1:] { // the oldest still waits
		if err := s.NotDelivered(ctx, l, true, l.At); err != nil {
			t.Fatal(err)
		}
	}
	left := func() string {
		t.Helper()
		var out string
		for _, q := range []string{`SELECT count(*) FROM audit WHERE NOT ` + refused, `SELECT count(*) FROM audit WHERE ` + refused,
			`SELECT count(*) FROM letters WHERE dead = 1`, `SELECT count(*) FROM letters WHERE dead = 0`, `SELECT count(*) FROM quarantine`} {
			var n int
			if err := s.r.QueryRowContext(ctx, q).Scan(&n); err != nil {
				t.Fatal(err)
			}
			out += fmt.Sprint(n, " ")
		}
		return out
	}
	all := Bounds{MaxRefusals: 1000}
	if n, err := s.Prune(ctx, all, 7); n != 0 || err != nil || left() != "60 40 19 1 20 " {
		t.Errorf("nothing is old: %d dropped, left %s, %v", n, left(), err)
	}
	b := Bounds{Audit: day(4), Refusals: day(10), MaxRefusals: 1000, Dead: day(5), Released: day(6)}
	rounds := 0
	for {
		n, err := s.Prune(ctx, b, 7)
		if err != nil || n > 7 {
			t.Fatal(n, err)
		}
		if rounds++; n < 7 {
			break
		}
	}
	if got := left(); got != "48 20 15 1 14 " || rounds < 3 {
		t.Errorf("left %s after %d rounds", got, rounds)
	}
	b.MaxRefusals = 3
	for n := 7; n == 7; {
		if n, err = s.Prune(ctx, b, 7); err != nil {
			t.Fatal(err)
		}
	}
	if got := left(); got != "48 3 15 1 14 " {
		t.Errorf("left %s", got)
	}
	if l, err := s.AuditLog(ctx, 0, 1000, false); err != nil || l[len(l)-1].Action != fmt.Sprint(days-1) || l[0].Action != "4" {
		t.Errorf("%+v, %v", l, err)
	}
	if q, err := s.Quarantines(ctx, false); err != nil || len(q) != 1 {
		t.Errorf("who is under quarantine stays: %+v, %v", q, err)
	}
}
