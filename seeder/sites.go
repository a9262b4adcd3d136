package seeder

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // time zones are known wherever the seeder runs

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// Lifetimes of join tokens.
const (
	tokenTTL    = time.Hour
	maxTokenTTL = 24 * time.Hour
)

func (s *Seeder) createSite(ctx context.Context, q api.SiteSpec) (api.SiteInfo, error) {
	if !manifest.ValidName(q.Name) {
		return api.SiteInfo{}, problem.New(problem.Usage, "site name %.80q: want lower-case letters, digits, . _ -, at most 64", q.Name)
	}
	zone, err := zoneOf(q.Timezone)
	if err != nil {
		return api.SiteInfo{}, err
	}
	if q.CapBytesPerSecond != 0 && (q.CapBytesPerSecond < wanprofile.MinRate || q.CapBytesPerSecond > wanprofile.MaxRate) {
		return api.SiteInfo{}, problem.New(problem.Usage, "a cap of %d bytes per second: want at least %s", q.CapBytesPerSecond, wanprofile.FormatRate(wanprofile.MinRate))
	}
	key := make([]byte, enrol.GossipKeyBytes)
	rand.Read(key) // never fails
	site := fleet.Site{Name: q.Name, Timezone: q.Timezone, WAN: wanprofile.Profile{Cap: q.CapBytesPerSecond}, GossipKey: key, Created: s.now()}
	if err := s.db.CreateSite(ctx, site); err != nil {
		return api.SiteInfo{}, err
	}
	s.pace.set(q.Name, site.WAN, zone)
	if err := s.publish(ctx, q.Name); err != nil {
		return api.SiteInfo{}, err
	}
	s.events.publish(api.Event{Kind: "site", Name: "created", Subject: q.Name, Site: q.Name, Text: "site " + q.Name + " is created"})
	s.log.Info("site created", "site", q.Name, "timezone", q.Timezone, "cap", q.CapBytesPerSecond)
	return api.SiteInfo{SiteSpec: q, RosterVersion: 1}, nil
}

func (s *Seeder) siteList(ctx context.Context) ([]api.SiteInfo, error) {
	sites, err := s.db.Sites(ctx)
	out := make([]api.SiteInfo, 0, len(sites))
	for _, x := range sites {
		out = append(out, api.SiteInfo{
			SiteSpec:      api.SiteSpec{Name: x.Name, Timezone: x.Timezone, CapBytesPerSecond: x.WAN.Cap},
			RosterVersion: x.Roster, Nodes: s.members.count(x.Name)})
	}
	return out, err
}

// zoneOf finds a site's time zone. A site without one counts its days in UTC; policies do not take it for that.
func zoneOf(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	zone, err := policy.LoadZone(name)
	if err != nil {
		return nil, problem.New(problem.Usage, "time zone %.80q is not known", name).WithNext("use a name like America/Chicago")
	}
	return zone, nil
}

// setTimezone gives a site another time zone, for its WAN profile and in its roster, if that which it has is what it
// should be changed from.
func (s *Seeder) setTimezone(ctx context.Context, name string, q api.SiteZone, from func(api.SiteZone) error) (api.SiteZone, error) {
	zone, err := zoneOf(q.Timezone)
	if err != nil {
		return q, err
	}
	s.profiles.Lock()
	defer s.profiles.Unlock()
	was, err := s.db.Site(ctx, name)
	if err != nil {
		return q, err
	}
	if err := from(api.SiteZone{Timezone: was.Timezone}); err != nil {
		return q, err
	}
	if err := s.db.SetTimezone(ctx, name, q.Timezone, s.now()); err != nil {
		return q, err
	}
	site, err := s.db.Site(ctx, name)
	if err != nil {
		return q, err
	}
	s.pace.set(name, site.WAN, zone)
	s.log.Info("time zone of a site", "site", name, "timezone", site.Timezone)
	return api.SiteZone{Timezone: site.Timezone}, s.publish(ctx, name)
}

// setWAN puts another WAN profile in force, at once, if the one before is what it should be changed from.
func (s *Seeder) setWAN(ctx context.Context, name string, d wanprofile.Document, from func(wanprofile.Document) error) (wanprofile.Document, error) {
	p, err := d.Profile()
	if err != nil {
		return d, err
	}
	s.profiles.Lock() // what is shown follows what is stored
	defer s.profiles.Unlock()
	was, err := s.db.Site(ctx, name)
	if err != nil {
		return d, err
	}
	if err := from(was.WAN.Document()); err != nil {
		return d, err
	}
	if err := s.db.SetWAN(ctx, name, p); err != nil {
		return d, err
	}
	site, err := s.db.Site(ctx, name)
	if err != nil {
		return d, err
	}
	zone, err := zoneOf(site.Timezone)
	if err != nil {
		return d, fmt.Errorf("time zone of site %s: %w", name, err)
	}
	s.pace.set(name, site.WAN, zone)
	s.log.Info("wan profile in force", "site", name, "cap", site.WAN.Cap, "per_day", site.WAN.PerDay, "rules", len(site.WAN.Rules))
	return site.WAN.Document(), nil
}

