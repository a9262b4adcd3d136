package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
)

func TestOverhear(t *testing.T) {
	target, other := manifest.DigestOf([]byte("target")), manifest.DigestOf([]byte("other"))
	item := func(d manifest.Digest) *status.InstalledItem {
		return &status.InstalledItem{Bundle: "pos", Checksum: d}
	}
	rel := func(d manifest.Digest) *ledger.Release {
		return &ledger.Release{Bundle: "pos", Format: manifest.FormatFiles, Checksum: d}
	}
	back := install.Result{Bundle: "pos", Outcome: install.Success, Phase: status.Installed, Reason: install.ReasonOperator, Checksum: &other, Installed: rel(other)}
	for what, c := range map[string]struct {
		was    status.Phase
		at     *status.InstalledItem
		none   bool // no target
		said   install.Result
		phase  status.Phase
		reason string
		in     manifest.Digest
	}{
		"rolled back by hand":                     {status.Installed, item(target), false, back, status.RolledBack, install.ReasonOperator, other},
		"rolled back by hand while another comes": {status.Staging, item(target), false, back, status.Staging, "before", other},
		"put back by hand":                        {status.Installed, item(target), false, func() install.Result { r := back; r.Checksum = &target; return r }(), status.RolledBack, install.ReasonOperator, other},
		"put back by hand to nothing":             {status.Installed, item(target), false, install.Result{Bundle: "pos", Outcome: install.Success, Phase: status.RolledBack, Reason: install.ReasonOperator, Checksum: &target}, status.RolledBack, install.ReasonOperator, manifest.Digest{}},
		"put back by hand to nothing, unwanted":   {status.Installed, item(target), true, install.Result{Bundle: "pos", Outcome: install.Success, Phase: status.RolledBack, Reason: install.ReasonOperator, Checksum: &target}, status.Pending, "NoPolicy", manifest.Digest{}},
		"nothing is wanted":                       {status.Installed, item(target), true, back, status.Installed, "Unmanaged", other},
		"of an order":                             {status.Installed, item(target), false, func() install.Result { r := back; r.Order = 7; return r }(), status.Installed, "before", other},
		"carried on at the start of the machine":  {status.Installing, item(other), false, install.Result{Bundle: "pos", Outcome: install.Success, Phase: status.Installed, Reason: install.ReasonInstalled, Checksum: &target, Installed: rel(target)}, status.Installed, install.ReasonInstalled, target},
		"taken back at the start of the machine":  {status.Installing, item(other), false, install.Result{Bundle: "pos", Outcome: install.RolledBack, Phase: status.RolledBack, Reason: install.ReasonHealthCheck, Checksum: &target, Installed: rel(other)}, status.RolledBack, install.ReasonHealthCheck, other},
		"to be tried again":                       {status.RolledBack, item(other), false, install.Result{Bundle: "pos", Outcome: install.Success, Phase: status.Installed, Reason: install.ReasonForgotten, Installed: rel(other)}, status.Pending, install.ReasonForgotten, other},
		"to be tried again, and is installed":     {status.Installed, item(target), false, install.Result{Bundle: "pos", Outcome: install.Success, Phase: status.Installed, Reason: install.ReasonForgotten, Installed: rel(target)}, status.Installed, "before", target},
	} {
		l := &Life{Target: &status.Desired{Bundle: "pos", Checksum: target}, Phase: c.was, Reason: "before", Installed: c.at}
		if c.none {
			l.Target = nil
		}
		l.overhear(time.Now(), c.said)
		var in manifest.Digest
		if l.Installed != nil {
			in = l.Installed.Checksum
		}
		if l.Phase != c.phase || l.Reason != c.reason || in != c.in {
			t.Errorf("%s: %s (%s), %s", what, l.Phase, l.Reason, in)
		}
		if l.Phase == status.RolledBack && l.Outcome != string(install.RolledBack) {
			t.Errorf("%s: reported as %q", what, l.Outcome)
		}
	}
}

// A request that nobody takes up is given up after a while, but not while the executor's journal is there.
func TestSilence(t *testing.T) {
	var got []install.Result
	n := &Node{cfg: Config{Handoff: t.TempDir()}, d: dir(t.TempDir()), disk: newDisk()}
	begun := time.Now()
	n.handed = &handed{id: "a", until: begun.Add(silentAfter), then: func(r install.Result) { got = append(got, r) }}
	journal := filepath.Join(n.cfg.Handoff, journalName)
	if err := os.WriteFile(journal, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	n.watchSilence(begun)
	n.watchSilence(begun.Add(silentAfter))
	n.watchSilence(begun.Add(10 * silentAfter))
	if len(got) > 0 {
		t.Fatalf("given up: %+v", got)
	}
	if err := os.Remove(journal); err != nil {
		t.Fatal(err)
	}
	n.watchSilence(begun.Add(11 * silentAfter))
	n.watchSilence(begun.Add(12 * silentAfter))
	if len(got) != 1 || got[0].Reason != reasonSilent || got[0].Phase != status.Deferred || n.handed != nil || len(n.disk.jobs) != 1 {
		t.Errorf("%+v, %d jobs", got, len(n.disk.jobs))
	}
}
