package fleet

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"github.com/patchmesh/patchmesh/internal/status"
)

// Statement is a node's newest statement about itself and when something was last heard from it.
type Statement struct {
	Peer string
	Seen time.Time
	Node status.Node
}

// PutStatements records statements in one transaction, each in place of its node's last one.
func (s *Store) PutStatements(ctx context.Context, list []Statement) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		st, err := tx.PrepareContext(ctx, `INSERT INTO statements VALUES (?, ?, ?, ?)
			ON CONFLICT (peer) DO UPDATE SET seq = excluded.seq, seen = excluded.seen, body = excluded.body`)
		if err != nil {
			return err
		}
		defer st.Close()
		for _, x := range list {
			body, err := json.Marshal(x.Node)
			if err != nil {
				return err
			}
			if _, err := st.ExecContext(ctx, x.Peer, int64(x.Node.Seq), stamp(x.Seen), body); err != nil {
				return err
			}
			if err := spell(ctx, tx, x.Peer, x.Seen); err != nil {
				return err
			}
		}
		return nil
	})
}

// Statements returns the newest statement of every node that made one.
func (s *Store) Statements(ctx context.Context) (out []Statement, err error) {
	err = each(ctx, s.r, func(scan func(...any) error) error {
		var x Statement
		var seen int64
		var body []byte
		if err := scan(&x.Peer, &seen, &body); err != nil {
			return err
		}
		x.Seen = unstamp(seen)
		out = append(out, x)
		return json.Unmarshal(body, &out[len(out)-1].Node)
	}, `SELECT peer, seen, body FROM statements`)
	return out, err
}