func (s *Seeder) createToken(ctx context.Context, site string, q api.TokenSpec) (api.TokenReply, error) {
	if q.WAN == "" {
		q.WAN = roster.WANAllow
	}
	if q.Labels == nil {
		q.Labels = map[string]string{}
	}
	ttl := time.Duration(q.TTLSeconds) * time.Second
	if q.TTLSeconds == 0 {
		ttl = tokenTTL
	}
	switch {
	case q.TTLSeconds < 0 || q.TTLSeconds > int64(maxTokenTTL/time.Second):
		return api.TokenReply{}, problem.New(problem.Usage, "a token lives 1 second to %s", maxTokenTTL)
	case q.WAN != roster.WANAllow && q.WAN != roster.WANPrefer && q.WAN != roster.WANNever:
		return api.TokenReply{}, problem.New(problem.Usage, "wan %.20q: want prefer, allow or never", q.WAN)
	}
	if err := checkLabels(q.Labels); err != nil {
		return api.TokenReply{}, err
	}
	if len(s.apiURLs) == 0 {
		return api.TokenReply{}, problem.New(problem.Usage, "nodes cannot join: this seeder serves its API on a unix socket only").
			WithNext("start it with --listen-api")
	}
	secret := randomHex(enrol.SecretBytes)
	t := fleet.Token{Site: site, Labels: q.Labels, WAN: q.WAN, Expires: s.now().Add(ttl).Truncate(time.Second)}
	if err := s.db.CreateToken(ctx, secret, t); err != nil {
		return api.TokenReply{}, err
	}
	word := enrol.Token{Site: site, URLs: s.apiURLs, Seeder: s.peerID, Secret: secret, Expires: t.Expires.Unix(), Pins: enrol.PinsOf(s.set)}
	if err := word.Validate(); err != nil {
		return api.TokenReply{}, fmt.Errorf("token of site %s: %w", site, err)
	}
	return api.TokenReply{Site: site, Token: word.Encode(), Expires: t.Expires}, nil
}

func checkLabels(l map[string]string) error {
	if len(l) > 64 {
		return problem.New(problem.Usage, "%d labels: at most 64", len(l))
	}
	ok := func(s string) bool {
		return len(s) <= 63 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-") == ""
	}
	for k, v := range l {
		if k == "" || !ok(k) || !ok(v) {
			return problem.New(problem.Usage, "label %.80q=%.80q: want letters, digits, . _ / -, at most 63", k, v)
		}
	}
	return nil
}

// enrol redeems a join token. The secret in it is the only credential; the proof shows that the node's key is its own.
func (s *Seeder) enrol(ctx context.Context, q enrol.Request) (enrol.Enrolment, error) {
	bad := func(err error) error {
		return problem.New(problem.TokenInvalid, "the enrolment request is not valid").Because(err).WithDone("nothing was enrolled, no token was spent")
	}
	if err := q.Validate(); err != nil {
		return enrol.Enrolment{}, bad(err)
	}
	key, err := api.ParsePeerID(q.PeerID)
	if err != nil {
		return enrol.Enrolment{}, bad(err)
	}
	if err := q.VerifyProof(key); err != nil {
		return enrol.Enrolment{}, bad(err)
	}
	if q.PeerID == s.peerID {
		return enrol.Enrolment{}, bad(errors.New("the key is the seeder's own"))
	}
	r, err := s.db.Redeem(ctx, q, s.now())
	if err != nil {
		return enrol.Enrolment{}, err
	}
	if err := s.members.reloadSite(ctx, s.db, r.Site.Name); err != nil {
		return enrol.Enrolment{}, err
	}
	if err := s.publish(ctx, r.Site.Name); err != nil {
		return enrol.Enrolment{}, err
	}
	s.log.Info("node enrolled", "site", r.Site.Name, "node", r.Node, "peer", r.Peer, "again", r.Again, "roster", r.Site.Roster)
	return enrol.Enrolment{Site: r.Site.Name, Node: r.Node, Seeder: s.peerID, SeederAddrs: s.meshAddrs, SeederURLs: s.apiURLs,
		GossipKey: r.Site.GossipKey, Trust: s.set, Roster: r.Roster}, nil
}

func (s *Seeder) removeNode(ctx context.Context, site, name string) error {
	n, _, err := s.db.RemoveNode(ctx, site, name, s.now())
	if err != nil {
		return err
	}
	s.log.Info("node removed", "site", site, "node", name, "peer", n.PeerID)
	if err := s.members.reloadSite(ctx, s.db, site); err != nil {
		return err
	}
	if id, err := peer.Decode(n.PeerID); err == nil {
		s.host.Disconnect(id, errForeign)
	}
	return s.publish(ctx, site)
}
