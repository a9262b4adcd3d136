package trust_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/eddsa"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/patchmesh/patchmesh/internal/bed/gpghome"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// fixture is a document with a signature file, and what we and the others say about it.
type fixture struct {
	name      string
	doc, sig  []byte
	ring      []byte
	threshold int               // 0: 1
	want      trust.ReasonError // "": accepted
	// Who accepts a refused fixture, so that we know what our rule is for. One of the values below, or the name of
	// an accepted fixture that differs in the one thing that is wrong here.
	control string
}

// The values of fixture.control. Where the documented check accepts, we are stricter than it on purpose.
const (
	stricter   = "the documented check with gpgv"
	exitStatus = "gpgv, by its exit status"
	library    = "the library, with its default settings"
	dateless   = "the library, with its default settings and the zero time"
	counting   = "counting good signatures instead of signers"
)

// fixtures makes every fixture with the real gpg, and with the library where gpg refuses to do such a thing.
func fixtures(t *testing.T, h *gpghome.Home, now time.Time) []fixture {
	doc := []byte("a document\nof two lines\n")
	changed := []byte("a document\nof two Lines\n")
	crlf := bytes.ReplaceAll(doc, []byte("\n"), []byte("\r\n"))
	lastYear, lastMonth := now.AddDate(-1, 0, 0), now.AddDate(0, -1, 0)
	never := func(algo string) string { return h.Key(lastYear, algo, "sign", "never") }
	var fs []fixture
	add := func(name string, sig, ring []byte, want trust.ReasonError, control string) *fixture {
		fs = append(fs, fixture{name: name, doc: doc, sig: sig, ring: ring, threshold: 1, want: want, control: control})
		return &fs[len(fs)-1]
	}

	// Good ones.
	a, b := never("ed25519"), never("ed25519")
	ring, both := h.Export(a), h.Export(a, b)
	sig := h.Sign(lastMonth, a, doc)
	second := h.Sign(lastMonth, b, doc)
	add("good", sig, ring, "", "")
	add("good, armoured", h.Sign(lastMonth, a, doc, "--armor"), ring, "", "")
	add("good, armoured with a comment", h.Sign(lastMonth, a, doc, "--armor", "--comment", "by hand"), ring, "", "")
	add("good, armour with CR LF", bytes.ReplaceAll(h.Sign(lastMonth, a, doc, "--armor"), []byte("\n"), []byte("\r\n")), ring, "", "")
	add("good, armour without checksum", armoured(t, sig, false), ring, "", "")
	for _, hash := range []string{"SHA384", "SHA512"} {
		add("good, "+hash, h.Sign(lastMonth, a, doc, "--digest-algo", hash), ring, "", "")
	}
	for _, algo := range []string{"rsa3072", "nistp256"} {
		k := never(algo)
		add("good, "+algo, h.Sign(lastMonth, k, doc), h.Export(k), "", "")
	}
	add("one of two keys", second, both, "", "")
	add("two of two", slices.Concat(sig, second), both, "", "").threshold = 2
	add("two of two, armoured", armoured(t, slices.Concat(sig, second), true), both, "", "").threshold = 2
	add("signed twice", slices.Concat(sig, h.Sign(now, a, doc)), ring, "", "")
	add("the same signature twice", slices.Concat(sig, sig), ring, "", "")
	parent := never("ed25519")
	h.Subkey(lastYear, parent, "ed25519", "sign", "never")
	add("good, by a subkey", h.Sign(lastMonth, parent, doc), h.Export(parent), "", "")
	mine := newEntity(t, lastYear)
	add("good, by the library", signedByLibrary(t, mine, doc, lastMonth), public(t, mine), "", "")

	// The wrong document or the wrong signer.
	add("changed document", sig, ring, trust.ErrBad, "good").doc = changed
	add("empty document", sig, ring, trust.ErrBad, "good").doc = nil
	add("unknown signer", second, ring, trust.ErrUnknownKey, "one of two keys")
	add("unknown, then good", slices.Concat(second, sig), ring, trust.ErrUnknownKey, library)
	add("good, then unknown", slices.Concat(sig, second), ring, trust.ErrUnknownKey, library)
	bad := h.Sign(lastMonth, a, changed)
	add("bad, then good", slices.Concat(bad, sig), ring, trust.ErrBad, library)
	add("good, then bad", slices.Concat(sig, bad), ring, trust.ErrBad, library)

	// Thresholds.
	add("one of two needed", sig, both, trust.ErrThreshold, "two of two").threshold = 2
	add("the same signature twice, two needed", slices.Concat(sig, sig), both, trust.ErrThreshold, counting).threshold = 2
	add("signed twice, two needed", slices.Concat(sig, h.Sign(now, a, doc)), both, trust.ErrThreshold, counting).threshold = 2
	add("one signature and a bad one, two needed", slices.Concat(sig, h.Sign(lastMonth, b, changed)), both, trust.ErrBad, "two of two").threshold = 2

	// Keys past their end.
	short := h.Key(lastYear, "ed25519", "sign", "30d")
	add("expired key, dated while valid", h.Sign(lastYear.AddDate(0, 0, 3), short, doc), h.Export(short), trust.ErrKeyExpired, exitStatus)
	sub := never("ed25519")
	h.Subkey(lastYear, sub, "ed25519", "sign", "30d")
	add("expired subkey, dated while valid", h.Sign(lastYear.AddDate(0, 0, 3), sub, doc), h.Export(sub), trust.ErrKeyExpired, exitStatus)
	two := newEntity(t, lastYear)
	twoSig := signedByLibrary(t, two, doc, lastYear.AddDate(0, 0, 3))
	cfg := &packet.Config{KeyLifetimeSecs: 30 * 24 * 3600, Time: func() time.Time { return lastYear.AddDate(0, 0, 2) }}
	if err := two.AddUserId("second", "", "second@example.org", cfg); err != nil {
		t.Fatal(err)
	}
	add("key that expired by its newer user ID", twoSig, public(t, two), trust.ErrKeyExpired, library)
	for code, name := range map[string]string{"0": "without reason", "1": "superseded", "2": "compromised", "3": "retired"} {
		k := never("ed25519")
		s := h.Sign(now.AddDate(0, -6, 0), k, doc)
		h.Revoke(now.AddDate(0, -3, 0), k, code)
		add("key revoked as "+name+", dated before", s, h.Export(k), trust.ErrRevoked, exitStatus)
	}
	subSig, subRing := revokedSubkey(t, lastYear, now, doc)
	add("revoked subkey, dated before", subSig, subRing, trust.ErrRevoked, exitStatus)
	add("expired signature", h.Sign(lastMonth, a, doc, "--default-sig-expire", "1d"), ring, trust.ErrSignatureExpired, dateless)

	// Weak or unusual signatures and keys.
	add("SHA-1", h.Sign(lastMonth, a, doc, "--digest-algo", "SHA1"), ring, trust.ErrWeakHash, stricter)
	add("SHA-224", h.Sign(lastMonth, a, doc, "--digest-algo", "SHA224"), ring, trust.ErrWeakHash, stricter)
	for _, algo := range []string{"rsa1024", "rsa2048", "dsa2048", "secp256k1"} {
		k := never(algo)
		add(algo, h.Sign(lastMonth, k, doc, "--digest-algo", "SHA256"), h.Export(k), trust.ErrWeakKey, stricter)
	}
	sha1 := h.Key(lastYear, "ed25519", "sign", "never", "--cert-digest-algo", "SHA1")
	add("key bound with SHA-1", h.Sign(lastMonth, sha1, doc), h.Export(sha1), trust.ErrWeakKey, stricter)
	text := h.Sign(lastMonth, a, doc, "--textmode")
	add("text mode", text, ring, trust.ErrNotBinary, stricter)
	add("text mode, line endings changed", text, ring, trust.ErrNotBinary, stricter).doc = crlf
	handmade := func(name string, hashed, unhashed []byte, want trust.ReasonError, control string) {
		add(name, craft(t, mine, doc, hashed, unhashed), public(t, mine), want, control)
	}
	made := sub4(2, uint32(lastMonth.Unix()))
	issuer := slices.Concat([]byte{22, 33, 4}, mine.PrimaryKey.Fingerprint)
	id := slices.Concat([]byte{9, 16}, mine.PrimaryKey.Fingerprint[12:])
	handmade("good, by hand", slices.Concat(made, issuer), id, "", "")
	handmade("no issuer fingerprint", made, id, trust.ErrNoIssuer, stricter)
	handmade("issuer fingerprint not signed", made, issuer, trust.ErrNoIssuer, library)
	handmade("no issuer", made, nil, trust.ErrNoIssuer, "good, by hand")
	handmade("made at two times", slices.Concat(made, issuer, sub4(2, uint32(now.Unix()))), id, trust.ErrNotSignatures, stricter)
	handmade("unknown field", slices.Concat(made, issuer, []byte{2, 99, 0}), id, "", "")
	handmade("unknown critical field", slices.Concat(made, issuer, []byte{2, 0x80 | 99, 0}), id, trust.ErrNotSignatures, "unknown field")
	handmade("unknown critical field, not signed", slices.Concat(made, issuer), slices.Concat(id, []byte{2, 0x80 | 99, 0}), trust.ErrNotSignatures, library)
	handmade("unknown field, not signed", slices.Concat(made, issuer), slices.Concat(id, []byte{2, 99, 0}), trust.ErrNotSignatures, stricter)
	notation := append([]byte{20, 0, 0, 0, 0, 0, 13, 0, 1}, "n@example.orgv"...)
	handmade("notation", slices.Concat(made, issuer, []byte{byte(len(notation))}, notation), id, "", "")
	notation[0] |= 0x80
	handmade("critical notation", slices.Concat(made, issuer, []byte{byte(len(notation))}, notation), id, trust.ErrBad, "notation")
	add("a certification of the key", certification(t, ring), ring, trust.ErrNotBinary, "good")

	// Files that are more than signatures.
	add("five signatures", bytes.Repeat(sig, 5), ring, trust.ErrTooMany, stricter)
	add("fifty signatures", bytes.Repeat(sig, 50), ring, trust.ErrTooMany, stricter)
	add("a marker behind", append(slices.Clone(sig), 0xca, 3, 'P', 'G', 'P'), ring, trust.ErrNotSignatures, stricter)
	add("a private packet behind", append(slices.Clone(sig), 0xc0|60, 2, 0, 0), ring, trust.ErrNotSignatures, stricter)
	add("a user ID behind", append(slices.Clone(sig), 0xcd, 1, 'x'), ring, trust.ErrNotSignatures, stricter)
	add("a literal packet behind", append(slices.Clone(sig), 0xcb, 7, 'b', 0, 0, 0, 0, 0, 'x'), ring, trust.ErrNotSignatures, "good")
	add("the key behind", slices.Concat(sig, ring), ring, trust.ErrNotSignatures, stricter)
	add("a stray byte behind", append(slices.Clone(sig), 0), ring, trust.ErrNotSignatures, stricter)
	add("bytes inside the packet, behind the signature", longer(sig), ring, trust.ErrNotSignatures, stricter)
	add("a packet of indefinite length", append([]byte{0x8b}, sig[2:]...), ring, trust.ErrNotSignatures, "good")
	arm := armoured(t, sig, true)
	add("text before the armour", append([]byte("read me first\n"), arm...), ring, trust.ErrNotSignatures, stricter)
	add("text behind the armour", append(slices.Clone(arm), "and this\n"...), ring, trust.ErrNotSignatures, stricter)
	add("two armoured blocks", slices.Concat(arm, arm), ring, trust.ErrNotSignatures, stricter)
	add("armour of another kind", bytes.ReplaceAll(arm, []byte("SIGNATURE"), []byte("MESSAGE")), ring, trust.ErrNotSignatures, stricter)
	add("armour with a wrong checksum", wrongChecksum(arm), ring, trust.ErrNotSignatures, library)
	add("clear-signed text", h.Run(lastMonth, doc, "--local-user", a, "--output", "-", "--clearsign"), ring, trust.ErrNotSignatures, "good")
	add("signed message with the document inside", h.Run(lastMonth, doc, "--local-user", a, "--output", "-", "--sign"), ring, trust.ErrNotSignatures, "good")
	add("cut off", sig[:len(sig)-1], ring, trust.ErrNotSignatures, "good")
	add("empty file", nil, ring, trust.ErrNotSignatures, "good")
	return fs
}

