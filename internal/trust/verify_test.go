package trust_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/bed/gpghome"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

var epoch = time.Date(2026, 8, 25, 12, 0, 0, 0, time.UTC)

// newSigner makes a key at epoch that signs at the time in *now.
func newSigner(t *testing.T, lifetime time.Duration, now *time.Time) *signer.KeyFile {
	t.Helper()
	priv, _, _, err := signer.GenerateKey(signer.KeyOptions{Name: "test", Email: "test@example.org", Created: epoch, Lifetime: lifetime})
	if err != nil {
		t.Fatal(err)
	}
	k, err := signer.FromKey(priv, nil)
	if err != nil {
		t.Fatal(err)
	}
	k.Now = func() time.Time { return *now }
	return k
}

func sign(t *testing.T, k signer.Signer, doc []byte) trust.Signed {
	t.Helper()
	sig, err := k.Sign(context.Background(), doc)
	if err != nil {
		t.Fatal(err)
	}
	return trust.Signed{Doc: doc, Sig: sig}
}

func newRole(t *testing.T, threshold int, signers ...signer.Signer) trust.RoleKeys {
	t.Helper()
	var keys []trust.Key
	for _, s := range signers {
		keys = append(keys, s.Public())
	}
	rk, err := trust.NewRoleKeys(threshold, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return rk
}

// checkReason compares an error with the reason it should have; "" wants none.
func checkReason(t *testing.T, err error, want trust.ReasonError) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && err == nil:
		t.Errorf("accepted, want: %s", want)
	case want != "" && !errors.Is(err, want):
		t.Errorf("refused with %v, want %s", err, want)
	case want != "" && problem.CodeOf(err) != problem.SignatureInvalid:
		t.Errorf("code %s", problem.CodeOf(err))
	}
}

// Files over a cap are refused before a key is looked at: the keyring here is garbage, and nobody notices.
func TestCapsComeFirst(t *testing.T) {
	now := epoch
	k := newSigner(t, 0, &now)
	d := sign(t, k, []byte("a document"))
	sigs, err := trust.SplitSignatures(d.Sig)
	if err != nil {
		t.Fatal(err)
	}
	garbage := trust.Set{Release: trust.RoleKeys{Threshold: 1, Fingerprints: []string{k.Fingerprint()}, Keyring: []byte("garbage")}}
	for _, c := range []struct {
		copies int
		want   trust.ReasonError
	}{
		{4, trust.ErrKeys}, // the positive control: within the caps the keyring is looked at
		{5, trust.ErrTooMany},
		{5000, trust.ErrTooLarge},
	} {
		many := trust.Signed{Doc: d.Doc, Sig: bytes.Repeat(sigs[0], c.copies)}
		_, err := garbage.Verify(trust.RoleRelease, many, epoch)
		checkReason(t, err, c.want)
		if c.want == trust.ErrKeys {
			continue
		}
		if n := testing.AllocsPerRun(10, func() { garbage.Verify(trust.RoleRelease, many, epoch) }); n > 50 {
			t.Errorf("%d signatures cost %v allocations", c.copies, n) // one check costs about 200
		}
	}
	// The positive control: without the caps the library checks all 5,000.
	if good, err := bare(fixture{doc: d.Doc, sig: bytes.Repeat(sigs[0], 5000), ring: k.Public().Raw}, nil); good != 5000 {
		t.Errorf("the library finds %d good signatures, %v", good, err)
	}
}

func TestRoles(t *testing.T) {
	now := epoch
	a, b := newSigner(t, 0, &now), newSigner(t, 0, &now)
	d := sign(t, a, []byte("a document"))
	set := trust.Set{Release: newRole(t, 1, a), Policy: newRole(t, 1, b)}
	v, err := set.Verify(trust.RoleRelease, d, epoch)
	if err != nil || !slices.Equal(v.Signers, []string{a.Fingerprint()}) || !v.Newest().Equal(epoch) {
		t.Errorf("verdict %+v, %v", v, err)
	}
	_, err = set.Verify(trust.RolePolicy, d, epoch)
	checkReason(t, err, trust.ErrUnknownKey)
	_, err = set.Verify(trust.RoleRoster, d, epoch) // no keys at all
	checkReason(t, err, trust.ErrKeys)
	_, err = set.Verify("", d, epoch)
	checkReason(t, err, trust.ErrKeys)
	_, err = set.Verify("root", d, epoch)
	checkReason(t, err, trust.ErrKeys)
}

