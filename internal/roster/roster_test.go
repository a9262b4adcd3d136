package roster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

var epoch = time.Date(2026, 8, 25, 12, 0, 0, 0, time.UTC)

func fresh() *roster.Roster {
	return &roster.Roster{
		Schema: roster.Schema, Site: "store-0042", Version: 3, Created: epoch, Timezone: "America/Chicago",
		Nodes: []roster.Node{
			{Name: "kiosk-1", PeerID: "12D3KooWa", Labels: map[string]string{"role": "kiosk"}, WAN: roster.WANNever, Addrs: []string{}},
			{Name: "pos-1", PeerID: "12D3KooWb", Labels: map[string]string{"role": "pos", "env": "prod"}, WAN: roster.WANPrefer, Addrs: []string{"10.0.0.7:7946"}},
			{Name: "pos-2", PeerID: "12D3KooWc", Labels: nil, WAN: roster.WANAllow, Addrs: nil},
		},
	}
}

// seeder makes a key that signs at the time in *now, and a set in which it may sign rosters.
func seeder(t *testing.T, now *time.Time) (*signer.KeyFile, *trust.Set) {
	t.Helper()
	priv, _, _, err := signer.GenerateKey(signer.KeyOptions{Name: "seeder", Email: "seeder@example.org", Created: epoch})
	if err != nil {
		t.Fatal(err)
	}
	k, err := signer.FromKey(priv, nil)
	if err != nil {
		t.Fatal(err)
	}
	k.Now = func() time.Time { return *now }
	rk, err := trust.NewRoleKeys(1, k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k, &trust.Set{Roster: rk}
}

func sign(t *testing.T, k signer.Signer, doc []byte) trust.Signed {
	t.Helper()
	sig, err := k.Sign(context.Background(), doc)
	if err != nil {
		t.Fatal(err)
	}
	return trust.Signed{Doc: doc, Sig: sig}
}

func TestOpen(t *testing.T) {
	now := epoch
	k, set := seeder(t, &now)
	want := fresh()
	doc, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := roster.Open(set, sign(t, k, doc), epoch)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if n, ok := got.ByName("pos-1"); !ok || n.PeerID != "12D3KooWb" {
		t.Errorf("by name: %+v, %t", n, ok)
	}
	if n, ok := got.ByPeer("12D3KooWc"); !ok || n.Name != "pos-2" {
		t.Errorf("by peer: %+v, %t", n, ok)
	}
	if n, ok := got.ByPeer("12D3KooWd"); ok {
		t.Errorf("a stranger is %+v", n)
	}
	if n, ok := got.ByName(""); ok {
		t.Errorf("no name is %+v", n)
	}
}

func TestOpenRefuses(t *testing.T) {
	now := epoch
	k, set := seeder(t, &now)
	good, err := fresh().Encode()
	if err != nil {
		t.Fatal(err)
	}
	replace := func(before, after string) []byte {
		if !bytes.Contains(good, []byte(before)) {
			t.Fatalf("%q is not in the roster", before)
		}
		return bytes.Replace(good, []byte(before), []byte(after), 1)
	}
	for name, doc := range map[string][]byte{
		"other schema":         replace(roster.Schema, "patchmesh.io/policy/v1"),
		"no version":           replace(`"version": 3`, `"version": 0`),
		"site is a path":       replace(`"store-0042"`, `"../x"`),
		"no time":              replace("2026-08-25T12:00:00Z", "0001-01-01T00:00:00Z"),
		"parts of a second":    replace("12:00:00Z", "12:00:00.5Z"),
		"name twice":           replace(`"kiosk-1"`, `"pos-1"`),
		"out of order":         replace(`"kiosk-1"`, `"zebra"`),
		"key of somebody else": replace(`"12D3KooWa"`, `"12D3KooWb"`),
		"no peer ID":           replace(`"12D3KooWa"`, `""`),
		"other wan":            replace(`"never"`, `"sometimes"`),
		"repeated key":         replace(`"version": 3`, `"version": 9, "version": 3`),
		"key in other letters": replace(`"version"`, `"Version"`),
		"unknown key":          replace(`"version": 3`, `"admin": true, "version": 3`),
		"bytes behind":         append(bytes.Clone(good), '\n'),
		"too large":            bytes.Repeat([]byte(" "), roster.MaxBytes+1),
		"null":                 []byte("null\n"),
		"made long before":     replace("2026-08-25", "2026-08-22"),
	} {
		if r, err := roster.Open(set, sign(t, k, doc), epoch); err == nil {
			t.Errorf("%s: read as %+v", name, r)
		}
	}
	stranger, others := seeder(t, &now)
	if _, err := roster.Open(set, sign(t, stranger, good), epoch); !errors.Is(err, trust.ErrUnknownKey) {
		t.Errorf("signed by another seeder: %v", err)
	}
	if _, err := roster.Open(&trust.Set{Release: others.Roster}, sign(t, stranger, good), epoch); !errors.Is(err, trust.ErrKeys) {
		t.Errorf("signed by a build server: %v", err)
	}
	d := sign(t, k, good)
	d.Doc = replace(`"pos-2"`, `"pos-3"`)
	if _, err := roster.Open(set, d, epoch); !errors.Is(err, trust.ErrBad) || problem.CodeOf(err) != problem.SignatureInvalid {
		t.Errorf("changed after signing: %v", err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, change := range map[string]func(*roster.Roster){
		"no list of nodes": func(r *roster.Roster) { r.Nodes = nil },
		"too many nodes": func(r *roster.Roster) {
			r.Nodes = nil
			for i := range roster.MaxNodes + 1 {
				r.Nodes = append(r.Nodes, roster.Node{Name: fmt.Sprintf("n%04d", i), PeerID: fmt.Sprintf("p%d", i), WAN: roster.WANAllow})
			}
		},
		"too many labels":    func(r *roster.Roster) { r.Nodes[0].Labels = labels(65) },
		"too many addresses": func(r *roster.Roster) { r.Nodes[0].Addrs = slices.Repeat([]string{"10.0.0.7:7946"}, 17) },
		"long peer ID":       func(r *roster.Roster) { r.Nodes[0].PeerID = strings.Repeat("A", 129) },
		"local time":         func(r *roster.Roster) { r.Created = epoch.In(time.FixedZone("x", 3600)) },
	} {
		r := fresh()
		change(r)
		if b, err := r.Encode(); err == nil {
			t.Errorf("%s: written as %d bytes", name, len(b))
		}
	}
	empty := fresh()
	empty.Nodes = []roster.Node{}
	if _, err := empty.Encode(); err != nil {
		t.Errorf("a site without nodes: %v", err)
	}
}

func labels(n int) map[string]string {
	m := make(map[string]string)
	for i := range n {
		m[fmt.Sprint(i)] = "x"
	}
	return m
}
