package enrol_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

const (
	secret = "00112233445566778899aabbccddeeff"
	seeder = "12D3KooWRm8J3iL796zPFi2EtGGtUJn58AG67gcqzMzpMGGtqrDp"
)

func newKey(t testing.TB) trust.Key {
	t.Helper()
	_, pub, _, err := signer.Generate("test", "test@example.org")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := trust.ReadKeys(pub)
	if err != nil {
		t.Fatal(err)
	}
	return keys[0]
}

func newRole(t testing.TB, threshold int, keys ...trust.Key) trust.RoleKeys {
	t.Helper()
	rk, err := trust.NewRoleKeys(threshold, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return rk
}

func newSet(t testing.TB) trust.Set {
	t.Helper()
	return trust.Set{Release: newRole(t, 2, newKey(t), newKey(t)), Policy: newRole(t, 1, newKey(t)), Roster: newRole(t, 1, newKey(t))}
}

// token pins fingerprints that are nobody's, so that it is the same every time.
func token() enrol.Token {
	pins := make(map[trust.Role]enrol.Pins)
	for i, role := range trust.Roles() {
		pins[role] = enrol.Pins{Threshold: 1, Fingerprints: []string{strings.Repeat(string(rune('A'+i)), 40)}}
	}
	return enrol.Token{
		Site: "store-0042", URLs: []string{"https://seeder.example.org:7443"}, Seeder: seeder,
		Secret: secret, Expires: 1788000000, Pins: pins,
	}
}

func TestToken(t *testing.T) {
	want := token()
	word := want.Encode()
	if strings.Trim(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" || !strings.HasPrefix(word, "pmt1_") {
		t.Errorf("%s is not one word", word)
	}
	for _, w := range []string{word, " " + word + "\n"} {
		got, err := enrol.ParseToken(w)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	}
	if want.Expired(time.Unix(1787999999, 0)) || !want.Expired(time.Unix(1788000000, 0)) {
		t.Error("the token ends at another time")
	}
	t.Logf("a token has %d characters", len(word))
}

func TestTokenRefused(t *testing.T) {
	word := token().Encode()
	encode := func(json string) string { return "pmt1_" + base64.RawURLEncoding.EncodeToString([]byte(json)) }
	plain, err := json.Marshal(token())
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*enrol.Token)) string {
		tok := token()
		tok.Pins = maps.Clone(tok.Pins)
		change(&tok)
		return tok.Encode()
	}
	pins := func(p enrol.Pins) string { return with(func(t *enrol.Token) { t.Pins[trust.RoleRoster] = p }) }
	fp := strings.Repeat("A", 40)
	for name, w := range map[string]string{
		"empty":                 "",
		"another word":          "hello",
		"prefix only":           "pmt1_",
		"other version":         strings.Replace(word, "pmt1_", "pmt2_", 1),
		"cut off":               word[:len(word)-4],
		"character lost":        word[:40] + word[41:],
		"two words":             word + " " + word,
		"padding":               word + "=",
		"not JSON":              encode("hello"),
		"null":                  encode("null"),
		"bytes behind":          encode(string(plain) + " "),
		"other spacing":         encode(strings.Replace(string(plain), ":", ": ", 1)),
		"unknown key":           encode(strings.Replace(string(plain), "{", `{"admin":true,`, 1)),
		"repeated key":          encode(strings.Replace(string(plain), "{", `{"site":"other",`, 1)),
		"key in other letters":  encode(strings.Replace(string(plain), `"site"`, `"Site"`, 1)),
		"too large":             "pmt1_" + strings.Repeat("A", enrol.MaxTokenBytes),
		"no site":               with(func(t *enrol.Token) { t.Site = "" }),
		"site is a path":        with(func(t *enrol.Token) { t.Site = "../x" }),
		"no address":            with(func(t *enrol.Token) { t.URLs = nil }),
		"too many addresses":    with(func(t *enrol.Token) { t.URLs = slices.Repeat(t.URLs, 17) }),
		"address without TLS":   with(func(t *enrol.Token) { t.URLs = []string{"http://seeder.example.org"} }),
		"address with a user":   with(func(t *enrol.Token) { t.URLs = []string{"https://a:b@seeder.example.org"} }),
		"no seeder":             with(func(t *enrol.Token) { t.Seeder = "" }),
		"seeder is no peer ID":  with(func(t *enrol.Token) { t.Seeder = "/ip4/127.0.0.1" }),
		"short secret":          with(func(t *enrol.Token) { t.Secret = secret[2:] }),
		"secret in capitals":    with(func(t *enrol.Token) { t.Secret = strings.ToUpper(secret) }),
		"no end":                with(func(t *enrol.Token) { t.Expires = 0 }),
		"no pins":               with(func(t *enrol.Token) { t.Pins = nil }),
		"pins of a role missed": with(func(t *enrol.Token) { delete(t.Pins, trust.RoleRoster) }),
		"pins of another role":  with(func(t *enrol.Token) { delete(t.Pins, trust.RoleRoster); t.Pins["root"] = t.Pins[trust.RolePolicy] }),
		"threshold 0":           pins(enrol.Pins{Threshold: 0, Fingerprints: []string{fp}}),
		"threshold too high":    pins(enrol.Pins{Threshold: 2, Fingerprints: []string{fp}}),
		"pinned twice":          pins(enrol.Pins{Threshold: 2, Fingerprints: []string{fp, fp}}),
		"short fingerprint":     pins(enrol.Pins{Threshold: 1, Fingerprints: []string{fp[1:]}}),
	} {
		tok, err := enrol.ParseToken(w)
		if err == nil {
			t.Errorf("%s: read as %+v", name, tok)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the message gives the secret away: %v", name, err)
		}
	}
}