// What a seeder or a disk may hand us as the keys of a role, and must not get through.
func TestRoleKeys(t *testing.T) {
	now := epoch
	a, b := newSigner(t, 0, &now), newSigner(t, 0, &now)
	d := sign(t, a, []byte("a document"))
	ring, fp := a.Public().Raw, a.Fingerprint()
	for name, c := range map[string]struct {
		keys trust.RoleKeys
		want trust.ReasonError
	}{
		"good":                          {trust.RoleKeys{Threshold: 1, Fingerprints: []string{fp}, Keyring: ring}, ""},
		"threshold 0":                   {trust.RoleKeys{Threshold: 0, Fingerprints: []string{fp}, Keyring: ring}, trust.ErrKeys},
		"threshold below 0":             {trust.RoleKeys{Threshold: -1, Fingerprints: []string{fp}, Keyring: ring}, trust.ErrKeys},
		"threshold above the keys":      {trust.RoleKeys{Threshold: 2, Fingerprints: []string{fp}, Keyring: ring}, trust.ErrKeys},
		"no keys":                       {trust.RoleKeys{Threshold: 1}, trust.ErrKeys},
		"fingerprint listed twice":      {trust.RoleKeys{Threshold: 2, Fingerprints: []string{fp, fp}, Keyring: ring}, trust.ErrKeys},
		"key twice in the keyring":      {trust.RoleKeys{Threshold: 1, Fingerprints: []string{fp}, Keyring: slices.Concat(ring, ring)}, trust.ErrKeys},
		"listed key missing":            {trust.RoleKeys{Threshold: 1, Fingerprints: []string{fp, b.Fingerprint()}, Keyring: ring}, trust.ErrKeys},
		"key that is not listed":        {trust.RoleKeys{Threshold: 1, Fingerprints: []string{fp}, Keyring: slices.Concat(ring, b.Public().Raw)}, trust.ErrKeys},
		"another key than listed":       {trust.RoleKeys{Threshold: 1, Fingerprints: []string{b.Fingerprint()}, Keyring: ring}, trust.ErrKeys},
		"short fingerprint":             {trust.RoleKeys{Threshold: 1, Fingerprints: []string{fp[24:]}, Keyring: ring}, trust.ErrKeys},
		"keyring too large":             {trust.RoleKeys{Threshold: 1, Fingerprints: []string{fp}, Keyring: bytes.Repeat(ring, 1+trust.MaxKeyringBytes/len(ring))}, trust.ErrKeys},
		"keyring cut off":               {trust.RoleKeys{Threshold: 1, Fingerprints: []string{fp}, Keyring: ring[:len(ring)-1]}, trust.ErrKeys},
		"too many fingerprints":         {trust.RoleKeys{Threshold: 1, Fingerprints: make([]string, trust.MaxKeys+1), Keyring: ring}, trust.ErrKeys},
		"the signer and somebody else":  {newRole(t, 1, a, b), ""},
		"the signer given twice":        {newRole(t, 1, a, a), ""},
		"two needed, one of them there": {newRole(t, 2, a, b), trust.ErrThreshold},
	} {
		t.Run(name, func(t *testing.T) {
			set := trust.Set{Release: c.keys}
			_, err := set.Verify(trust.RoleRelease, d, epoch)
			checkReason(t, err, c.want)
		})
	}
	if _, err := trust.NewRoleKeys(2, a.Public(), a.Public()); !errors.Is(err, trust.ErrKeys) {
		t.Errorf("one key given twice makes a threshold of two: %v", err)
	}
	if _, err := trust.NewRoleKeys(0, a.Public()); !errors.Is(err, trust.ErrKeys) {
		t.Errorf("threshold 0: %v", err)
	}
}