// We and the documented check with stock gpgv agree on every fixture, except where we are stricter, and the table
// says where. We never accept what it refuses.
func TestAgreesWithGPGV(t *testing.T) {
	h := gpghome.New(t)
	now := time.Now().Truncate(time.Second)
	fs := fixtures(t, h, now)
	accepted := make(map[string]bool)
	var strict []string
	for _, f := range fs {
		if f.want == "" {
			accepted[f.name] = true
		}
		if f.control == stricter {
			strict = append(strict, f.name)
		}
	}
	for _, f := range fs {
		t.Run(f.name, func(t *testing.T) {
			keys := roleKeys(t, f.ring, f.threshold)
			set := trust.Set{Release: keys}
			v, err := set.Verify(trust.RoleRelease, trust.Signed{Doc: f.doc, Sig: f.sig}, now)
			checkReason(t, err, f.want)
			gpgv := h.Verify(f.ring, f.sig, f.doc)
			recipe := gpgv.Accepts(f.threshold)
			if err == nil {
				if gpgv.Exit != 0 || !slices.Equal(v.Signers, gpgv.Signers) {
					t.Errorf("we accept %v, gpgv exits %d with %v:\n%s", v.Signers, gpgv.Exit, gpgv.Signers, gpgv.Status)
				}
				if names, err := keys.Signers(f.sig); err != nil || !slices.Equal(names, v.Signers) {
					t.Errorf("told later it is by %v, %v; it was accepted by %v", names, err, v.Signers)
				}
			}
			if want := f.want == "" || f.control == stricter; recipe != want {
				t.Errorf("the documented check says %t, want %t:\n%s", recipe, want, gpgv.Status)
			}
			switch f.control {
			case "", stricter:
			case exitStatus:
				if gpgv.Exit != 0 || len(gpgv.Signers) == 0 {
					t.Errorf("gpgv exits %d:\n%s", gpgv.Exit, gpgv.Status)
				}
			case library:
				if good, err := bare(f, nil); good == 0 {
					t.Errorf("the library refuses it: %v", err)
				}
			case dateless:
				if good, err := bare(f, &packet.Config{Time: func() time.Time { return time.Time{} }}); good == 0 {
					t.Errorf("the library refuses it: %v", err)
				}
			case counting:
				if good, err := bare(f, nil); good < f.threshold {
					t.Errorf("the library sees %d good signatures, %v", good, err)
				}
			default:
				if !accepted[f.control] {
					t.Errorf("control %q is not an accepted fixture", f.control)
				}
			}
		})
	}
	t.Logf("%d fixtures, %d accepted; stricter than the documented check on %d: %s", len(fs), len(accepted), len(strict), strings.Join(strict, ", "))
}

