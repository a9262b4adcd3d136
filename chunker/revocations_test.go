package chunker

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/revocation"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// A stick carries the list of revoked bundles too, before the policies that it may refuse. It is taken with the operator's
// signature only, and nowhere else.
func TestStickCarriesRevocations(t *testing.T) {
	release, operator, _ := keys(t)
	list, err := (*revocation.List)(nil).Add(revocation.Bundle{Bundle: "app", Version: "1.0", Checksum: manifest.DigestOf([]byte("1.0")),
		Revoked: revocation.Timestamp(at), Reason: "tills freeze"}, at).Encode()
	if err != nil {
		t.Fatal(err)
	}
	b := build(t, sample())
	with := func(list []byte, sig []byte) []byte {
		t.Helper()
		var out bytes.Buffer
		if err := Export(t.Context(), b, Enclosed{Policies: []trust.Signed{signedPolicy(t, "one")}, Revocations: trust.Signed{Doc: list, Sig: sig}}, &out, nil); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	good, err := operator.Sign(t.Context(), list)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := release.Sign(t.Context(), list)
	if err != nil {
		t.Fatal(err)
	}
	file := with(list, good)
	got := &shelf{t: t}
	if _, err := importStick(t, bytes.NewReader(file), got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]trust.Signed{{Doc: list, Sig: good}}, got.revoked); d != "" || len(got.policies) != 1 {
		t.Error(d, len(got.policies))
	}
	_, err = importStick(t, bytes.NewReader(with(list, bad)), &shelf{t: t})
	wantCode(t, err, problem.SignatureInvalid)
	x := []byte("x")
	sig, err := operator.Sign(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	_, err = importStick(t, bytes.NewReader(with(x, sig)), &shelf{t: t})
	wantCode(t, err, problem.InvalidRevocation)
	es := entries(t, file)
	es = slices.Concat(es[:4], es[6:8], es[4:6], es[8:]) // behind the policies
	_, err = importStick(t, bytes.NewReader(pack(t, es)), &shelf{t: t})
	wantCode(t, err, problem.InvalidFile, "revocations.json")
}