// Every reason can be asked for, one for each signature and one for the number.
func TestReasonsAreKept(t *testing.T) {
	now := epoch
	a, b, c := newSigner(t, 0, &now), newSigner(t, 0, &now), newSigner(t, 0, &now)
	doc := []byte("a document")
	wrong, foreign := sign(t, a, []byte("another")), sign(t, c, doc)
	sig, err := signer.Append(wrong.Sig, foreign.Sig)
	if err != nil {
		t.Fatal(err)
	}
	set := trust.Set{Release: newRole(t, 2, a, b)}
	_, err = set.Verify(trust.RoleRelease, trust.Signed{Doc: doc, Sig: sig}, epoch)
	var refusal *trust.RefusedError
	if !errors.As(err, &refusal) || len(refusal.Errors) != 3 {
		t.Fatalf("error %v", err)
	}
	for i, want := range []trust.ReasonError{trust.ErrBad, trust.ErrUnknownKey, trust.ErrThreshold} {
		if !errors.Is(refusal.Errors[i], want) {
			t.Errorf("reason %d is %v, want %s", i, refusal.Errors[i], want)
		}
	}
}

// No clock decides but the time handed in, and that only ever ends the life of a key, never delays its beginning.
func TestTimes(t *testing.T) {
	at := func(year int) time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
	now := epoch
	forever, year := newSigner(t, 0, &now), newSigner(t, 365*24*time.Hour, &now)
	end := epoch.Add(365 * 24 * time.Hour)
	doc := []byte("a document")
	for _, c := range []struct {
		name string
		key  *signer.KeyFile
		at   time.Time
		want trust.ReasonError
	}{
		{"no time known", forever, time.Time{}, ""},
		{"floor of 1970", forever, at(1970), ""},
		{"floor before the signature", forever, epoch.Add(-time.Hour), ""},
		{"floor of 2099", forever, at(2099), ""},
		{"key with an end, no time known", year, time.Time{}, ""},
		{"key with an end, floor of 1970", year, at(1970), ""},
		{"key with an end, last second", year, end.Add(-time.Second), ""},
		{"key with an end, at its end", year, end, trust.ErrKeyExpired},
		{"key with an end, floor of 2099", year, at(2099), trust.ErrKeyExpired},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := trust.Set{Release: newRole(t, 1, c.key)}
			_, err := set.Verify(trust.RoleRelease, sign(t, c.key, doc), c.at)
			checkReason(t, err, c.want)
		})
	}
	// A document from a machine whose clock runs ahead is accepted whatever the node's clock says. The positive
	// control: the library by itself asks the clock and refuses.
	now = time.Now().AddDate(10, 0, 0)
	d := sign(t, forever, doc)
	set := trust.Set{Release: newRole(t, 1, forever)}
	if _, err := set.Verify(trust.RoleRelease, d, epoch); err != nil {
		t.Errorf("dated in the future: %v", err)
	}
	if good, _ := bare(fixture{doc: doc, sig: d.Sig, ring: forever.Public().Raw}, nil); good != 0 {
		t.Error("the library does not ask the clock: this test sees nothing")
	}
}

