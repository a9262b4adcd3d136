package fleet

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/status"
)

// Receipt is what compliance asks of a receipt; its report has the rest.
type Receipt struct {
	Hash     manifest.Digest
	Number   uint64
	Previous *manifest.Digest
	Bundle   string
	Version  string           // in force after; empty: nothing
	Checksum *manifest.Digest // of Version
	Policy   string
	Revision uint64
	Commit   string
	Snapshot string
	Outcome  string
	Reason   string
	Occurred time.Time // when it ended by the node's corrected clock, and never after it was recorded
	Recorded time.Time
}

const insertReceipts = `INSERT INTO receipts (hash, peer, seq, site, node, number, previous, bundle, version, checksum, policy, revision, git,
	snapshot, outcome, reason, occurred, recorded) VALUES `

// receiptRow is a report once more, in columns, if it is a receipt; nil if it is none.
func receiptRow(r Report) []any {
	if !bytes.Contains(r.Body, []byte(`"receipt"`)) { // most are none: they are not decoded
		return nil
	}
	l, err := status.NewLink(r.Report)
	if err != nil || l.Body.Receipt.Number > math.MaxInt64 || l.Body.Revision > math.MaxInt64 {
		return nil // a report all the same
	}
	b, c := l.Body, l.Body.Receipt
	var previous, checksum []byte
	if c.Previous != nil {
		previous = c.Previous[:]
	}
	version := ""
	if c.Now != nil {
		version, checksum = c.Now.Version, c.Now.Checksum[:]
	}
	occurred := c.Ended
	if occurred.IsZero() {
		occurred = b.Occurred
	}
	if occurred.After(r.Recorded) { // by a clock that was ahead
		occurred = r.Recorded
	}
	return []any{l.Hash[:], r.Peer, int64(r.Seq), r.Site, r.Node, int64(c.Number), previous, b.Bundle, version, checksum,
		b.Policy, int64(b.Revision), c.Commit, b.Snapshot, b.Outcome, b.Reason, stamp(occurred), stamp(r.Recorded)}
}

// Chains returns what was known at a time of the receipts of node keys, each key's in the order of their numbers, by one
// query.
func (s *Store) Chains(ctx context.Context, peers []string, known time.Time) (map[string][]Receipt, error) {
	out := map[string][]Receipt{}
	if len(peers) == 0 {
		return out, nil
	}
	marks, args := oneOf(peers)
	err := each(ctx, s.r, func(scan func(...any) error) error {
		var r Receipt
		var peer string
		var number, revision, occurred, recorded int64
		var hash, previous, checksum []byte
		if err := scan(&peer, &hash, &number, &previous, &r.Bundle, &r.Version, &checksum, &r.Policy, &revision, &r.Commit, &r.Snapshot, &r.Outcome, &r.Reason,
			&occurred, &recorded); err != nil {
			return err
		}
		h, err := digestColumn(hash)
		if err != nil || h == nil {
			return errors.Join(err, errors.New("receipt without a name"))
		}
		r.Hash, r.Number, r.Revision, r.Occurred, r.Recorded = *h, uint64(number), uint64(revision), unstamp(occurred), unstamp(recorded)
		if r.Previous, err = digestColumn(previous); err != nil {
			return err
		}
		r.Checksum, err = digestColumn(checksum)
		out[peer] = append(out[peer], r)
		return err
	}, `SELECT peer, hash, number, previous, bundle, version, checksum, policy, revision, git, snapshot, outcome, reason, occurred, recorded
		FROM receipts WHERE peer IN (`+marks+`) AND recorded <= ? ORDER BY peer, number, id`, append(args, stamp(known))...)
	if err != nil {
		err = fmt.Errorf("receipts of %d nodes: %w", len(peers), err)
	}
	return out, err
}

// oneOf is a list for IN. Its length is a power of two, the last value repeated, so that there are few texts to prepare.
func oneOf(list []string) (marks string, args []any) {
	n := 1
	for n < len(list) {
		n *= 2
	}
	for i := range n {
		args = append(args, list[min(i, len(list)-1)])
	}
	return strings.Repeat("?, ", n-1) + "?", args
}

func digestColumn(b []byte) (*manifest.Digest, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if len(b) != len(manifest.Digest{}) {
		return nil, errors.New("a digest of the wrong length")
	}
	d := manifest.Digest(b)
	return &d, nil
}

// SignedReceipt is a receipt as it was signed.
type SignedReceipt struct {
	ID   int64
	Hash manifest.Digest
	Report
}

