package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wire"
	"github.com/patchmesh/patchmesh/internal/xfer"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// reportsEach is how many reports each node of a fleet has to send; every second one is a receipt, of three bundles in turn.
const reportsEach = 10

// voice speaks for the nodes of one site over the connection of the first, as an uplink does.
type voice struct {
	*xfer.Host
	hosts  *errgroup.Group
	seeder *process
	site   string
	names  []string
	keys   []ed25519.PrivateKey
	said   uint64 // statements
	lost   int    // sessions
	why    error  // why the last one ended
	up     chan *xfer.Session
	down   chan *xfer.Session
	acks   chan wire.ReportAck
	lease  chan uint64
	s      *xfer.Session
}

func (v *voice) SessionUp(s *xfer.Session) { v.up <- s }
func (v *voice) SessionDown(s *xfer.Session, err error) {
	v.why = err
	select {
	case v.down <- s:
	default: // so many that nobody looked at: the next one is
	}
}
func (v *voice) Message(_ *xfer.Session, m wire.Message) error {
	switch m := m.(type) {
	case *wire.ReportAck:
		v.acks <- *m
	case *wire.LeaseGrant:
		if m.Nonce != 0 {
			v.answer(m.Lease)
		}
	case *wire.LeaseRefuse:
		v.answer(0)
	}
	return nil
}

// answer keeps the newest answer for who asks: the handler of a session must not wait for anybody.
func (v *voice) answer(lease uint64) {
	select {
	case <-v.lease:
	default:
	}
	select {
	case v.lease <- lease:
	default:
	}
}

func (v *voice) Chunk(context.Context, *xfer.Session, chunk.ID) (xfer.Served, error) {
	return xfer.Served{}, xfer.RefuseError{Reason: wire.ReasonNotHeld}
}

func (v *voice) peer(i int) string { return api.PeerID(v.keys[i].Public().(ed25519.PublicKey)) }

// enrolFleet writes sites and their nodes into the database of a seeder that does not run.
func enrolFleet(b testing.TB, state, database string, nodes int) []*voice {
	b.Helper()
	key, err := os.ReadFile(filepath.Join(state, "roster.key"))
	if err != nil {
		b.Fatal(err)
	}
	k, err := signer.FromKey(key, nil)
	if err != nil {
		b.Fatal(err)
	}
	db, err := fleet.Open(b.Context(), database, func(r *roster.Roster) (trust.Signed, error) {
		doc, err := r.Encode()
		if err != nil {
			return trust.Signed{}, err
		}
		sig, err := k.Sign(b.Context(), doc)
		return trust.Signed{Doc: doc, Sig: sig}, err
	})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	voices := make([]*voice, max(1, nodes*12/100))
	now := time.Now().Add(-48 * time.Hour) // before what they report
	for i := range voices {
		v := &voice{site: fmt.Sprintf("site-%04d", i), up: make(chan *xfer.Session, 16), down: make(chan *xfer.Session, 16), acks: make(chan wire.ReportAck, 1<<12), lease: make(chan uint64, 1)}
		voices[i] = v
		if err := db.CreateSite(b.Context(), fleet.Site{Name: v.site, Timezone: "America/Chicago", GossipKey: make([]byte, enrol.GossipKeyBytes), Created: now}); err != nil {
			b.Fatal(err)
		}
	}
	for i := range nodes {
		v := voices[i%len(voices)]
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			b.Fatal(err)
		}
		v.keys, v.names = append(v.keys, key), append(v.names, fmt.Sprintf("pos-%02d", len(v.names)+1))
		secret := fmt.Sprintf("%064x", i)
		labels := map[string]string{"role": "pos", "region": fmt.Sprintf("r%d", i%len(voices)%8)}
		if err := db.CreateToken(b.Context(), secret, fleet.Token{Site: v.site, Labels: labels, WAN: roster.WANAllow, Expires: now.Add(time.Hour)}); err != nil {
			b.Fatal(err)
		}
		if _, err := db.Redeem(b.Context(), enrol.Request{Secret: secret, Name: v.names[len(v.names)-1], PeerID: v.peer(len(v.keys) - 1), Addrs: []string{}}, now); err != nil {
			b.Fatal(err)
		}
	}
	return voices
}

