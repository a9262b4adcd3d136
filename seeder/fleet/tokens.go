package fleet

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Token is a join token as it is kept: the secret itself is not.
type Token struct {
	Site    string
	Labels  map[string]string
	WAN     roster.WAN
	Expires time.Time
}

// CreateToken records a token by the sha256 of its secret.
func (s *Store) CreateToken(ctx context.Context, secret string, t Token) error {
	labels, err := json.Marshal(t.Labels)
	if err != nil {
		return err
	}
	hash := sha256.Sum256([]byte(secret))
	return s.write(ctx, func(tx *sql.Tx) error {
		if _, err := readSite(ctx, tx, t.Site); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO tokens VALUES (?, ?, ?, ?, ?, NULL, NULL)`,
			hash[:], t.Site, string(labels), string(t.WAN), stamp(t.Expires))
		return err
	})
}

// Redeemed is what a token bought.
type Redeemed struct {
	Site   Site
	Node   string
	Peer   string
	Roster trust.Signed
	Again  bool // an answer that was given before is given again; nothing changed
}

// Redeem enrols a node, in one transaction: of many requests with one secret one wins. The same node with the same token
// gets its enrolment again, as its first answer may have been lost. The request's form and proof are the caller's to check.
func (s *Store) Redeem(ctx context.Context, q enrol.Request, now time.Time) (out Redeemed, err error) {
	refuse := func(why string) error {
		return problem.New(problem.TokenInvalid, "the join token %s", why).WithDone("nothing was enrolled").
			WithNext("ask for a new one: meshctl site token SITE")
	}
	hash := sha256.Sum256([]byte(q.Secret))
	err = s.write(ctx, func(tx *sql.Tx) error {
		var site, labels, wan string
		var expires int64
		var usedPeer, usedName sql.NullString
		err := tx.QueryRowContext(ctx, `SELECT site, labels, wan, expires, used_by_peer, used_by_name FROM tokens WHERE hash = ?`, hash[:]).
			Scan(&site, &labels, &wan, &expires, &usedPeer, &usedName)
		if errors.Is(err, sql.ErrNoRows) {
			return refuse("is not known here")
		}
		if err != nil {
			return err
		}
		live, err := readNodes(ctx, tx, `removed IS NULL AND (peer = ? OR site = ? AND name = ?)`, q.PeerID, site, q.Name)
		if err != nil {
			return err
		}
		enrolled := false // this very node is on the roster
		for _, n := range live {
			if n.PeerID == q.PeerID && n.Site == site && n.Name == q.Name {
				enrolled = true
				continue
			}
			if n.PeerID != q.PeerID {
				err = problem.New(problem.NameTaken, "site %s has a node %s already", site, q.Name).WithDone("the token is still good").
					WithNext("choose another name, or remove the old node first: meshctl site remove-node %s %s", site, q.Name)
			} else {
				err = problem.New(problem.NameTaken, "this machine is already %s of site %s", n.Name, n.Site).WithDone("the token is still good").
					WithNext("remove it there first: meshctl site remove-node %s %s", n.Site, n.Name)
			}
		}
		switch {
		case usedPeer.Valid && enrolled && usedPeer.String == q.PeerID && usedName.String == q.Name:
			out.Again = true
		case usedPeer.Valid:
			return refuse("was used before")
		case stamp(now) >= expires:
			return refuse("has expired")
		case err != nil:
			return err
		}
		out.Node, out.Peer = q.Name, q.PeerID
		if out.Again {
			if out.Roster, err = readRoster(ctx, tx, site); err != nil {
				return err
			}
			out.Site, err = readSite(ctx, tx, site)
			return err
		}
		addrs, err := json.Marshal(append([]string{}, q.Addrs...))
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, NULL)
			ON CONFLICT (peer) DO UPDATE SET site = excluded.site, name = excluded.name, labels = excluded.labels, wan = excluded.wan,
			addrs = excluded.addrs, enrolled = excluded.enrolled, removed = NULL`,
			q.PeerID, site, q.Name, labels, wan, string(addrs), stamp(now)); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE tokens SET used_by_peer = ?, used_by_name = ? WHERE hash = ?`, q.PeerID, q.Name, hash[:]); err != nil {
			return err
		}
		if out.Roster, err = s.bumpRoster(ctx, tx, site, now); err != nil {
			return err
		}
		out.Site, err = readSite(ctx, tx, site)
		return err
	})
	return out, err
}