// Receipts returns receipts as they were signed, in the order in which they were recorded. Newest is not looked at.
func (s *Store) Receipts(ctx context.Context, q Query) (out []SignedReceipt, err error) {
	if q.Limit < 1 {
		return nil, errors.New("receipts: limit must be at least 1")
	}
	err = each(ctx, s.r, func(scan func(...any) error) error {
		var r SignedReceipt
		var hash []byte
		var seq, recorded int64
		if err := scan(&r.ID, &hash, &r.Peer, &recorded, &r.Site, &r.Node, &seq, &r.Body, &r.Sig); err != nil {
			return err
		}
		h, err := digestColumn(hash)
		if err != nil || h == nil {
			return errors.Join(err, errors.New("receipt without a name"))
		}
		r.Hash, r.Recorded, r.Seq, r.Report.ID = *h, unstamp(recorded), uint64(seq), r.ID
		out = append(out, r)
		return nil
	}, `SELECT c.id, c.hash, c.peer, r.recorded, r.site, r.node, r.seq, r.body, r.sig FROM receipts c JOIN reports r ON r.peer = c.peer AND r.seq = c.seq
		WHERE c.id > ?1 AND `+q.place("c.site", "c.node")+` ORDER BY c.id LIMIT ?4`, q.After, q.Site, q.Node, q.Limit)
	return out, err
}

// RostersAt returns the rosters that were in force at a time, of at most limit sites, in the order of their names, from a
// name on. A site that was not there yet has none.
func (s *Store) RostersAt(ctx context.Context, from string, limit int, at time.Time) (out []roster.Roster, err error) {
	rows, err := s.r.QueryContext(ctx, `SELECT site, doc FROM rosters WHERE site >= ? ORDER BY site, version DESC`, from)
	if err != nil {
		return nil, mapError(err)
	}
	defer rows.Close()
	for len(out) < limit && rows.Next() { // of each site the newest that is not too new: mostly the first one
		var site string
		var doc []byte
		if err := rows.Scan(&site, &doc); err != nil {
			return nil, err
		}
		if n := len(out); n > 0 && out[n-1].Site == site {
			continue
		}
		var when struct {
			Created time.Time `json:"created"`
		}
		if err := json.Unmarshal(doc, &when); err != nil {
			return nil, fmt.Errorf("roster of %s: %w", site, err)
		}
		if when.Created.After(at) {
			continue
		}
		var r roster.Roster
		if err := json.Unmarshal(doc, &r); err != nil {
			return nil, fmt.Errorf("roster of %s: %w", site, err)
		}
		r.Site = site
		out = append(out, r)
	}
	return out, mapError(rows.Err())
}

// PolicyAt returns the newest revision of a policy that was recorded at a time, nil when there was none; PolicyRevision
// returns one by its number.
func (s *Store) PolicyAt(ctx context.Context, name string, at time.Time) (*Policy, error) {
	return s.policy(ctx, `name = ? AND recorded <= ? ORDER BY revision DESC LIMIT 1`, name, stamp(at))
}

// PolicyRevision returns a revision of a policy, nil when it is not known.
func (s *Store) PolicyRevision(ctx context.Context, name string, revision uint64) (*Policy, error) {
	return s.policy(ctx, `name = ? AND revision = ?`, name, int64(min(revision, math.MaxInt64)))
}

func (s *Store) policy(ctx context.Context, where string, args ...any) (*Policy, error) {
	var p Policy
	var rev, recorded int64
	err := s.r.QueryRowContext(ctx, `SELECT name, revision, doc, sig, recorded FROM policies WHERE `+where, args...).
		Scan(&p.Name, &rev, &p.Document.Doc, &p.Document.Sig, &recorded)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	p.Revision, p.Recorded = uint64(rev), unstamp(recorded)
	return &p, mapError(err)
}

// Unsigned is what a script says that has no key to sign with.
type Unsigned struct {
	Host     string
	Bundle   string
	Outcome  string
	Recorded time.Time
}

// AddUnsigned records what a script says.
func (s *Store) AddUnsigned(ctx context.Context, u Unsigned) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO unsigned (host, bundle, outcome, recorded) VALUES (?, ?, ?, ?)`, u.Host, u.Bundle, u.Outcome, stamp(u.Recorded))
		return err
	})
}

// UnsignedAt returns what was last said at a time of each host and bundle after the given ones, in that order.
func (s *Store) UnsignedAt(ctx context.Context, at time.Time, host, bundle string, limit int) (out []Unsigned, err error) {
	err = each(ctx, s.r, func(scan func(...any) error) error {
		var u Unsigned
		var recorded int64
		err := scan(&u.Host, &u.Bundle, &u.Outcome, &recorded)
		u.Recorded = unstamp(recorded)
		out = append(out, u)
		return err
	}, `SELECT host, bundle, outcome, recorded FROM unsigned WHERE id IN (SELECT max(id) FROM unsigned WHERE recorded <= ?1 GROUP BY host, bundle)
		AND (host > ?2 OR host = ?2 AND bundle > ?3) ORDER BY host, bundle LIMIT ?4`, stamp(at), host, bundle, limit)
	return out, err
}