// gpgv and the library, once the clock is there, accept a signature from the future; a manifest that says when it was
// made does not.
func TestDatedInTheFuture(t *testing.T) {
	h := gpghome.New(t)
	now := time.Now().Truncate(time.Second).UTC()
	doc := newManifest(t, now)
	key := h.Key(time.Time{}, "ed25519", "sign", "never")
	sig, ring := h.Sign(now.AddDate(4, 0, 0), key, doc), h.Export(key)
	if o := h.Verify(ring, sig, doc); !o.Accepts(1) {
		t.Errorf("gpgv refuses it:\n%s", o.Status)
	}
	set := trust.Set{Release: roleKeys(t, ring, 1)}
	_, _, err := set.OpenManifest(trust.Signed{Doc: doc, Sig: sig}, now)
	checkReason(t, err, trust.ErrCreated)
}

// What a mutated signature file may still be accepted as, gpgv accepts too, with the same signer: only bytes that the
// signature does not cover can change.
func TestMutationsAgreeWithGPGV(t *testing.T) {
	h := gpghome.New(t)
	doc := []byte("a document\n")
	key := h.Key(time.Time{}, "ed25519", "sign", "never")
	good := h.Sign(time.Time{}, key, doc)
	ring := h.Export(key)
	set := trust.Set{Release: roleKeys(t, ring, 1)}
	now := time.Now()
	rng := rand.New(rand.NewPCG(1, 2))
	const rounds = 20000
	var accepted int
	for range rounds {
		sig := slices.Clone(good)
		for range 1 + rng.IntN(3) {
			switch i := rng.IntN(len(sig)); rng.IntN(3) {
			case 0:
				sig[i] ^= 1 << rng.IntN(8)
			case 1:
				sig[i] = byte(rng.Uint32())
			case 2:
				sig = slices.Delete(sig, i, i+1)
			}
		}
		if bytes.Equal(sig, good) {
			continue
		}
		v, err := set.Verify(trust.RoleRelease, trust.Signed{Doc: doc, Sig: sig}, now)
		if err != nil {
			continue
		}
		accepted++
		if o := h.Verify(ring, sig, doc); !o.Accepts(1) || !slices.Equal(o.Signers, v.Signers) {
			t.Fatalf("we accept %x by %v, gpgv does not:\n%s", sig, v.Signers, o.Status)
		}
	}
	t.Logf("%d of %d mutations change nothing that is signed, and gpgv accepts those", accepted, rounds)
	if accepted == 0 {
		t.Error("no mutation was accepted: the comparison saw nothing")
	}
}

