package roster

import (
	"bytes"
	"testing"
	"time"
)

// A roster that is read has one spelling.
func FuzzParse(f *testing.F) {
	r := &Roster{
		Schema: Schema, Site: "s1", Version: 1, Created: time.Unix(1788000000, 0).UTC(), Timezone: "UTC",
		Nodes: []Node{{Name: "pos-1", PeerID: "12D3KooWa", Labels: map[string]string{"role": "pos"}, WAN: WANAllow, Addrs: []string{"10.0.0.7:7946"}}},
	}
	b, err := r.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parse(b)
		if err != nil {
			return
		}
		if again, err := r.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q is written back as %q, %v", b, again, err)
		}
	})
}