// The keys that a node gets are the ones it was told to expect, in number and in name.
func TestCheckSet(t *testing.T) {
	set := newSet(t)
	tok := token()
	tok.Pins = enrol.PinsOf(set)
	if _, err := enrol.ParseToken(tok.Encode()); err != nil {
		t.Fatal(err)
	}
	if err := tok.CheckSet(set); err != nil {
		t.Fatal(err)
	}
	reversed := set
	reversed.Release.Fingerprints = slices.Clone(set.Release.Fingerprints)
	slices.Reverse(reversed.Release.Fingerprints)
	if err := tok.CheckSet(reversed); err != nil {
		t.Errorf("the order of the fingerprints matters: %v", err)
	}
	for name, change := range map[string]func(*trust.Set){
		"another key":            func(s *trust.Set) { s.Roster = newRole(t, 1, newKey(t)) },
		"one key more":           func(s *trust.Set) { s.Policy = newRole(t, 1, append(list(t, s.Policy), newKey(t))...) },
		"one key less":           func(s *trust.Set) { s.Release = newRole(t, 1, list(t, s.Release)[0]) },
		"lower threshold":        func(s *trust.Set) { s.Release = newRole(t, 1, list(t, s.Release)...) },
		"roles swapped":          func(s *trust.Set) { s.Policy, s.Roster = s.Roster, s.Policy },
		"no keys":                func(s *trust.Set) { s.Policy = trust.RoleKeys{} },
		"keyring of another key": func(s *trust.Set) { s.Policy.Keyring = newKey(t).Raw },
	} {
		other := set
		change(&other)
		if err := tok.CheckSet(other); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func list(t testing.TB, rk trust.RoleKeys) []trust.Key {
	t.Helper()
	keys, err := rk.List()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func request(key ed25519.PrivateKey) *enrol.Request {
	r := &enrol.Request{Secret: secret, Name: "pos-1", PeerID: seeder, Addrs: []string{"10.0.0.7:7946", "[fe80::1]:7946", "pos-1.local:7946"}}
	r.Proof = ed25519.Sign(key, enrol.ProofMessage(r.Secret, r.Name, r.PeerID))
	return r
}

func TestRequest(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := request(key)
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := r.VerifyProof(pub); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*enrol.Request){
		"no secret":        func(r *enrol.Request) { r.Secret = "" },
		"name is a path":   func(r *enrol.Request) { r.Name = "../pos" },
		"no peer ID":       func(r *enrol.Request) { r.PeerID = "" },
		"long peer ID":     func(r *enrol.Request) { r.PeerID = strings.Repeat("A", 129) },
		"short proof":      func(r *enrol.Request) { r.Proof = r.Proof[1:] },
		"no port":          func(r *enrol.Request) { r.Addrs = []string{"10.0.0.7"} },
		"port 0":           func(r *enrol.Request) { r.Addrs = []string{"10.0.0.7:0"} },
		"port by name":     func(r *enrol.Request) { r.Addrs = []string{"10.0.0.7:http"} },
		"no host":          func(r *enrol.Request) { r.Addrs = []string{":7946"} },
		"address and path": func(r *enrol.Request) { r.Addrs = []string{"10.0.0.7:7946/x"} },
		"17 addresses":     func(r *enrol.Request) { r.Addrs = slices.Repeat([]string{"10.0.0.7:7946"}, 17) },
	} {
		r := request(key)
		change(r)
		if err := r.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, change := range map[string]func(*enrol.Request){
		"other name":   func(r *enrol.Request) { r.Name = "pos-2" },
		"other secret": func(r *enrol.Request) { r.Secret = strings.Repeat("0", 32) },
		"other peer":   func(r *enrol.Request) { r.PeerID = "12D3KooWother" },
		"other proof":  func(r *enrol.Request) { r.Proof = bytes.Repeat([]byte{1}, 64) },
	} {
		r := request(key)
		change(r)
		if err := r.VerifyProof(pub); err == nil {
			t.Errorf("%s: the proof holds", name)
		}
	}
	if err := r.VerifyProof(nil); err == nil {
		t.Error("a proof for no key holds")
	}
}

// No two requests have the same message to sign.
func TestProofMessage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.StringMatching(`[0-9a-z:\n]{0,6}`)
		a := []string{part.Draw(t, "a0"), part.Draw(t, "a1"), part.Draw(t, "a2")}
		b := []string{part.Draw(t, "b0"), part.Draw(t, "b1"), part.Draw(t, "b2")}
		same := bytes.Equal(enrol.ProofMessage(a[0], a[1], a[2]), enrol.ProofMessage(b[0], b[1], b[2]))
		if same != slices.Equal(a, b) {
			t.Fatalf("%q and %q: same message %t", a, b, same)
		}
	})
}