// roleKeys trusts every key of a ring, also those that NewRoleKeys would refuse.
func roleKeys(t *testing.T, ring []byte, threshold int) trust.RoleKeys {
	t.Helper()
	keys, err := trust.ReadKeys(ring)
	if err != nil {
		t.Fatal(err)
	}
	rk := trust.RoleKeys{Threshold: threshold, Keyring: ring}
	for _, k := range keys {
		rk.Fingerprints = append(rk.Fingerprints, k.Fingerprint)
	}
	return rk
}

// bare counts the signatures that the library by itself finds good.
func bare(f fixture, cfg *packet.Config) (good int, err error) {
	ring, err := openpgp.ReadKeyRing(bytes.NewReader(f.ring))
	if err != nil {
		return 0, err
	}
	sig := f.sig
	if block, err := armor.Decode(bytes.NewReader(sig)); err == nil {
		if sig, err = io.ReadAll(block.Body); err != nil {
			return 0, err
		}
	}
	md, err := openpgp.VerifyDetachedSignatureReader(ring, bytes.NewReader(f.doc), bytes.NewReader(sig), cfg)
	if err != nil {
		return 0, err
	}
	if _, err := io.Copy(io.Discard, md.UnverifiedBody); err != nil {
		return 0, err
	}
	for _, c := range md.SignatureCandidates {
		if c.SignatureError == nil {
			good++
		}
	}
	return good, md.SignatureError
}

