package fleet

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
)

// Site is a site without its nodes.
type Site struct {
	Name      string
	Timezone  string
	WAN       wanprofile.Profile
	GossipKey []byte // 32 bytes, secret
	Roster    uint64 // version in force
	Created   time.Time
}

// Node is an enrolled node.
type Node struct {
	Site     string
	Enrolled time.Time
	roster.Node
}

// CreateSite records a site and its first, empty roster.
func (s *Store) CreateSite(ctx context.Context, site Site) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM sites WHERE name = ?`, site.Name).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return problem.New(problem.NameTaken, "site %s exists already", site.Name).
				WithNext("choose another name, or make a token for it with: meshctl site token %s", site.Name)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO sites (name, timezone, cap, per_day, rules, gossip_key, roster, created) VALUES (?, ?, ?, ?, ?, ?, 0, ?)`,
			site.Name, site.Timezone, site.WAN.Cap, site.WAN.PerDay, ruleLines(site.WAN), site.GossipKey, stamp(site.Created)); err != nil {
			return err
		}
		_, err := s.bumpRoster(ctx, tx, site.Name, site.Created)
		return err
	})
}

// SetWAN replaces a site's WAN profile.
func (s *Store) SetWAN(ctx context.Context, name string, p wanprofile.Profile) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		if _, err := readSite(ctx, tx, name); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE sites SET cap = ?, per_day = ?, rules = ? WHERE name = ?`, p.Cap, p.PerDay, ruleLines(p), name)
		return err
	})
}

// SetTimezone gives a site another time zone and its nodes a roster that says so.
func (s *Store) SetTimezone(ctx context.Context, name, zone string, now time.Time) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		site, err := readSite(ctx, tx, name)
		if err != nil || site.Timezone == zone {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE sites SET timezone = ? WHERE name = ?`, zone, name); err != nil {
			return err
		}
		_, err = s.bumpRoster(ctx, tx, name, now)
		return err
	})
}

func ruleLines(p wanprofile.Profile) string { return strings.Join(p.Document().Rules, "\n") }

// Sites lists the sites in the order of their names.
func (s *Store) Sites(ctx context.Context) (out []Site, err error) {
	err = each(ctx, s.r, func(scan func(...any) error) error {
		site, err := scanSite(scan)
		out = append(out, site)
		return err
	}, `SELECT `+siteColumns+` FROM sites ORDER BY name`)
	return out, err
}

// Site returns one site.
func (s *Store) Site(ctx context.Context, name string) (Site, error) { return readSite(ctx, s.r, name) }

func readSite(ctx context.Context, q querier, name string) (Site, error) {
	site, err := scanSite(q.QueryRowContext(ctx, `SELECT `+siteColumns+` FROM sites WHERE name = ?`, name).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return site, problem.New(problem.NotFound, "there is no site %q", name).WithNext("list them with: meshctl site list")
	}
	return site, mapError(err)
}

const siteColumns = `name, timezone, cap, per_day, rules, gossip_key, roster, created`

func scanSite(scan func(...any) error) (x Site, err error) {
	var created int64
	var rules string
	if err := scan(&x.Name, &x.Timezone, &x.WAN.Cap, &x.WAN.PerDay, &rules, &x.GossipKey, &x.Roster, &created); err != nil {
		return x, err
	}
	x.Created = unstamp(created)
	for line := range strings.Lines(rules) {
		r, err := wanprofile.ParseRule(strings.TrimSpace(line))
		if err != nil {
			return x, fmt.Errorf("site %s: %w", x.Name, err)
		}
		x.WAN.Rules = append(x.WAN.Rules, r)
	}
	return x, nil
}

// Nodes lists the nodes on the rosters of all sites, in the order of site and name.
func (s *Store) Nodes(ctx context.Context) ([]Node, error) {
	return readNodes(ctx, s.r, `removed IS NULL`)
}

// NodesOf lists the nodes on the roster of one site, in the order of their names.
func (s *Store) NodesOf(ctx context.Context, site string) ([]Node, error) {
	return readNodes(ctx, s.r, `site = ? AND removed IS NULL`, site)
}

const nodeColumns = `peer, site, name, labels, wan, addrs, enrolled`

