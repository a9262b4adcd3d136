package gossip

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/trust"
)

func TestMetaVector(t *testing.T) {
	m := meta{PeerPort: 4001, Roster: 7, PeerID: "12D3KooW"}
	const want = "010fa10000000000000007083132443" + "34b6f6f57"
	if got := hex.EncodeToString(m.encode()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	longest := meta{1, 1 << 63, strings.Repeat("x", maxPeerID)}.encode()
	if len(longest) > 200 {
		t.Errorf("metadata may have %d bytes: memberlist converges slowly above 200", len(longest))
	}
}

func TestMetaRefused(t *testing.T) {
	good := meta{4001, 7, "12D3KooW"}.encode()
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for name, b := range map[string][]byte{
		"empty":       nil,
		"cut":         good[:len(good)-1],
		"trailing":    append(bytes.Clone(good), 0),
		"format":      edit(func(b []byte) []byte { b[0] = 2; return b }),
		"no peer ID":  edit(func(b []byte) []byte { b[11] = 0; return b[:12] }),
		"port 0":      edit(func(b []byte) []byte { b[1], b[2] = 0, 0; return b }),
		"too long":    meta{1, 1, strings.Repeat("x", maxPeerID+1)}.encode(),
		"length lies": edit(func(b []byte) []byte { b[11]++; return b }),
	} {
		if m, err := parseMeta(b); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestLetterRefused(t *testing.T) {
	good := letter{7, trust.Signed{Doc: []byte("doc"), Sig: []byte("sig")}}
	if got, err := parseLetter(good.encode()); err != nil || cmp.Diff(good, got) != "" {
		t.Errorf("%v %v", got, err)
	}
	edit := func(f func(b []byte) []byte) []byte { return f(good.encode()) }
	for name, b := range map[string][]byte{
		"empty":              nil,
		"cut":                edit(func(b []byte) []byte { return b[:len(b)-1] }),
		"trailing":           edit(func(b []byte) []byte { return append(b, 0) }),
		"format":             edit(func(b []byte) []byte { b[0] = 0; return b }),
		"version 0":          letter{0, good.Roster}.encode(),
		"no signature":       letter{1, trust.Signed{Doc: []byte("d")}}.encode(),
		"no document":        letter{1, trust.Signed{Sig: []byte("s")}}.encode(),
		"lengths overflow":   edit(func(b []byte) []byte { copy(b[9:], "\xff\xff\xff\xff\x00\x00\x00\x07"); return b }),
		"document too long":  letter{1, trust.Signed{Doc: make([]byte, roster.MaxBytes+1), Sig: []byte("s")}}.encode(),
		"signature too long": letter{1, trust.Signed{Doc: []byte("d"), Sig: make([]byte, trust.MaxSignatureBytes+1)}}.encode(),
	} {
		if _, err := parseLetter(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzMeta(f *testing.F) {
	f.Add(meta{4001, 7, "12D3KooW"}.encode())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeta(b)
		if err == nil && !bytes.Equal(m.encode(), b) {
			t.Errorf("%x has a second form", b)
		}
	})
}

// FuzzMergeRemoteState feeds the whole receiving side, which must stay within its bounds whatever comes.
func FuzzMergeRemoteState(f *testing.F) {
	_, signed := rosterOf(3, 2)
	f.Add(letter{3, signed}.encode(), meta{4001, 9, "12D3KooW"}.encode(), nodeName(7))
	f.Add(letter{1, trust.Signed{Doc: []byte("d"), Sig: []byte("s")}}.encode(), meta{1, 1, peerID(1)}.encode(), nodeName(1))
	f.Add([]byte{1}, []byte{1}, nodeName(0))
	r, s := rosterOf(2, 2)
	tab := newTable(nodeName(0), peerID(0), siteNets, time.Now)
	tab.follow(r, s)
	d := delegate{tab, 4001}
	f.Fuzz(func(t *testing.T, state, m []byte, name string) {
		d.MergeRemoteState(state, true)
		if l, err := parseLetter(state); err == nil && !bytes.Equal(l.encode(), state) {
			t.Errorf("%x has a second form", state)
		}
		addr := nodeAddr(5)
		if err := tab.admit(name, addr, m); err == nil {
			tab.alive(name, addr, m)
		}
		tab.clash(nodeName(1), addr, m)
		tab.dead(name)
		if len(tab.inbox) > maxInbox || len(tab.strangers) > maxStrangers || len(tab.members) > 2 || len(tab.conflicts) > 2 {
			t.Fatalf("%d letters, %d strangers, %d members, %d conflicts", len(tab.inbox), len(tab.strangers), len(tab.members), len(tab.conflicts))
		}
		for _, in := range tab.mail() {
			if in.Version <= 2 {
				t.Errorf("old news: %d", in.Version)
			}
			tab.refuse(in.Roster)
		}
		if len(tab.refused) > maxRefused {
			t.Fatalf("%d refused", len(tab.refused))
		}
	})
}

// TestTableIsBounded: a holder of the key makes up a thousand names, rosters and addresses.
func TestTableIsBounded(t *testing.T) {
	r, s := rosterOf(2, 8)
	tab := newTable(nodeName(0), peerID(0), siteNets, time.Now)
	tab.follow(r, s)
	for i := range 1000 {
		b := meta{4001, 99, peerID(i + 500)}.encode()
		if err := tab.admit(nodeName(i+500), nodeAddr(i), b); err == nil {
			t.Fatal("a name off the roster was admitted")
		}
		_ = tab.admit(nodeName(1+i%7), nodeAddr(i), b)
		tab.heard(letter{uint64(i + 3), trust.Signed{Doc: []byte{byte(i), byte(i >> 8)}, Sig: []byte("s")}}.encode())
	}
	if len(tab.members) != 0 || len(tab.strangers) != maxStrangers || len(tab.inbox) != maxInbox || len(tab.conflicts) != 7 {
		t.Errorf("%d members, %d strangers, %d letters, %d conflicts", len(tab.members), len(tab.strangers), len(tab.inbox), len(tab.conflicts))
	}
	if got := tab.strangerAddrs(); len(got) != maxStrangers {
		t.Errorf("%d addresses", len(got))
	}
	outside := netip.MustParseAddrPort("192.0.2.1:7946")
	tab.strangers = map[string]caller{}
	_ = tab.admit("x", outside, meta{1, 99, "y"}.encode())
	if len(tab.strangers) != 0 {
		t.Error("an address outside the site's networks was remembered")
	}
}
