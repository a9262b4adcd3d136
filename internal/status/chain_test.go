package status

import (
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

var seed = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// chain makes so many receipts of one node.
func chain(t *testing.T, key ed25519.PrivateKey, count int) (out []Link) {
	t.Helper()
	var last *manifest.Digest
	for i := range uint64(count) {
		r := &Receipt{Number: i + 1, Previous: last, Started: time.Unix(int64(i), 0).UTC(), Ended: time.Unix(int64(i)+1, 0).UTC(), Software: "test", Zoneinfo: "2026a"}
		body, err := json.Marshal(ReportBody{Site: "s1", Node: "n1", Seq: 10 * (i + 1), Phase: Installed, Outcome: "success", Receipt: r})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, link(t, Report{Site: "s1", Node: "n1", Seq: 10 * (i + 1), Body: body, Sig: ed25519.Sign(key, body)}))
		last = &out[i].Hash
	}
	return out
}

func link(t *testing.T, r Report) Link {
	t.Helper()
	l, err := NewLink(r)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestVerifyChain(t *testing.T) {
	public := seed.Public().(ed25519.PublicKey)
	other := ed25519.NewKeyFromSeed([]byte(strings.Repeat("x", ed25519.SeedSize)))
	for _, tt := range []struct {
		what   string
		change func([]Link) []Link
		want   []string // beginnings of words in each fault
	}{
		{"as signed", func(ls []Link) []Link { return ls }, nil},
		{"none", func([]Link) []Link { return nil }, nil},
		{"a bit of the signature flipped", func(ls []Link) []Link {
			ls[2].Signed.Sig = slices.Clone(ls[2].Signed.Sig)
			ls[2].Signed.Sig[5] ^= 4
			return ls
		}, []string{"receipt 3: the signature"}},
		{"the outcome altered", func(ls []Link) []Link {
			b := strings.Replace(string(ls[2].Signed.Body), "success", "failure", 1)
			ls[2] = link(t, Report{Site: "s1", Node: "n1", Seq: ls[2].Signed.Seq, Body: []byte(b), Sig: ls[2].Signed.Sig})
			return ls
		}, []string{"receipt 3: the signature", "receipt 4 names"}},
		{"another name", func(ls []Link) []Link { ls[4].Hash[0] ^= 1; return ls }, []string{"receipt 5: its name"}},
		{"one missing", func(ls []Link) []Link { return slices.Delete(ls, 2, 3) }, []string{"receipts 3 to 3 are missing"}},
		{"the first missing", func(ls []Link) []Link { return ls[1:] }, []string{"receipts 1 to 1 are missing"}},
		{"reordered", func(ls []Link) []Link { ls[1], ls[2] = ls[2], ls[1]; return ls },
			[]string{"receipts 2 to 2 are missing", "receipt 2 comes after", "receipts 3 to 3 are missing"}},
		{"one twice", func(ls []Link) []Link { return slices.Insert(ls, 2, ls[1]) }, []string{"receipt 2 is there twice"}},
		{"another node's chain", func([]Link) []Link { return chain(t, other, 1) }, []string{"receipt 1: the signature"}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			got := VerifyChain(public, tt.change(chain(t, seed, 5)), true)
			if len(got) != len(tt.want) {
				t.Fatalf("%v, want %q", got, tt.want)
			}
			for i, err := range got {
				if !strings.HasPrefix(err.Error(), tt.want[i]) {
					t.Errorf("%q, want %q", err, tt.want[i])
				}
			}
		})
	}
	if f := VerifyChain(public, chain(t, seed, 5)[2:], false); len(f) > 0 {
		t.Errorf("a part of the chain: %v", f)
	}
	if f := VerifyChain(nil, chain(t, seed, 1), true); len(f) != 1 {
		t.Errorf("without a key: %v", f)
	}
}

func TestNewLink(t *testing.T) {
	good := chain(t, seed, 1)[0].Signed
	for what, change := range map[string]func(*Report){
		"not JSON":     func(r *Report) { r.Body = []byte("{") },
		"two bodies":   func(r *Report) { r.Body = append(slices.Clone(r.Body), "{}"...) },
		"another node": func(r *Report) { r.Node = "n2" },
		"no receipt":   func(r *Report) { r.Body = []byte(`{"site":"s1","node":"n1","seq":10}`) },
		"number 0":     func(r *Report) { r.Body = []byte(`{"site":"s1","node":"n1","seq":10,"receipt":{}}`) },
		"too large":    func(r *Report) { r.Body = slices.Concat(r.Body, make([]byte, MaxReportBody)) },
	} {
		r := good
		change(&r)
		if _, err := NewLink(r); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

func FuzzNewLink(f *testing.F) {
	f.Add([]byte(`{"site":"s1","node":"n1","seq":1,"checksum":"sha256:0000000000000000000000000000000000000000000000000000000000000000","receipt":{"number":1}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		l, err := NewLink(Report{Site: "s1", Node: "n1", Seq: 1, Body: body})
		if err == nil && l.Body.Receipt == nil {
			t.Error("no receipt")
		}
		if err == nil && len(VerifyChain(make(ed25519.PublicKey, ed25519.PublicKeySize), []Link{l}, true)) == 0 {
			t.Error("no signature, and nothing is wrong")
		}
	})
}
