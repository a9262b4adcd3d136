package seeder

import (
	"testing"

	"github.com/patchmesh/patchmesh/internal/status"
)

// What is taken for a report says the same inside as outside.
func FuzzReportBody(f *testing.F) {
	f.Add("s1", "n", uint64(1), []byte(`{"site":"s1","node":"n","seq":1,"occurred":"2026-11-21T10:00:00Z","phase":"Staged","reason":"x","checksum":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}`))
	f.Add("s1", "n", uint64(1)<<63, []byte(`{}{}`))
	f.Fuzz(func(t *testing.T, site, node string, seq uint64, body []byte) {
		b, err := reportBody(status.Report{Site: site, Node: node, Seq: seq, Body: body})
		if err == nil && (b.Site != site || b.Node != node || b.Seq != seq || seq == 0 || seq >= 1<<63) {
			t.Fatalf("%+v for %s/%s %d", b, site, node, seq)
		}
	})
}