// connect opens the session of the site's uplink.
func (v *voice) connect(ctx context.Context) error {
	if v.Host == nil {
		lk, err := crypto.UnmarshalEd25519PrivateKey(v.keys[0])
		if err != nil {
			return err
		}
		v.Host, err = xfer.New(xfer.Config{Key: lk, Site: v.site, Name: v.names[0], Listen: "127.0.0.1:0", Limits: xfer.NodeLimits(), Allow: func(peer.ID) bool { return true }, Handler: v})
		if err != nil {
			return err
		}
		v.hosts.Go(func() error { return v.Run(ctx) })
	}
	for try := 0; ; try++ {
		err := v.Dial(ctx, v.seeder.peer, v.seeder.mesh)
		if err == nil {
			select {
			case v.s = <-v.up:
				return nil
			case <-time.After(30 * time.Second):
				err = fmt.Errorf("no session of %s", v.site)
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if try == 10 || ctx.Err() != nil {
			return err
		}
		time.Sleep(time.Duration(500+rand.IntN(1500)) * time.Millisecond) // thousands share two cores
	}
}

// lead takes the site's lease, or renews it: without one an uplink speaks for itself only. Where thousands share two cores
// some sessions are given up as silent: it goes on over a new one, as a node does.
func (v *voice) lead(ctx context.Context) error {
	for refused := 0; v.s != nil; {
		select {
		case <-v.lease: // to somebody who did not wait for it
		default:
		}
		v.s.Send(&wire.LeaseAsk{Nonce: 1})
		select {
		case n := <-v.lease:
			if n != 0 {
				return nil
			}
			if refused++; refused == 20 {
				return fmt.Errorf("%s has no lease", v.site)
			}
			time.Sleep(time.Second) // the session that was lost may have it still
		case s := <-v.down:
			if err := v.again(ctx, s); err != nil {
				return err
			}
		case <-time.After(time.Minute):
			return fmt.Errorf("no answer to %s, which asks for the lease", v.site)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("%s has no session", v.site)
}

// again connects anew if it is the present session that ended.
func (v *voice) again(ctx context.Context, ended *xfer.Session) error {
	if ended != v.s {
		return nil
	}
	v.lost++
	return v.connect(ctx)
}

// state says where every node stands with a bundle.
func (v *voice) state(m *manifest.Manifest, d manifest.Digest, phase status.Phase) {
	v.said++
	st := &wire.SiteState{Alive: v.names}
	now := time.Now().UTC()
	for i, name := range v.names {
		st.Nodes = append(st.Nodes, status.Node{APIVersion: status.APIVersion, Kind: "NodeStatus", Site: v.site, Node: name, PeerID: v.peer(i), Software: "patchmesh/bench",
			Seq: v.said, At: now, Uplink: i == 0, Phase: phase, Reason: "Complete", Snapshot: "tree/20260901-021314",
			Desired: &status.Desired{Policy: "everywhere", Revision: 1, Bundle: m.Name, Version: m.Version, Checksum: d},
			Installed: []status.InstalledItem{
				{Bundle: "base", Version: "2026.07.21-2", Sequence: 7, Checksum: manifest.DigestOf([]byte("base")), Since: now, Receipt: manifest.DigestOf([]byte(name)).String()},
				{Bundle: "pos", Version: "2026.07.21-1", Sequence: 6, Checksum: manifest.DigestOf([]byte("pos")), Since: now, Receipt: manifest.DigestOf([]byte(name)).String()}},
			Transfer: status.Transfer{Chunks: 9, ChunksHave: 9, Bytes: 9 << 18, BytesHave: 9 << 18, FromLAN: 9 << 18, ToLAN: 1 << 20, Peers: 7},
			Alarms:   []status.Alarm{}})
	}
	v.s.Send(st)
}

// alive says that every node is there and has nothing new to say.
func (v *voice) alive() { v.s.Send(&wire.SiteState{Nodes: []status.Node{}, Alive: v.names}) }

// outbox is what the nodes of the site have not sent yet: the reports of a day.
func (v *voice) outbox(b testing.TB) (out []*wire.Report) {
	b.Helper()
	day := time.Now().Add(-24 * time.Hour).UTC().Truncate(time.Second)
	for i, name := range v.names {
		var head *manifest.Digest
		for seq := uint64(1); seq <= reportsEach; seq++ {
			at := day.Add(time.Duration(seq) * time.Hour)
			bundle := []string{"app", "base", "pos"}[seq/2%3]
			version := fmt.Sprintf("2026.09.%02d-1", seq)
			d := manifest.DigestOf([]byte(bundle + version))
			r := status.ReportBody{Site: v.site, Node: name, Seq: seq, Occurred: at, Phase: status.Staged, Reason: "Complete", Bundle: bundle, Version: version, Checksum: d}
			if seq%2 == 0 {
				r.Phase, r.Outcome, r.Reason, r.Policy, r.Revision, r.Seconds = status.Installed, "success", "Installed", bundle, seq, 80
				r.Receipt = &status.Receipt{Number: seq / 2, Previous: head, Started: at.Add(-time.Minute), Ended: at, Now: &status.ReceiptBundle{Version: version, Checksum: d},
					Software: "patchmesh/bench", Zoneinfo: "2026a"}
			}
			body, err := json.Marshal(r)
			if err != nil {
				b.Fatal(err)
			}
			if r.Receipt != nil {
				h := manifest.DigestOf(body)
				head = &h
			}
			out = append(out, &wire.Report{Report: status.Report{Site: v.site, Node: name, Seq: seq, Body: body, Sig: ed25519.Sign(v.keys[i], body)}})
		}
	}
	return out
}

// drain sends reports, a window of them ahead of the acknowledgements, and returns when all are acknowledged. After a
// session that was lost it goes on with what was not.
func (v *voice) drain(ctx context.Context, list []*wire.Report) error {
	const window = 50
	type name struct {
		node string
		seq  uint64
	}
	acked := map[name]bool{}
	for next, waiting := 0, 0; len(acked) < len(list); {
		for ; waiting < window && next < len(list); next++ {
			if r := list[next]; !acked[name{r.Node, r.Seq}] {
				v.s.Send(r)
				waiting++
			}
		}
		select {
		case a := <-v.acks:
			acked[name{a.Node, a.Seq}] = true
			waiting--
		case s := <-v.down:
			was := v.s
			if err := v.again(ctx, s); err != nil {
				return err
			}
			if v.s != was {
				next, waiting = 0, 0
			}
		case <-time.After(2 * time.Minute):
			return fmt.Errorf("%s: %d of %d reports acknowledged, then silence", v.site, len(acked), len(list))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// all calls fn for every site, so many at a time.
func all(b testing.TB, voices []*voice, parallel int, fn func(*voice) error) {
	b.Helper()
	var g errgroup.Group
	g.SetLimit(parallel)
	for _, v := range voices {
		g.Go(func() error { return fn(v) })
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

// rollingPolicy is the text of a policy that reaches every node in batches.
func rollingPolicy(name string, m *manifest.Manifest, d manifest.Digest, batch int) string {
	return strings.NewReplacer("NAME", name, "BUNDLE", m.Name, "VERSION", m.Version, "CHECKSUM", d.String(), "BATCH", fmt.Sprint(batch)).Replace(`apiVersion: patchmgmt.io/v1
kind: PatchPolicy
metadata: {name: NAME}
spec:
  bundleRef: {name: BUNDLE, version: "VERSION", checksum: "CHECKSUM"}
  targets: {selector: {matchLabels: {role: pos}}}
  rolloutStrategy: {type: RollingUpdate, batchSize: BATCH}
`)
}
