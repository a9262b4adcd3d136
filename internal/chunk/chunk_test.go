package chunk

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multibase"
	mh "github.com/multiformats/go-multihash"
	"pgregory.net/rapid"
)

// The golden vector: base32 of 01 55 12 20 and what sha256sum prints, computed with other tools.
func TestKnownID(t *testing.T) {
	id := Sum([]byte("hello world"))
	if got := id.String(); got != "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e" {
		t.Error(got)
	}
	if got := id.Hex(); got != "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9" {
		t.Error(got)
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := ID(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "id"))
		got, err := Parse(id.String())
		if err != nil || got != id {
			t.Fatalf("%s: %v, %v", id, got, err)
		}
		b, err := json.Marshal(map[ID]ID{id: id})
		if err != nil {
			t.Fatal(err)
		}
		var m map[ID]ID
		if err := json.Unmarshal(b, &m); err != nil || m[id] != id {
			t.Fatalf("%s: %v", b, err)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	id := Sum([]byte("x"))
	sum := func(code uint64, n int) mh.Multihash {
		h, err := mh.Sum(bytes.Repeat([]byte("x"), 9), code, n)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	for name, s := range map[string]string{
		"empty":            "",
		"text":             "hello",
		"hex":              id.Hex(),
		"upper case":       strings.ToUpper(id.String()),
		"mixed case":       "bAfkrei" + id.String()[7:],
		"space":            id.String() + " ",
		"truncated":        id.String()[:58],
		"longer":           id.String() + "a",
		"very long":        strings.Repeat("b", 1<<20),
		"path":             "../" + id.String(),
		"version 0":        cid.NewCidV0(sum(mh.SHA2_256, 32)).String(),
		"another codec":    cid.NewCidV1(cid.DagProtobuf, sum(mh.SHA2_256, 32)).String(),
		"another hash":     cid.NewCidV1(cid.Raw, sum(mh.SHA2_512, 64)).String(),
		"truncated hash":   cid.NewCidV1(cid.Raw, sum(mh.SHA2_256, 20)).String(),
		"identity":         cid.NewCidV1(cid.Raw, sum(mh.IDENTITY, -1)).String(),
		"base58":           base(t, id, 'z'),
		"base16":           base(t, id, 'f'),
		"trailing bits":    id.String()[:58] + "7",
		"not-zero padding": id.String() + "=",
	} {
		if got, err := Parse(s); err == nil {
			t.Errorf("%s: %.80q is read as %s", name, s, got)
		}
	}
}

func base(t *testing.T, id ID, encoding rune) string {
	t.Helper()
	s, err := id.CID().StringOfBase(multibase.Encoding(encoding))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func FuzzParse(f *testing.F) {
	f.Add(Sum(nil).String())
	f.Add("QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := Parse(s); err == nil && id.String() != s {
			t.Errorf("%q is read as %s", s, id)
		}
	})
}
