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

// AddReports records reports in one transaction, and those that are receipts as such. Each (peer, sequence) is kept once: the first one stays. When it
// returns nil every one of them is durable. conflicts lists those whose number is taken by a report that says
// something else.
func (s *Store) AddReports(ctx context.Context, rs []Report) (conflicts []Report, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		conflicts = nil
		st, err := tx.PrepareContext(ctx, `INSERT INTO reports (peer, site, node, seq, recorded, body, sig) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (peer, seq) DO NOTHING`)
		if err != nil {
			return err
		}
		defer st.Close()
		receipts, err := tx.PrepareContext(ctx, insertReceipt)
		if err != nil {
			return err
		}
		defer receipts.Close()
		for _, r := range rs {
			res, err := st.ExecContext(ctx, r.Peer, r.Site, r.Node, int64(r.Seq), stamp(r.Recorded), r.Body, r.Sig)
			if err != nil {
				return err
			}
			n, err := res.RowsAffected()
			if err != nil {
				return err
			}
			if n > 0 {
				if err := addReceipt(ctx, receipts, r); err != nil {
					return err
				}
				continue
			}
			var body []byte
			if err := tx.QueryRowContext(ctx, `SELECT body FROM reports WHERE peer = ? AND seq = ?`, r.Peer, int64(r.Seq)).Scan(&body); err != nil {
				return err
			}
			if !bytes.Equal(body, r.Body) {
				conflicts = append(conflicts, r)
			}
		}
		return nil
	})
	return conflicts, err
}

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
