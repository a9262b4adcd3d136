package fleet

import (
	"context"
	"database/sql"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// Webhook is where events are sent. Its secret is kept as it is: it signs.
type Webhook struct {
	Name, URL, Events, Format, Secret, LastError string
	Created, LastTry                             time.Time
	Delivered                                    int64
	Waiting, Dead                                int // letters
}

// Letter is an event on its way to a webhook. A dead one is not tried again.
type Letter struct {
	ID      int64
	Webhook string
	Event   string // as JSON
	At, Due time.Time
	Tries   int
	Error   string
}

// Limits of webhooks and of what waits for one. Beyond MaxLetters a webhook's events are dropped, and it says so; of the
// dead the newest are kept.
const (
	MaxWebhooks = 32
	MaxLetters  = 10_000
	maxDead     = 1000
)

// PutWebhook adds a webhook.
func (s *Store) PutWebhook(ctx context.Context, h Webhook) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		var same, all int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM webhooks WHERE name = ?`, h.Name).Scan(&same); err != nil {
			return err
		}
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM webhooks`).Scan(&all); err != nil {
			return err
		}
		switch {
		case same > 0:
			return problem.New(problem.NameTaken, "there is a webhook %s", h.Name).WithDone("nothing was changed").WithNext("choose another name, or remove that one first")
		case all >= MaxWebhooks:
			return problem.New(problem.QuotaExceeded, "there are %d webhooks, as many as are served", all)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO webhooks (name, url, events, format, secret, created, delivered, last_error) VALUES (?, ?, ?, ?, ?, ?, 0, '')`,
			h.Name, h.URL, h.Events, h.Format, h.Secret, stamp(h.Created))
		return err
	})
}

// RemoveWebhook removes a webhook and all that waits for it.
func (s *Store) RemoveWebhook(ctx context.Context, name string) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM letters WHERE webhook = ?`, name); err != nil {
			return err
		}
		r, err := tx.ExecContext(ctx, `DELETE FROM webhooks WHERE name = ?`, name)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return problem.New(problem.NotFound, "there is no webhook %.80q", name).WithNext("meshctl webhook list")
	})
}

// Webhooks returns all webhooks by name.
func (s *Store) Webhooks(ctx context.Context) (out []Webhook, err error) {
	err = each(ctx, s.r, func(scan func(...any) error) error {
		var h Webhook
		var created int64
		var last sql.NullInt64
		err := scan(&h.Name, &h.URL, &h.Events, &h.Format, &h.Secret, &created, &h.Delivered, &h.LastError, &last, &h.Waiting, &h.Dead)
		h.Created, h.LastTry = unstamp(created), known(last)
		out = append(out, h)
		return err
	}, `SELECT name, url, events, format, secret, created, delivered, last_error, last_try,
		(SELECT count(*) FROM letters l WHERE l.webhook = w.name AND l.dead = 0), (SELECT count(*) FROM letters l WHERE l.webhook = w.name AND l.dead = 1)
		FROM webhooks w ORDER BY name`)
	return out, err
}

// PostLetters queues events for webhooks, in one transaction, and returns how many did not fit.
func (s *Store) PostLetters(ctx context.Context, list []Letter) (dropped int, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		dropped = 0
		room := map[string]int{} // of each webhook that is there
		err := each(ctx, tx, func(scan func(...any) error) error {
			var name string
			var waiting int
			err := scan(&name, &waiting)
			room[name] = MaxLetters - waiting
			return err
		}, `SELECT name, (SELECT count(*) FROM letters l WHERE l.webhook = w.name AND l.dead = 0) FROM webhooks w`)
		if err != nil {
			return err
		}
		for _, l := range list {
			n, ok := room[l.Webhook]
			if !ok { // removed meanwhile
				continue
			}
			if n <= 0 {
				dropped++
				continue
			}
			room[l.Webhook]--
			if _, err := tx.ExecContext(ctx, `INSERT INTO letters (webhook, event, at, tries, due, error, dead) VALUES (?, ?, ?, 0, ?, '', 0)`,
				l.Webhook, l.Event, stamp(l.At), stamp(l.Due)); err != nil {
				return err
			}
		}
		return nil
	})
	return dropped, err
}

// NextLetters returns the oldest letters of a webhook that wait.
func (s *Store) NextLetters(ctx context.Context, webhook string, limit int) ([]Letter, error) {
	return readLetters(ctx, s.r, `webhook = ? AND dead = 0 ORDER BY id LIMIT ?`, webhook, limit)
}

// DeadLetters returns dead letters of a webhook after a number.
func (s *Store) DeadLetters(ctx context.Context, webhook string, after int64, limit int) ([]Letter, error) {
	return readLetters(ctx, s.r, `webhook = ? AND dead = 1 AND id > ? ORDER BY id LIMIT ?`, webhook, after, limit)
}

func readLetters(ctx context.Context, q querier, where string, args ...any) (out []Letter, err error) {
	err = each(ctx, q, func(scan func(...any) error) error {
		var l Letter
		var at, due int64
		err := scan(&l.ID, &l.Webhook, &l.Event, &at, &l.Tries, &due, &l.Error)
		l.At, l.Due = unstamp(at), unstamp(due)
		out = append(out, l)
		return err
	}, `SELECT id, webhook, event, at, tries, due, error FROM letters WHERE `+where, args...)
	return out, err
}

// Delivered takes a letter that arrived out of the queue.
func (s *Store) Delivered(ctx context.Context, l Letter, now time.Time) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM letters WHERE id = ?`, l.ID); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE webhooks SET delivered = delivered + 1, last_error = '', last_try = ? WHERE name = ?`, stamp(now), l.Webhook)
		return err
	})
}

// NotDelivered records why a letter did not arrive, and when it is tried again, or that it is dead.
func (s *Store) NotDelivered(ctx context.Context, l Letter, dead bool, now time.Time) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		n := 0
		if dead {
			n = 1
		}
		if _, err := tx.ExecContext(ctx, `UPDATE letters SET tries = ?, due = ?, error = ?, dead = ? WHERE id = ?`, l.Tries, stamp(l.Due), l.Error, n, l.ID); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE webhooks SET last_error = ?, last_try = ? WHERE name = ?`, l.Error, stamp(now), l.Webhook); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM letters WHERE webhook = ? AND dead = 1 AND id NOT IN
			(SELECT id FROM letters WHERE webhook = ? AND dead = 1 ORDER BY id DESC LIMIT ?)`, l.Webhook, l.Webhook, maxDead)
		return err
	})
}
