package fleet

import (
	"bytes"
	"context"
	"database/sql"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Order is an operator's signed order.
type Order struct {
	Sequence uint64
	Document trust.Signed
	Recorded time.Time
}

// PutOrder records an order. The same document again is no error and added is false; a sequence that is not above the
// last one is refused.
func (s *Store) PutOrder(ctx context.Context, o Order) (added bool, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		last, err := readOrders(ctx, tx, 1)
		if err != nil {
			return err
		}
		if len(last) > 0 && last[0].Sequence >= o.Sequence {
			if last[0].Sequence == o.Sequence && bytes.Equal(last[0].Document.Doc, o.Document.Doc) {
				return nil
			}
			return problem.New(problem.AlreadyExists, "the last order has the sequence %d, this one has %d", last[0].Sequence, o.Sequence).
				WithDone("it was not given to any node").WithNext("give the order again: it gets the next sequence")
		}
		added = true
		_, err = tx.ExecContext(ctx, `INSERT INTO orders VALUES (?, ?, ?, ?)`, int64(o.Sequence), o.Document.Doc, o.Document.Sig, stamp(o.Recorded))
		return err
	})
	return added, err
}

// Orders returns at most limit orders, the newest first.
func (s *Store) Orders(ctx context.Context, limit int) ([]Order, error) {
	return readOrders(ctx, s.r, limit)
}

func readOrders(ctx context.Context, q querier, limit int) (out []Order, err error) {
	err = each(ctx, q, func(scan func(...any) error) error {
		var o Order
		var seq, recorded int64
		err := scan(&seq, &o.Document.Doc, &o.Document.Sig, &recorded)
		o.Sequence, o.Recorded = uint64(seq), unstamp(recorded)
		out = append(out, o)
		return err
	}, `SELECT sequence, doc, sig, recorded FROM orders ORDER BY sequence DESC LIMIT ?`, limit)
	return out, err
}