func newEntity(t *testing.T, at time.Time) *openpgp.Entity {
	t.Helper()
	return entity(t, &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Curve: packet.Curve25519, Time: func() time.Time { return at }})
}

func entity(t *testing.T, cfg *packet.Config) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity("test", "", "test@example.org", cfg)
	if err != nil {
		t.Fatal(err)
	}
	e.Subkeys = nil
	return e
}

func public(t *testing.T, e *openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := e.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func signedByLibrary(t *testing.T, e *openpgp.Entity, doc []byte, at time.Time) []byte {
	t.Helper()
	var b bytes.Buffer
	cfg := &packet.Config{Time: func() time.Time { return at }}
	if err := openpgp.DetachSign(&b, []*openpgp.Entity{e}, bytes.NewReader(doc), cfg); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// craft makes a signature packet with any fields, those that are signed and those that are not.
func craft(t *testing.T, e *openpgp.Entity, doc, hashed, unhashed []byte) []byte {
	t.Helper()
	signed := binary.BigEndian.AppendUint16([]byte{4, 0, byte(packet.PubKeyAlgoEdDSA), 8}, uint16(len(hashed)))
	signed = append(signed, hashed...)
	sum := sha256.New()
	sum.Write(doc)
	sum.Write(signed)
	sum.Write(binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(len(signed))))
	digest := sum.Sum(nil)
	r, s, err := eddsa.Sign(e.PrivateKey.PrivateKey.(*eddsa.PrivateKey), digest)
	if err != nil {
		t.Fatal(err)
	}
	body := binary.BigEndian.AppendUint16(signed, uint16(len(unhashed)))
	body = append(append(body, unhashed...), digest[:2]...)
	for _, n := range [][]byte{r, s} {
		x := new(big.Int).SetBytes(n)
		body = append(binary.BigEndian.AppendUint16(body, uint16(x.BitLen())), x.Bytes()...)
	}
	return append(binary.BigEndian.AppendUint16([]byte{0x89}, uint16(len(body))), body...)
}

// sub4 is a signature field that holds a number of four bytes.
func sub4(kind byte, n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{5, kind}, n) }

