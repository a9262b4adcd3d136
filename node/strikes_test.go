package node

import (
	"crypto/rand"
	"encoding/json"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/status"
)

func strangers(t testing.TB, n int) (ids []peer.ID) {
	t.Helper()
	for range n {
		k, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// Bans of one kind double up to the most of the kind, and quiet days make them short again.
func TestStrikesEscalateAndDecay(t *testing.T) {
	p, now := strangers(t, 1)[0], time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var s strikes
	for i, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 32 * time.Minute, time.Hour, time.Hour} {
		if got := s.add(p, "n1", status.StrikeStall, now); got != want {
			t.Errorf("ban %d: %v, want %v", i, got, want)
		}
		now = now.Add(want + time.Second)
	}
	if banned, shut := s.avoided(now); len(banned) != 0 || len(shut) != 0 {
		t.Errorf("banned after the end: %v %v", banned, shut)
	}
	now = now.Add(6 * 24 * time.Hour)
	if got := s.add(p, "n1", status.StrikeStall, now); got != 4*time.Minute { // 8 bans less 6 quiet days
		t.Errorf("after six quiet days: %v", got)
	}
	if n := s.noted(now); len(n) != 1 || n[0].Count != 9 || n[0].Until == nil || n[0].Node != "n1" {
		t.Errorf("%+v", n)
	}
	if n := s.noted(now.Add(time.Hour)); n[0].Until != nil {
		t.Errorf("still said to be banned: %+v", n)
	}
	s.forget(now.Add(offenceLasts))
	if len(s) != 0 {
		t.Errorf("never forgotten: %+v", s)
	}
}

// Only what a neighbour sends by itself shuts it out; a node with a bad disk is not asked, but served.
func TestWhoIsShutOut(t *testing.T) {
	p, now := strangers(t, 1)[0], time.Now()
	want := map[status.StrikeKind]bool{status.StrikeFlood: true, status.StrikeUnsolicited: true, status.StrikeProtocol: true}
	for _, k := range status.StrikeKinds() {
		var s strikes
		d := s.add(p, "n1", k, now)
		banned, shut := s.avoided(now.Add(d - time.Second))
		if _, out := shut[p]; len(banned) != 1 || out != want[k] {
			t.Errorf("%s: banned %v, shut out %v", k, banned, out)
		}
	}
}

// Whatever happens at whatever times, and whatever the clock says at a restart, the record stays small, no ban is longer
// than its kind's longest, and what is kept on disk comes back as it was.
func TestStrikesBounded(t *testing.T) {
	ids := strangers(t, 60)
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		var s strikes
		for range rapid.IntRange(1, 600).Draw(t, "strikes") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(3*time.Hour)).Draw(t, "gap")))
			k := rapid.SampledFrom(status.StrikeKinds()).Draw(t, "kind")
			i := rapid.IntRange(0, len(ids)-1).Draw(t, "who")
			if d := s.add(ids[i], "n", k, now); d <= 0 || d > tariffOf(k).most {
				t.Fatalf("%s: a ban of %v", k, d)
			}
		}
		if len(s) > maxOffences || len(s.noted(now)) > status.MaxNoted {
			t.Fatalf("%d offences, %d noted", len(s), len(s.noted(now)))
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var list []offence
		if err := json.Unmarshal(b, &list); err != nil {
			t.Fatal(err)
		}
		var same, strange strikes
		same.restore(list, now)
		if again, _ := json.Marshal(same); string(again) != string(b) {
			t.Fatalf("restored:\n%s\nwas:\n%s", again, b)
		}
		then := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "clock"), 0)
		strange.restore(list, then)
		banned, _ := strange.avoided(then)
		for _, til := range banned {
			if til.Sub(then) > 24*time.Hour {
				t.Fatalf("banned for %v after the clock was set", til.Sub(then))
			}
		}
	})
}

// A record that somebody else has written, or the disk has spoilt, bans nobody who is not named in it rightly.
func TestStrikesRestoreStrictly(t *testing.T) {
	p, now := strangers(t, 1)[0].String(), time.Now()
	good := offence{Peer: p, Node: "n1", Kind: status.StrikeLie, Count: 1, Last: now, Until: now.Add(time.Minute), Bans: 1}
	list := []offence{good, good}
	for _, spoil := range []func(*offence){
		func(o *offence) { o.Peer = "nobody" }, func(o *offence) { o.Kind = "treason" }, func(o *offence) { o.Count = 0 }, func(o *offence) { o.Bans = -1 },
	} {
		o := good
		spoil(&o)
		list = append(list, o)
	}
	var s strikes
	if s.restore(list, now); len(s) != 1 || s[0] != good {
		t.Errorf("%+v", s)
	}
}

// Whatever stands in strikes.json, the record is bounded, says no more than it may, and bans nobody for longer than it can.
func FuzzStrikes(f *testing.F) {
	id := strangers(f, 1)[0]
	f.Add([]byte(`[{"peer":"` + id.String() + `","node":"n1","kind":"lie","count":3,"first":"2026-01-01T00:00:00Z","last":"2026-01-02T00:00:00Z","until":"2099-01-01T00:00:00Z","bans":2}]`))
	f.Add([]byte(`[{"peer":"","kind":"flood","count":-1,"bans":9223372036854775807}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var list []offence
		if json.Unmarshal(b, &list) != nil {
			return
		}
		now := time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC)
		var s strikes
		s.restore(list, now)
		banned, _ := s.avoided(now)
		for _, til := range banned {
			if til.Sub(now) > 24*time.Hour {
				t.Fatalf("banned for %v", til.Sub(now))
			}
		}
		if d := s.add(id, "n1", status.StrikeLie, now); d <= 0 || d > 24*time.Hour || len(s) > maxOffences || len(s.noted(now)) > status.MaxNoted {
			t.Fatalf("%d offences, a ban of %v", len(s), d)
		}
	})
}

// A clock that was ahead and is put right leaves no ban longer than one can be, and no memory of the future.
func TestStrikesWhenTheClockGoesBack(t *testing.T) {
	var s strikes
	id := strangers(t, 1)[0]
	ahead := time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	s.add(id, "n", status.StrikeStall, ahead)
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	banned, _ := s.avoided(now)
	if d := banned[id].Sub(now); d > tariffOf(status.StrikeStall).most {
		t.Errorf("banned for %v", d)
	}
	now = now.Add(2 * time.Hour)
	if d := s.add(id, "n", status.StrikeStall, now); d > 2*tariffOf(status.StrikeStall).first {
		t.Errorf("the next ban is of %v", d)
	}
}
