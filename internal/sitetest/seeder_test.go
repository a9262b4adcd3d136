package sitetest

import (
	"testing"

	"github.com/patchmesh/patchmesh/internal/testbed"
)

// The seeder dies and comes back, or another takes its place for ever.
func TestSeeder(t *testing.T) {
	cases(t,
		sitecase{name: "killed and started", setup: setup{wan: slower()}, play: seederKilled},
		sitecase{name: "replaced", stand: true, setup: setup{wan: slower(), standIn: true}, play: seederReplaced},
	)
}

// seederKilled: what the seeder had not yet written down of its account is lost with it, so the interface says what was
// sent twice.
func seederKilled(tr *trial) {
	tr.run()
	tr.awaitWAN(0.5)
	tr.seeder.Kill()
	tr.must(tr.seeder.Start(tr.ctx))
	f := tr.finish()
	tr.onTheInterface(f, tr.bytes+tr.window())
	tr.Logf("seeder killed: %d bytes are missing in its account", tr.bytes-f.wan.Needed)
}

// seederReplaced: a copy of the seeder, made before the transfer began, takes over under its other address when the
// first one's host is gone. Nodes know both addresses since they joined. The copy's account begins with it.
func seederReplaced(tr *trial) {
	tr.must(tr.seeder.Copy(tr.ctx))
	tr.run()
	tr.awaitWAN(0.5)
	tr.must(tr.bed.Unplug(testbed.DC))
	before := tr.view().WAN
	tr.seeder.Kill()
	tr.must(tr.seeder.Replace(tr.ctx))
	gap := tr.gap()
	f := tr.finish()
	tr.onTheInterface(f, tr.bytes+tr.window())
	twice := max(0, before.Payload+f.wan.Payload-tr.bytes)
	if f.wan.Duplicate != 0 || twice > tr.window() {
		tr.Errorf("the seeders sent %d and %d bytes of a bundle of %d", before.Payload, f.wan.Payload, tr.bytes)
	}
	tr.Logf("seeder replaced: %.1f chunks twice, WAN idle for about %.1f s", float64(twice)/chunk, gap.Seconds())
}
