package node_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/node"
)

// enroller is the enrolment API of a seeder with the site's identity. answer gets the request and an honest answer to
// it, and may spoil that.
func (s *site) enroller(answer func(enrol.Request, *enrol.Enrolment)) enrol.Token {
	s.t.Helper()
	raw := must(s.seederKey.Raw())
	conf := must(api.ServerTLS(ed25519.PrivateKey(raw)))
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	url := "https://" + l.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+api.PathEnrol, func(w http.ResponseWriter, r *http.Request) {
		var q enrol.Request
		if err := api.ReadJSON(w, r, api.MaxEnrolBody, &q); err != nil {
			api.WriteError(w, err)
			return
		}
		e := enrol.Enrolment{Site: "s1", Node: q.Name, Seeder: s.seeder.String(), SeederAddrs: []string{s.seederAddr}, SeederURLs: []string{url},
			GossipKey: s.gossipKey, Trust: s.set, Roster: s.rosterOf("s1", q.Name, q.PeerID)}
		if answer != nil {
			answer(q, &e)
		}
		api.WriteJSON(w, e)
	})
	srv := api.NewServer(mux, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(tls.NewListener(l, conf)) }()
	s.t.Cleanup(func() { srv.Close(); <-done })
	return enrol.Token{Site: "s1", URLs: []string{url}, Seeder: s.seeder.String(), Secret: strings.Repeat("ab", enrol.SecretBytes),
		Expires: time.Now().Add(time.Hour).Unix(), Pins: enrol.PinsOf(s.set)}
}

func (s *site) rosterOf(site, name, id string) trust.Signed {
	r := roster.Roster{Schema: roster.Schema, Site: site, Version: 1, Created: s.now, Timezone: "UTC",
		Nodes: []roster.Node{{Name: name, PeerID: id, Labels: map[string]string{}, WAN: roster.WANAllow, Addrs: []string{}}}}
	return s.sign(s.rosterKey, must(r.Encode()))
}

// A seeder whose answer does not match the token, or the request, joins nobody; nothing is kept of it, and the same
// token works once the answer is right.
func TestJoinChecksTheAnswer(t *testing.T) {
	s := newSite(t, 0)
	_, strange := newKey(t)
	for name, c := range map[string]struct {
		spoil func(enrol.Request, *enrol.Enrolment)
		code  problem.Code
	}{
		"another site":          {func(_ enrol.Request, e *enrol.Enrolment) { e.Site = "s2" }, problem.SignatureInvalid},
		"another node":          {func(_ enrol.Request, e *enrol.Enrolment) { e.Node = "other" }, problem.SignatureInvalid},
		"another seeder":        {func(_ enrol.Request, e *enrol.Enrolment) { e.Seeder = strange.String() }, problem.SignatureInvalid},
		"another release key":   {func(_ enrol.Request, e *enrol.Enrolment) { e.Trust.Release = e.Trust.Policy }, problem.SignatureInvalid},
		"roster of a stranger":  {func(q enrol.Request, e *enrol.Enrolment) { e.Roster = s.sign(s.operator, e.Roster.Doc) }, problem.RosterInvalid},
		"roster of a site":      {func(q enrol.Request, e *enrol.Enrolment) { e.Roster = s.rosterOf("s2", q.Name, q.PeerID) }, problem.RosterInvalid},
		"roster without us":     {func(q enrol.Request, e *enrol.Enrolment) { e.Roster = s.rosterOf("s1", "other", strange.String()) }, problem.RosterInvalid},
		"our name for another":  {func(q enrol.Request, e *enrol.Enrolment) { e.Roster = s.rosterOf("s1", q.Name, strange.String()) }, problem.RosterInvalid},
		"our key, another name": {func(q enrol.Request, e *enrol.Enrolment) { e.Roster = s.rosterOf("s1", "other", q.PeerID) }, problem.RosterInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			state := filepath.Join(t.TempDir(), "state")
			bad := s.enroller(c.spoil)
			_, err := node.Join(t.Context(), state, "n00", bad.Encode(), nil)
			var p *problem.Error
			if !errors.As(err, &p) || p.Code != c.code {
				t.Fatalf("join: %v", err)
			}
			for _, f := range []string{"enrolment.json", "roster.json", "trust.json"} {
				if _, err := os.Stat(filepath.Join(state, f)); err == nil {
					t.Errorf("%s was kept", f)
				}
			}
			key := must(os.ReadFile(filepath.Join(state, "identity.key")))
			good := s.enroller(nil) // positive control
			if _, err := node.Join(t.Context(), state, "n00", good.Encode(), nil); err != nil {
				t.Fatalf("honest answer: %v", err)
			}
			if now := must(os.ReadFile(filepath.Join(state, "identity.key"))); string(now) != string(key) {
				t.Error("the second attempt made another identity")
			}
		})
	}
}

// A node that joined starts from what Join wrote, and does not join again.
func TestJoinOnce(t *testing.T) {
	s := newSite(t, 0)
	state := filepath.Join(t.TempDir(), "state")
	calls := 0
	tok := s.enroller(func(enrol.Request, *enrol.Enrolment) { calls++ })
	word := tok.Encode()
	if _, err := node.Join(t.Context(), state, "n00", word, nil); err != nil {
		t.Fatal(err)
	}
	_, err := node.Join(t.Context(), state, "n00", word, nil)
	if problem.CodeOf(err) != problem.AlreadyExists || calls != 1 {
		t.Errorf("second join: %v after %d calls", err, calls)
	}
	n, err := node.New(node.Config{State: state, ListenPeer: "127.0.0.1:0", ListenGossip: "127.0.0.1:0"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Run(ctx); err != nil {
		t.Error(err)
	}
}
