package chunker

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// A stick carries the grants of the sites that it goes to, behind the policies that they are under. They are taken with the
// signature of the rosters' key only, and nowhere else.
func TestStickCarriesGrants(t *testing.T) {
	release, operator, _ := keys(t)
	set := &trust.Set{Release: roleKeys(t, 1, release), Policy: roleKeys(t, 1, operator), Roster: roleKeys(t, 1, release)}
	b := build(t, sample())
	g := &grant.Grant{Schema: grant.Schema, Serial: 7, Created: grant.Timestamp(at), Site: "s1", Policy: "pos", Revision: 3, Bundle: "app", Version: "2.0",
		Checksum: manifest.DigestOf([]byte("2.0")), Opens: grant.Timestamp(at), Expires: grant.Timestamp(at.Add(time.Hour)),
		Starts: []grant.Start{{Node: "a", After: grant.Timestamp(at)}}, MaxUnavailable: 1, Deadline: 60}
	doc, err := g.Encode()
	if err != nil {
		t.Fatal(err)
	}
	signed := func(doc []byte, k *signer.KeyFile) trust.Signed {
		t.Helper()
		sig, err := k.Sign(t.Context(), doc)
		if err != nil {
			t.Fatal(err)
		}
		return trust.Signed{Doc: doc, Sig: sig}
	}
	export := func(grants ...trust.Signed) []byte {
		t.Helper()
		var out bytes.Buffer
		if err := Export(t.Context(), b, Enclosed{Policies: []trust.Signed{signedPolicy(t, "one")}, Grants: grants}, &out, nil); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	take := func(file []byte) (*shelf, error) {
		s := &shelf{t: t}
		_, err := Import(t.Context(), bytes.NewReader(file), set, at, s)
		return s, err
	}
	good := signed(doc, release)
	file := export(good)
	got, err := take(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]trust.Signed{good}, got.grants); d != "" || len(got.policies) != 1 {
		t.Error(d, len(got.policies))
	}
	_, err = take(export(signed(doc, operator)))
	wantCode(t, err, problem.SignatureInvalid)
	_, err = take(export(signed([]byte("x"), release)))
	wantCode(t, err, problem.InvalidGrant)
	for name, change := range map[string]func([]entry) []entry{
		"before the policies": func(es []entry) []entry { return slices.Concat(es[:4], es[6:8], es[4:6], es[8:]) },
		"under another name": func(es []entry) []entry {
			es[6].Name, es[7].Name = "grants/x.json", "grants/x.json.asc"
			return es
		},
		"too many": func(es []entry) []entry {
			for range maxGrants {
				es = slices.Insert(es, 6, es[6], es[7])
			}
			return es
		},
		"huge": func(es []entry) []entry { es[6].body = make([]byte, 1<<20); return es },
	} {
		got, err := take(pack(t, change(entries(t, file))))
		if problem.CodeOf(err) != problem.InvalidFile {
			t.Errorf("%s: %v", name, err)
		}
		if len(got.chunks) > 0 {
			t.Errorf("%s: content was used", name)
		}
	}
	wantCode(t, Export(t.Context(), b, Enclosed{Grants: []trust.Signed{{Doc: doc}}}, &bytes.Buffer{}, nil), problem.InvalidGrant)
}