func newManifest(t *testing.T, created time.Time) []byte {
	t.Helper()
	index := chunk.Sum([]byte("index"))
	m := &manifest.Manifest{
		Schema: manifest.SchemaManifest, Name: "pos", Version: "1", Sequence: 1,
		Target:  manifest.Target{OS: manifest.Any, Release: manifest.Any, Arch: manifest.Any, Format: manifest.FormatFiles},
		Created: created, Expires: created.AddDate(0, 2, 0), Supersedes: []string{}, Files: 1, TotalBytes: 1,
		Index: manifest.IndexRef{ID: index, Size: 5, Chunks: []manifest.ChunkRef{{ID: index, Size: 5}}},
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenManifest(t *testing.T) {
	now := epoch
	k := newSigner(t, 0, &now)
	set := trust.Set{Release: newRole(t, 1, k), Policy: newRole(t, 1, newSigner(t, 0, &now))}
	doc := newManifest(t, epoch.Add(72*time.Hour))
	for _, c := range []struct {
		name   string
		signed time.Duration // after epoch
		want   trust.ReasonError
	}{
		{"48 hours before", 24 * time.Hour, ""},
		{"more than 48 hours before", 24*time.Hour - time.Second, trust.ErrCreated},
		{"at once", 72 * time.Hour, ""},
		{"48 hours after", 120 * time.Hour, ""},
		{"more than 48 hours after", 120*time.Hour + time.Second, trust.ErrCreated},
		{"in 2030", 4 * 365 * 24 * time.Hour, trust.ErrCreated},
	} {
		t.Run(c.name, func(t *testing.T) {
			now = epoch.Add(c.signed)
			d := sign(t, k, doc)
			m, v, err := set.OpenManifest(d, epoch)
			checkReason(t, err, c.want)
			if err == nil && (m.Name != "pos" || !v.Newest().Equal(now)) {
				t.Errorf("manifest %+v, verdict %+v", m, v)
			}
			if err != nil && m != nil {
				t.Error("a refused manifest is handed out")
			}
			// The positive control: without the rule of 48 hours it is a good signature.
			if _, err := set.Verify(trust.RoleRelease, d, epoch); err != nil {
				t.Error(err)
			}
		})
	}
	now = epoch
	for name, doc := range map[string][]byte{
		"not a manifest":   []byte("hello"),
		"other spacing":    append(newManifest(t, epoch), '\n'),
		"too large":        bytes.Repeat([]byte(" "), manifest.MaxManifestBytes+1),
		"repeated key":     bytes.Replace(newManifest(t, epoch), []byte(`"sequence": 1,`), []byte(`"sequence": 9, "sequence": 1,`), 1),
		"another document": []byte(`{"schema":"patchmesh.io/roster/v1"}`),
	} {
		if _, _, err := set.OpenManifest(sign(t, k, doc), epoch); problem.CodeOf(err) != problem.ManifestInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	d := sign(t, k, newManifest(t, epoch))
	d.Doc = bytes.Replace(d.Doc, []byte(`"pos"`), []byte(`"pot"`), 1)
	_, _, err := set.OpenManifest(d, epoch)
	checkReason(t, err, trust.ErrBad)
}

func TestFloor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var floor time.Time
		for _, s := range rapid.SliceOf(rapid.Int64Range(0, 1<<33)).Draw(t, "times") {
			next := trust.Floor(floor, time.Unix(s, 0))
			if next.Before(floor) || next.Before(time.Unix(s, 0)) {
				t.Fatalf("floor %s after %s and %d", next, floor, s)
			}
			floor = next
		}
	})
	if !trust.Floor().IsZero() {
		t.Error("the floor of nothing is a time")
	}
}

