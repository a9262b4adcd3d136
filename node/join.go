package node

import (
	"context"
	"crypto/rand"
	"os"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/build"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Joined is what Join found out.
type Joined struct {
	Site, Node, PeerID string
	Roster             uint64
}

// Join redeems a token: it makes the node's key if there is none, proves it to the seeder that the token pins,
// checks what comes back against the token, and writes identity and enrolment. It may be repeated with the same
// token until it succeeds; a node that has joined does not join again.
func Join(ctx context.Context, state, name, word string, addrs []string) (Joined, error) {
	tok, err := enrol.ParseToken(word)
	if err != nil {
		return Joined{}, problem.New(problem.TokenInvalid, "this is not a join token").Because(err).WithDone("nothing was sent").
			WithNext("copy the whole word again, or ask for a new one: meshctl site token SITE")
	}
	if !manifest.ValidName(name) {
		return Joined{}, problem.New(problem.Usage, "%q is not a node name", name).
			WithNext("use lower-case letters, digits, . _ - (at most 64); --name sets it")
	}
	d := dir(state)
	if err := d.create(); err != nil {
		return Joined{}, problem.New(problem.InvalidFile, "the state directory cannot be made").Because(err)
	}
	lock, err := d.lock()
	if err != nil {
		return Joined{}, err
	}
	defer lock.Close()
	if e, err := d.enrolment(); err == nil {
		return Joined{}, problem.New(problem.AlreadyExists, "this node is already %s of site %s", e.Node, e.Site).
			WithDone("nothing was changed").WithNext("to move it, stop meshd and remove %s", state)
	}
	key, err := d.identity()
	if os.IsNotExist(err) {
		if key, err = newIdentity(d); err != nil {
			return Joined{}, err
		}
	} else if err != nil {
		return Joined{}, problem.New(problem.InvalidFile, "identity.key cannot be read").Because(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return Joined{}, err
	}
	proof, err := key.Sign(enrol.ProofMessage(tok.Secret, name, id.String()))
	if err != nil {
		return Joined{}, err
	}
	c, err := api.NewClient(api.Access{URLs: tok.URLs, Pin: tok.Seeder})
	if err != nil {
		return Joined{}, err
	}
	defer c.CloseIdle()
	req := enrol.Request{Secret: tok.Secret, Name: name, PeerID: id.String(), Proof: proof, Addrs: addrs}
	e, err := c.Enrol(ctx, req)
	if err != nil {
		return Joined{}, err
	}
	if err := tok.CheckEnrolment(&e, &req); err != nil {
		return Joined{}, problem.New(problem.SignatureInvalid, "the seeder's answer does not match the token").Because(err).
			WithDone("nothing was kept").WithNext("ask for a new token; if it happens again, somebody is between you and the seeder")
	}
	r, err := roster.Open(&e.Trust, e.Roster, trust.Floor(build.Time()))
	if err != nil {
		return Joined{}, problem.New(problem.RosterInvalid, "the seeder's roster is not valid").Because(err).WithDone("nothing was kept")
	}
	if self, ok := r.ByPeer(id.String()); r.Site != e.Site || !ok || self.Name != name {
		return Joined{}, problem.New(problem.RosterInvalid, "the seeder's roster does not name this node").WithDone("nothing was kept").
			WithNext("run the same command again; if it happens again, remove the node from the site and ask for a new token")
	}
	if err := d.keep(&e); err != nil {
		return Joined{}, err
	}
	return Joined{e.Site, e.Node, id.String(), r.Version}, nil
}

// keep writes an enrolment: the enrolment file last, since it is what says that the node has joined.
func (d dir) keep(e *enrol.Enrolment) error {
	if err := d.saveSigned("", "roster", e.Roster); err != nil {
		return err
	}
	set, err := e.Trust.Encode()
	if err != nil {
		return err
	}
	// For the installer's own directory and for people with gpgv; the daemon reads enrolment.json.
	if err := durable.WriteFile(d.path("trust.json"), set, 0o644); err != nil {
		return err
	}
	return writeJSON(d.path("enrolment.json"), e, 0o600)
}

func newIdentity(d dir) (crypto.PrivKey, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	b, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, durable.WriteFile(d.path("identity.key"), b, 0o600)
}

// WriteEnrolment makes a state directory of a node that was enrolled elsewhere: in a depot, or by a test.
func WriteEnrolment(state string, key crypto.PrivKey, e enrol.Enrolment) error {
	if err := e.Validate(); err != nil {
		return err
	}
	d := dir(state)
	if err := d.create(); err != nil {
		return err
	}
	b, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(d.path("identity.key"), b, 0o600); err != nil {
		return err
	}
	return d.keep(&e)
}