// revokedSubkey signs with a subkey that is revoked later as superseded.
func revokedSubkey(t *testing.T, at, now time.Time, doc []byte) (sig, ring []byte) {
	t.Helper()
	e := newEntity(t, at)
	cfg := func(at time.Time) *packet.Config {
		return &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Curve: packet.Curve25519, Time: func() time.Time { return at }}
	}
	if err := e.AddSigningSubkey(cfg(at)); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := openpgp.DetachSign(&buf, []*openpgp.Entity{e}, bytes.NewReader(doc), cfg(at.AddDate(0, 1, 0))); err != nil {
		t.Fatal(err)
	}
	if err := e.Subkeys[0].Revoke(packet.KeySuperseded, "", cfg(now.AddDate(0, -1, 0))); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), public(t, e)
}

func armoured(t *testing.T, b []byte, checksum bool) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := armor.EncodeWithChecksumOption(&buf, "PGP SIGNATURE", nil, checksum)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// certification is the signature packet with which the key binds its user ID.
func certification(t *testing.T, ring []byte) []byte {
	t.Helper()
	r := packet.NewReader(bytes.NewReader(ring))
	for {
		p, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := p.(*packet.Signature); ok {
			var b bytes.Buffer
			if err := s.Serialize(&b); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}
	}
}

// longer adds three bytes to a signature packet with a one-byte length, which both header formats of gpg have.
func longer(sig []byte) []byte {
	out := append(slices.Clone(sig), 0xcd, 1, 'x')
	out[1] += 3
	return out
}

func wrongChecksum(arm []byte) []byte {
	lines := bytes.Split(arm, []byte("\n"))
	for i, l := range lines {
		if len(l) == 5 && l[0] == '=' {
			lines[i] = []byte("=AAAA")
		}
	}
	return bytes.Join(lines, []byte("\n"))
}