func TestReadKeys(t *testing.T) {
	priv, pub, fp, err := signer.GenerateKey(signer.KeyOptions{Name: "test", Email: "test@example.org", Created: epoch, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := trust.ReadKeys(pub)
	if err != nil {
		t.Fatal(err)
	}
	k := keys[0]
	if len(keys) != 1 || k.Fingerprint != fp || k.UserID != "test <test@example.org>" || !k.Created.Equal(epoch) || !k.Expires.Equal(epoch.Add(time.Hour)) {
		t.Errorf("keys %+v", keys)
	}
	if again, err := trust.ReadKeys(k.Raw); err != nil || again[0].Fingerprint != fp {
		t.Errorf("binary: %v", err)
	}
	v6 := newEntityV6(t)
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"garbage":           []byte("garbage"),
		"secret key":        priv,
		"signature armour":  bytes.ReplaceAll(pub, []byte("PUBLIC KEY BLOCK"), []byte("SIGNATURE")),
		"the same twice":    slices.Concat(k.Raw, k.Raw),
		"too large":         bytes.Repeat(k.Raw, 1+trust.MaxKeyringBytes/len(k.Raw)),
		"cut off":           k.Raw[:len(k.Raw)-1],
		"user ID first":     append([]byte{0xcd, 1, 'x'}, k.Raw...),
		"a literal behind":  append(slices.Clone(k.Raw), 0xcb, 7, 'b', 0, 0, 0, 0, 0, 'x'),
		"key of version 6":  v6,
		"no user ID":        k.Raw[:2+int(k.Raw[1])],
		"text before":       append([]byte("hello\n"), pub...),
		"two armour blocks": slices.Concat(pub, pub),
	} {
		if keys, err := trust.ReadKeys(b); err == nil {
			t.Errorf("%s: read as %+v", name, keys)
		}
	}
}

// The library does not see a revocation that it cannot read or that stands in another place. We do.
func TestRevocationsAreNotLost(t *testing.T) {
	now := epoch
	ring := newSigner(t, 0, &now).Public().Raw
	for name, body := range map[string][]byte{
		"behind the user ID": {4, 0x20, 22, 8, 0, 0, 0, 0, 0, 0, 0, 0},
		"of version 3":       {3, 5, 0x20, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 0, 0},
		"of a subkey":        {4, 0x28, 22, 8, 0, 0, 0, 0, 0, 0, 0, 0},
		"of unknown kind":    {9, 0x20, 99, 99},
	} {
		revoked := slices.Concat(ring, []byte{0xc2, byte(len(body))}, body)
		if keys, err := trust.ReadKeys(revoked); err == nil {
			t.Errorf("%s: read as %+v", name, keys)
		}
	}
	// The positive control: another signature there is of no interest.
	if _, err := trust.ReadKeys(slices.Concat(ring, []byte{0xc2, 4, 9, 0x10, 99, 99})); err != nil {
		t.Error(err)
	}
}

func TestNewRoleKeysRefuses(t *testing.T) {
	h := gpghome.New(t)
	for name, key := range map[string]string{
		"RSA of 2048 bits": h.Key(time.Time{}, "rsa2048", "sign", "never"),
		"certifies only":   h.Key(time.Time{}, "ed25519", "cert", "never"),
		"bound with SHA-1": h.Key(time.Time{}, "ed25519", "sign", "never", "--cert-digest-algo", "SHA1"),
	} {
		keys, err := trust.ReadKeys(h.Export(key))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trust.NewRoleKeys(1, keys...); !errors.Is(err, trust.ErrWeakKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	key := h.Key(time.Time{}, "ed25519", "sign", "never")
	h.Revoke(time.Time{}, key, "1")
	keys, err := trust.ReadKeys(h.Export(key))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.NewRoleKeys(1, keys...); !errors.Is(err, trust.ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
}

func TestSetFile(t *testing.T) {
	now := epoch
	a, b, c := newSigner(t, 0, &now), newSigner(t, 0, &now), newSigner(t, 0, &now)
	set := trust.Set{Release: newRole(t, 2, a, b), Policy: newRole(t, 1, b), Roster: newRole(t, 1, c)}
	file, err := set.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := trust.ParseSet(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.Release.Threshold != 2 || !slices.Equal(got.Release.Fingerprints, set.Release.Fingerprints) || !bytes.Equal(got.Release.Keyring, set.Release.Keyring) {
		t.Errorf("read back as %+v", got)
	}
	for name, bad := range map[string][]byte{
		"empty":            nil,
		"null":             []byte("null\n"),
		"no keys":          []byte("{}\n"),
		"other spacing":    bytes.ReplaceAll(file, []byte("\n "), []byte("\n  ")),
		"unknown field":    bytes.Replace(file, []byte("{\n"), []byte("{\n \"root\": {},\n"), 1),
		"other letters":    bytes.Replace(file, []byte(`"release"`), []byte(`"Release"`), 1),
		"threshold 0":      bytes.Replace(file, []byte(`"threshold": 2`), []byte(`"threshold": 0`), 1),
		"threshold missed": bytes.Replace(file, []byte(`"threshold": 2`), []byte(`"threshold": 3`), 1),
		"bytes behind":     append(slices.Clone(file), '{'),
		"too large":        bytes.Repeat([]byte(" "), trust.MaxSetBytes+1),
	} {
		if _, err := trust.ParseSet(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	set.Roster = trust.RoleKeys{}
	if _, err := set.Encode(); !errors.Is(err, trust.ErrKeys) {
		t.Errorf("a set without roster keys: %v", err)
	}
}

// One set is shared by everything in a daemon. The library caches what it has checked inside keys; the race detector
// would see a shared one.
func TestConcurrentUse(t *testing.T) {
	now := epoch
	k := newSigner(t, 0, &now)
	set := trust.Set{Release: newRole(t, 1, k)}
	d := sign(t, k, []byte("a document"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if _, err := set.Verify(trust.RoleRelease, d, epoch); err != nil {
					t.Error(err)
				}
				if _, err := k.Sign(context.Background(), d.Doc); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func newEntityV6(t *testing.T) []byte {
	t.Helper()
	return public(t, entity(t, &packet.Config{V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519, Time: func() time.Time { return epoch }}))
}
