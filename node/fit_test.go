package node

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
)

// Whatever a node has to say, its statement fits a frame, and its own phase, the codes of some alarm and what it
// installed last are still in it. The control: unshortened it is refused.
func TestStatementFits(t *testing.T) {
	refused := 0
	rapid.Check(t, func(t *rapid.T) {
		st := status.Node{Phase: status.Staging, Reason: "Downloading", Detail: strings.Repeat("x", rapid.IntRange(0, maxDetail).Draw(t, "detail"))}
		for i := range rapid.IntRange(0, 80).Draw(t, "installed") {
			st.Installed = append(st.Installed, status.InstalledItem{Bundle: fmt.Sprint("bundle", i, strings.Repeat("n", 50)), Version: strings.Repeat("1", 60),
				Checksum: manifest.Digest{byte(i)}, Since: time.Unix(int64(i*7919%1000), 0).UTC()})
		}
		for i := range rapid.IntRange(0, 80).Draw(t, "alarms") {
			st.Alarms = append(st.Alarms, status.Alarm{Code: fmt.Sprintf("E%04d", i), Message: strings.Repeat("\u2028", rapid.IntRange(0, maxMessage/3).Draw(t, "message"))})
		}
		for i := range rapid.IntRange(0, 80).Draw(t, "noted") {
			st.Noted = append(st.Noted, status.Strike{Node: fmt.Sprint("node", i, strings.Repeat("n", 50))})
		}
		if _, err := wire.Append(nil, &wire.Status{Node: st}); err != nil {
			refused++
		}
		got := fit(st)
		if _, err := wire.Append(nil, &wire.Status{Node: got}); err != nil {
			t.Fatal(err)
		}
		if got.Phase != st.Phase || got.Reason != st.Reason || len(st.Alarms) > 0 && len(got.Alarms) == 0 || len(st.Installed) > 0 && len(got.Installed) == 0 {
			t.Fatalf("%d alarms of %d, %d installed of %d", len(got.Alarms), len(st.Alarms), len(got.Installed), len(st.Installed))
		}
	})
	if refused == 0 {
		t.Error("none of the statements was too long: nothing was shown")
	}
}

// A year without a WAN leaves the last report of each bundle and every final outcome, and no more than maxOutbox.
func TestOutboxIsCompacted(t *testing.T) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := &outbox{d: dir(t.TempDir()), key: key, sent: map[uint64]time.Time{}}
	var seq uint64
	finals, forgotten := map[uint64]bool{}, 0
	add := func(bundle string, p status.Phase) {
		seq++
		r, err := o.seal(status.ReportBody{Seq: seq, Bundle: bundle, Phase: p})
		if err != nil {
			t.Fatal(err)
		}
		if o.keep(r); Final(p) {
			finals[seq] = true
		}
		gone, lost := o.compact()
		if forgotten += len(gone); lost > 0 {
			t.Fatalf("%d finals lost", lost)
		}
		for _, s := range gone {
			if finals[s] || s == seq {
				t.Fatalf("report %d was forgotten", s)
			}
		}
		if len(o.waiting) > maxOutbox {
			t.Fatalf("%d wait", len(o.waiting))
		}
	}
	for week := range 52 {
		name := fmt.Sprint("bundle", week%5)
		add(name, status.Pending)
		add(name, status.Staging)
		for range 168 {
			add(name, status.Deferred)
		}
		add(name, status.Installed)
	}
	if forgotten < 52*100 {
		t.Errorf("only %d were forgotten", forgotten)
	}
	for range 2 * maxOutbox { // finals alone: the oldest go, and that is said
		seq++
		r, _ := o.seal(status.ReportBody{Seq: seq, Bundle: "b", Phase: status.Installed})
		o.keep(r)
	}
	if _, lost := o.compact(); lost == 0 || len(o.waiting) != maxOutbox || o.waiting[maxOutbox-1].Seq != seq {
		t.Errorf("%d lost, %d wait", lost, len(o.waiting))
	}
	var b status.ReportBody
	if err := json.Unmarshal(o.waiting[0].Body, &b); err != nil || b.Seq != o.waiting[0].Seq {
		t.Errorf("%+v, %v", b, err)
	}
}
