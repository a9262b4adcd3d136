package fleet

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/patchmesh/patchmesh/internal/status"
)

// Report is a report whose signature was verified with the key of Peer.
type Report struct {
	ID       int64
	Peer     string
	Recorded time.Time
	status.Report
}

// AddReports records reports in one transaction, and those that are receipts as such. Each (peer, sequence) is kept once: the
// first one stays. When it returns nil every one of them is durable. conflicts lists those whose number is taken by a report
// that says something else.
func (s *Store) AddReports(ctx context.Context, rs []Report) (conflicts []Report, err error) {
	type number struct {
		peer string
		seq  int64
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		conflicts = nil
		first := map[number]int{} // of the numbers among them
		var rows [][]any
		for i, r := range rs {
			if n := (number{r.Peer, int64(r.Seq)}); !has(first, n) {
				first[n] = i
				rows = append(rows, []any{r.Peer, r.Site, r.Node, n.seq, stamp(r.Recorded), r.Body, r.Sig})
			}
		}
		added := map[number]bool{}
		if err := insertRows(ctx, tx, `INSERT INTO reports (peer, site, node, seq, recorded, body, sig) VALUES `, ` ON CONFLICT (peer, seq) DO NOTHING RETURNING peer, seq`,
			rows, func(scan func(...any) error) error {
				var n number
				err := scan(&n.peer, &n.seq)
				added[n] = true
				return err
			}); err != nil {
			return err
		}
		var receipts [][]any
		for i, r := range rs {
			n := number{r.Peer, int64(r.Seq)}
			if first[n] == i && added[n] {
				if row := receiptRow(r); row != nil {
					receipts = append(receipts, row)
				}
				continue
			}
			var body []byte
			if err := tx.QueryRowContext(ctx, `SELECT body FROM reports WHERE peer = ? AND seq = ?`, n.peer, n.seq).Scan(&body); err != nil {
				return err
			}
			if !bytes.Equal(body, r.Body) {
				conflicts = append(conflicts, r)
			}
		}
		return insertRows(ctx, tx, insertReceipts, ` ON CONFLICT (peer, seq) DO NOTHING RETURNING id`, receipts, func(scan func(...any) error) error {
			var id int64
			return scan(&id)
		})
	})
	return conflicts, err
}

func has[K comparable, V any](m map[K]V, k K) bool { _, ok := m[k]; return ok }

// Query selects reports. Empty strings select all sites and nodes.
type Query struct {
	Site, Node string
	After      int64 // ID: only later ones
	Limit      int   // at least 1
	Newest     bool  // of more than Limit the newest, not the oldest
}

// place is the condition on a place, of the arguments ?2 and ?3. It says no more than is asked for, so that an index serves.
func (q Query) place(site, node string) string {
	s, n := `?2 = ''`, `?3 = ''`
	if q.Site != "" {
		s = site + ` = ?2`
	}
	if q.Node != "" {
		n = node + ` = ?3`
	}
	return s + ` AND ` + n
}

// Reports returns what a query selects, in the order in which it was recorded.
func (s *Store) Reports(ctx context.Context, q Query) (out []Report, err error) {
	if q.Limit < 1 {
		return nil, errors.New("reports: limit must be at least 1")
	}
	order := "id"
	if q.Newest {
		order = "id DESC"
	}
	err = each(ctx, s.r, func(scan func(...any) error) error {
		var r Report
		var seq, recorded int64
		err := scan(&r.ID, &r.Peer, &r.Site, &r.Node, &seq, &recorded, &r.Body, &r.Sig)
		r.Seq, r.Recorded = uint64(seq), unstamp(recorded)
		out = append(out, r)
		return err
	}, `SELECT id, peer, site, node, seq, recorded, body, sig FROM reports
		WHERE id > ?1 AND `+q.place("site", "node")+` ORDER BY `+order+` LIMIT ?4`, q.After, q.Site, q.Node, q.Limit)
	if q.Newest {
		slices.Reverse(out)
	}
	return out, err
}
