package install_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
)

const clean = "success 0 Installed Verified "

// An audit reads all that is in force and kept, and the bundle that it is told of, and says no to a changed byte in each;
// it starts nothing. Put right again, it says yes.
func TestAudit(t *testing.T) {
	b := installtest.New(t, nil)
	one, two, three := b.Bundle(t, spec("1", 1)), b.Bundle(t, spec("2", 2)), b.Bundle(t, spec("3", 3))
	alone := install.NewAuditRequest(install.Request{}, b.Store)
	with := install.NewAuditRequest(b.Request(t, three, installtest.Want{}), b.Store)
	audit := func(r install.Request) install.Result { t.Helper(); return installer(b).Apply(t.Context(), r) }
	want(t, audit(alone), clean) // of a fresh machine
	for _, v := range []*installtest.Bundle{one, two} {
		want(t, apply(t, b, v, installtest.Want{}), done)
	}
	r := audit(with)
	want(t, r, clean)
	if r.Detail != "read whole: pos 2, pos 1 (kept), pos 3 (staged)" || r.Bundle != "" || r.Installed != nil {
		t.Errorf("%+v", r)
	}
	inForce(t, b, two, one)

	in := func(v *installtest.Bundle, file string) string {
		return filepath.Join(b.Config.Root, "pos", "releases", v.Dir(), file)
	}
	chunk := three.Index.Files[0].Chunks[0].ID
	for name, c := range map[string]struct {
		file string
		r    install.Request
		line string
	}{
		"in force":  {in(two, "version"), alone, badSum},
		"kept":      {in(one, "version"), alone, badSum},
		"evidence":  {filepath.Join(b.Config.State, "evidence", "pos", two.Dir(), "index.json"), alone, badSum},
		"the store": {filepath.Join(b.Store, store.Name(chunk)), with, "verification_failure 2 Quarantined ChunkCorrupt E2103"},
	} {
		t.Run(name, func(t *testing.T) {
			good, err := os.ReadFile(c.file)
			if err != nil {
				t.Fatal(err)
			}
			bad := append([]byte(nil), good...)
			bad[len(bad)/2] ^= 1
			if err := os.WriteFile(c.file, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			r := audit(c.r)
			want(t, r, c.line)
			if name == "the store" && r.Chunk != chunk.String() {
				t.Errorf("chunk %s", r.Chunk)
			}
			if err := os.WriteFile(c.file, good, 0o644); err != nil {
				t.Fatal(err)
			}
			want(t, audit(c.r), clean)
		})
	}
	// What is not there to be gone back to is not false; what should be in force and is not, is.
	if err := os.RemoveAll(filepath.Dir(in(one, "x"))); err != nil {
		t.Fatal(err)
	}
	want(t, audit(alone), clean)
	if err := os.RemoveAll(filepath.Dir(in(two, "x"))); err != nil {
		t.Fatal(err)
	}
	want(t, audit(alone), badSum)
}

// An audit of a bundle refuses what an install would refuse, and a chunk that is not there yet is a deferral.
func TestAuditOfABundle(t *testing.T) {
	b := installtest.New(t, nil)
	one := b.Bundle(t, spec("1", 1))
	good := b.Request(t, one, installtest.Want{})
	forged := good
	forged.Signature = b.Request(t, b.Bundle(t, spec("2", 2)), installtest.Want{}).Signature
	want(t, installer(b).Apply(t.Context(), install.NewAuditRequest(forged, b.Store)), badSig)
	gone := filepath.Join(b.Store, store.Name(one.Index.Files[0].Chunks[0].ID))
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	want(t, installer(b).Apply(t.Context(), install.NewAuditRequest(good, b.Store)), "deferred 1 Deferred NotStaged E1204")
	inForce(t, b, nil, one)
}

// A release of packages is what was signed as long as its repository is; what the machine has of its packages is the
// package manager's affair.
func TestAuditOfPackages(t *testing.T) {
	p := newPatchBench(t, managertest.Deb(), pair("1.0-1")...)
	for i, version := range []string{"2", "3"} {
		v := p.bundle(version, uint64(i+2), managertest.Spec{Packages: pair(version + ".0-1")})
		if r := p.installer().Apply(t.Context(), p.Request(t, v, installtest.Want{})); r.Exit != install.ExitDone {
			t.Fatalf("%+v", r)
		}
	}
	r := p.installer().Audit(t.Context())
	want(t, r, clean)
	list, err := filepath.Glob(filepath.Join(p.Config.Root, "*", "releases", "3-*", "*"))
	if err != nil || len(list) == 0 {
		t.Fatalf("%q, %v", list, err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(list[0]), "extra"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	want(t, p.installer().Audit(t.Context()), badSum)
}

func TestAuditRequest(t *testing.T) {
	b := installtest.New(t, nil)
	good := b.Request(t, b.Bundle(t, spec("1", 1)), installtest.Want{})
	half := install.NewAuditRequest(good, b.Store)
	half.Policy, half.PolicySignature = nil, nil
	ordered := install.NewAuditRequest(install.Request{Order: []byte("x"), OrderSignature: []byte("y")}, b.Store)
	for name, c := range map[string]struct {
		r  install.Request
		ok bool
	}{
		"of what is installed": {install.NewAuditRequest(install.Request{}, b.Store), true},
		"of a bundle":          {install.NewAuditRequest(good, b.Store), true},
		"half a bundle":        {half, false},
		"an order":             {ordered, false},
		"no audit and nothing": {install.Request{Schema: install.SchemaRequest, Store: b.Store}, false},
	} {
		doc, err := c.r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := install.ParseRequest(doc); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if c.ok && !strings.Contains(string(doc), `"audit":true`) {
			t.Errorf("%s: %s", name, doc)
		}
	}
}

// What a check carries on on its way is told apart from what it found: the daemon's receipt is of the one, not of the other.
func TestAuditTellsWhatItCarriedOn(t *testing.T) {
	b, v1, v2 := cutAtCheck(t)
	before, err := install.ReadResults(b.Config.State)
	if err != nil {
		t.Fatal(err)
	}
	r := install.NewAuditRequest(install.Request{}, b.Store).Fresh()
	want(t, installer(b).Apply(t.Context(), r), clean)
	inForce(t, b, v2, v1)
	rs, err := install.ReadResults(b.Config.State)
	if err != nil {
		t.Fatal(err)
	}
	news := rs.After(before.Results[len(before.Results)-1].ID)
	if len(news) != 2 || news[1].ID != r.ID {
		t.Fatalf("told: %+v", news)
	}
	want(t, news[0], done)
	if got := news[0]; got.ID == "" || got.Version != "2" || got.Before == nil || got.Before.Version != "1" || got.Installed == nil || got.Installed.Version != "2" {
		t.Errorf("told: %+v", got)
	}
	if again := installer(b).Apply(t.Context(), r); again.ID != r.ID {
		t.Errorf("asked again: %+v", again)
	}
}