func TestEnrolment(t *testing.T) {
	set := newSet(t)
	tok := token()
	tok.Pins = enrol.PinsOf(set)
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := request(key)
	fresh := func() *enrol.Enrolment {
		return &enrol.Enrolment{
			Site: tok.Site, Node: r.Name, Seeder: seeder, SeederAddrs: []string{"10.1.0.1:7445"}, SeederURLs: tok.URLs,
			GossipKey: make([]byte, 32), Trust: set, Roster: trust.Signed{Doc: []byte("doc"), Sig: []byte("sig")},
		}
	}
	if err := tok.CheckEnrolment(fresh(), r); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*enrol.Enrolment){
		"other site":      func(e *enrol.Enrolment) { e.Site = "store-0043" },
		"other node":      func(e *enrol.Enrolment) { e.Node = "pos-2" },
		"other seeder":    func(e *enrol.Enrolment) { e.Seeder = "12D3KooWother" },
		"other keys":      func(e *enrol.Enrolment) { e.Trust = newSet(t) },
		"no gossip key":   func(e *enrol.Enrolment) { e.GossipKey = nil },
		"no address":      func(e *enrol.Enrolment) { e.SeederAddrs = nil },
		"bad address":     func(e *enrol.Enrolment) { e.SeederAddrs = []string{"seeder"} },
		"no URL":          func(e *enrol.Enrolment) { e.SeederURLs = nil },
		"no roster":       func(e *enrol.Enrolment) { e.Roster = trust.Signed{} },
		"no trusted keys": func(e *enrol.Enrolment) { e.Trust = trust.Set{} },
	} {
		e := fresh()
		change(e)
		if err := tok.CheckEnrolment(e, r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A word that is read as a token has one spelling and stands for a valid token.
func FuzzParseToken(f *testing.F) {
	word := token().Encode()
	f.Add(word)
	f.Add("pmt1_e30")
	f.Add(word[:20])
	f.Fuzz(func(t *testing.T, w string) {
		tok, err := enrol.ParseToken(w)
		if err != nil {
			return
		}
		if tok.Encode() != strings.TrimSpace(w) || tok.Validate() != nil {
			t.Errorf("%q is read as %+v", w, tok)
		}
	})
}

// The same for the JSON inside the word, which the fuzzer reaches without knowing base64.
func FuzzTokenContent(f *testing.F) {
	plain, err := json.Marshal(token())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Fuzz(func(t *testing.T, b []byte) {
		w := "pmt1_" + base64.RawURLEncoding.EncodeToString(b)
		tok, err := enrol.ParseToken(w)
		if err == nil && tok.Encode() != w {
			t.Errorf("%q is read as %+v", b, tok)
		}
	})
}