func readNodes(ctx context.Context, q querier, where string, args ...any) (out []Node, err error) {
	err = each(ctx, q, func(scan func(...any) error) error {
		var n Node
		var labels, addrs string
		var enrolled int64
		if err := scan(&n.PeerID, &n.Site, &n.Name, &labels, &n.WAN, &addrs, &enrolled); err != nil {
			return err
		}
		n.Enrolled = unstamp(enrolled)
		out = append(out, n)
		last := &out[len(out)-1]
		return errors.Join(json.Unmarshal([]byte(labels), &last.Labels), json.Unmarshal([]byte(addrs), &last.Addrs))
	}, `SELECT `+nodeColumns+` FROM nodes WHERE `+where+` ORDER BY site, name`, args...)
	return out, err
}

// PeersOf lists the peer IDs that a node name of a site has had, the one in force first: late reports of a machine that
// was replaced are still its own.
func (s *Store) PeersOf(ctx context.Context, site, name string) (out []string, err error) {
	err = each(ctx, s.r, func(scan func(...any) error) error {
		var p string
		err := scan(&p)
		out = append(out, p)
		return err
	}, `SELECT peer FROM nodes WHERE site = ? AND name = ? ORDER BY removed IS NOT NULL, removed DESC`, site, name)
	return out, err
}

// RemoveNode takes a node off its site's roster and returns it with the new roster.
func (s *Store) RemoveNode(ctx context.Context, site, name string, now time.Time) (n Node, r trust.Signed, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		if _, err := readSite(ctx, tx, site); err != nil {
			return err
		}
		ns, err := readNodes(ctx, tx, `site = ? AND name = ? AND removed IS NULL`, site, name)
		if err != nil {
			return err
		}
		if len(ns) == 0 {
			return problem.New(problem.NotFound, "site %s has no node %q", site, name)
		}
		n = ns[0]
		if _, err := tx.ExecContext(ctx, `UPDATE nodes SET removed = ? WHERE peer = ?`, stamp(now), n.PeerID); err != nil {
			return err
		}
		r, err = s.bumpRoster(ctx, tx, site, now)
		return err
	})
	return n, r, err
}

// Roster returns the roster of a site that is in force.
func (s *Store) Roster(ctx context.Context, site string) (trust.Signed, error) {
	return readRoster(ctx, s.r, site)
}

func readRoster(ctx context.Context, q querier, site string) (r trust.Signed, err error) {
	err = q.QueryRowContext(ctx, `SELECT doc, sig FROM rosters WHERE site = ? ORDER BY version DESC LIMIT 1`, site).Scan(&r.Doc, &r.Sig)
	if err != nil {
		err = fmt.Errorf("roster of %s: %w", site, mapError(err))
	}
	return r, err
}

// bumpRoster signs and records the roster that follows from the nodes table.
func (s *Store) bumpRoster(ctx context.Context, tx *sql.Tx, name string, now time.Time) (trust.Signed, error) {
	site, err := readSite(ctx, tx, name)
	if err != nil {
		return trust.Signed{}, err
	}
	nodes, err := readNodes(ctx, tx, `site = ? AND removed IS NULL`, name)
	if err != nil {
		return trust.Signed{}, err
	}
	if len(nodes) > roster.MaxNodes || site.Roster == math.MaxInt64 {
		return trust.Signed{}, problem.New(problem.QuotaExceeded, "site %s has as many nodes as a site may, %d", name, roster.MaxNodes)
	}
	r := &roster.Roster{Schema: roster.Schema, Site: name, Version: site.Roster + 1, Created: now.UTC().Truncate(time.Second),
		Timezone: site.Timezone, Nodes: make([]roster.Node, 0, len(nodes))}
	for _, n := range nodes {
		r.Nodes = append(r.Nodes, n.Node)
	}
	signed, err := s.sign(r)
	if err != nil {
		return trust.Signed{}, fmt.Errorf("roster of %s: %w", name, err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO rosters VALUES (?, ?, ?, ?)`, name, r.Version, signed.Doc, signed.Sig); err != nil {
		return trust.Signed{}, err
	}
	_, err = tx.ExecContext(ctx, `UPDATE sites SET roster = ? WHERE name = ?`, r.Version, name)
	return signed, err
}
