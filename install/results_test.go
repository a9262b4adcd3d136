package install_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/status"
)

func kept(t *testing.T, b *installtest.Bench) install.Results {
	t.Helper()
	rs, err := install.ReadResults(b.Config.State)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// A request with an ID is answered once under it; the same request again changes nothing and says the same. What a
// person does is told as well, under an ID of its own. What is nothing is not told.
func TestResults(t *testing.T) {
	b := installtest.New(t, nil)
	one := b.Bundle(t, installtest.Spec{Name: "pos", Version: "1", Sequence: 1, Files: map[string]string{"f": "one"}})
	two := b.Bundle(t, installtest.Spec{Name: "pos", Version: "2", Sequence: 2, Files: map[string]string{"f": "two"}})
	first, second := b.Request(t, one, installtest.Want{}).Fresh(), b.Request(t, two, installtest.Want{Revision: 2}).Fresh()
	if first.ID == second.ID || first.Boot == "" {
		t.Fatalf("%q, %q, %q", first.ID, second.ID, first.Boot)
	}
	for _, req := range []install.Request{first, second} {
		if r := installer(b).Apply(t.Context(), req); r.Exit != install.ExitDone || r.ID != req.ID {
			t.Fatalf("%+v", r)
		}
	}
	if r := installer(b).Apply(t.Context(), first); r.ID != first.ID || r.Version != "1" || r.Exit != install.ExitDone {
		t.Errorf("answered before: %+v", r)
	}
	if got, err := b.InForce("pos", one, two); err != nil || got != two {
		t.Errorf("an answered request was acted on again: %v, %v", version(got), err)
	}
	if r := installer(b).Rollback(t.Context(), "pos"); r.Exit != install.ExitDone {
		t.Fatalf("%+v", r)
	}
	installer(b).Recover(t.Context())
	installer(b).Retry(t.Context(), "nobody")
	rs := kept(t, b)
	if len(rs.Results) != 3 || rs.Answer(second.ID) == nil || rs.Answer(second.ID).Version != "2" || rs.Answer("") != nil {
		t.Errorf("%+v", rs)
	}
	after := rs.After(second.ID)
	if len(after) != 1 || after[0].Reason != install.ReasonOperator || after[0].Installed.Version != "1" || after[0].ID == "" {
		t.Errorf("%+v", after)
	}
	fi, err := os.Stat(filepath.Join(b.Config.State, install.ResultsName))
	if err != nil || fi.Mode() != 0o644 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

// A request of an earlier run of the machine is answered and not acted on.
func TestStaleRequest(t *testing.T) {
	b := installtest.New(t, nil)
	one := b.Bundle(t, installtest.Spec{Name: "pos", Version: "1", Sequence: 1, Files: map[string]string{"f": "one"}})
	req := b.Request(t, one, installtest.Want{}).Fresh()
	now := req.Boot
	req.Boot = "00000000-0000-0000-0000-000000000000"
	if r := installer(b).Apply(t.Context(), req); r.Exit != install.ExitDeferred || r.Reason != install.ReasonStale || kept(t, b).Answer(req.ID) == nil {
		t.Errorf("%+v", r)
	}
	if got, err := b.InForce("pos", one); got != nil || err != nil {
		t.Errorf("%v, %v", version(got), err)
	}
	req = req.Fresh() // the positive control
	if r := installer(b).Apply(t.Context(), req); req.Boot != now || r.Exit != install.ExitDone {
		t.Errorf("%+v", r)
	}
}

// The file stays small whatever is told, and damage to it is no obstacle.
func TestResultsAreBounded(t *testing.T) {
	var rs install.Results
	big := install.Result{Kind: install.KindResult, Outcome: install.Success, Phase: status.Installed, Log: strings.Repeat("x", 300<<10)}
	for i := range 50000 {
		big.Changes = append(big.Changes, packages.Change{Name: fmt.Sprint("package", i)})
	}
	for range 2 * install.MaxResults {
		rs = rs.Add(big)
		b, err := rs.Encode()
		if err != nil || len(b) > install.MaxResultsBytes {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		back, err := install.DecodeResults(b)
		if err != nil || back.Answer(rs.Results[len(rs.Results)-1].ID) == nil {
			t.Fatal(err)
		}
	}
	if len(rs.Results) != install.MaxResults || len(big.Changes) != 50000 {
		t.Errorf("%d results", len(rs.Results))
	}
	b := installtest.New(t, nil)
	one := b.Bundle(t, installtest.Spec{Name: "pos", Version: "1", Sequence: 1, Files: map[string]string{"f": "one"}})
	if err := os.MkdirAll(b.Config.State, 0o755); err != nil {
		t.Fatal(err)
	}
	installtest.WriteFile(t, filepath.Join(b.Config.State, install.ResultsName), []byte("{"))
	req := b.Request(t, one, installtest.Want{}).Fresh()
	if r := installer(b).Apply(t.Context(), req); r.Exit != install.ExitDone || len(kept(t, b).Results) != 1 {
		t.Errorf("%+v", r)
	}
}

// The daemon follows no link, waits for no pipe and reads no more than the bound.
func TestReadResultsOfAnybody(t *testing.T) {
	for what, make := range map[string]func(name string) error{
		"link":      func(name string) error { return os.Symlink("/etc/passwd", name) },
		"pipe":      func(name string) error { return unix.Mkfifo(name, 0o644) },
		"directory": func(name string) error { return os.Mkdir(name, 0o755) },
		"huge":      func(name string) error { return os.WriteFile(name, nil, 0o644) },
		"garbage": func(name string) error {
			return os.WriteFile(name, []byte(`{"kind":"InstallResults","results":[{}]}`), 0o644)
		},
	} {
		dir := t.TempDir()
		name := filepath.Join(dir, install.ResultsName)
		if err := make(name); err != nil {
			t.Fatal(err)
		}
		if what == "huge" {
			if err := os.Truncate(name, 1<<40); err != nil {
				t.Fatal(err)
			}
		}
		if rs, err := install.ReadResults(dir); err == nil {
			t.Errorf("%s: %+v", what, rs)
		}
	}
	if rs, err := install.ReadResults(t.TempDir()); err != nil || len(rs.Results) != 0 {
		t.Errorf("none: %+v, %v", rs, err)
	}
}

func FuzzResults(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"meshctl.io/v1","kind":"InstallResults","results":[{"kind":"InstallResult","id":"A-1","outcome":"success","phase":"Installed"}]}`))
	f.Add([]byte(`{"kind":"InstallResults"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		rs, err := install.DecodeResults(b)
		if err != nil {
			return
		}
		for _, r := range rs.Results {
			if rs.Answer(r.ID) == nil {
				t.Fatalf("%q is not found", r.ID)
			}
		}
		more := rs.Add(install.Result{Kind: install.KindResult, Outcome: install.Deferred, Phase: status.Deferred})
		enc, err := more.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if len(enc) <= install.MaxResultsBytes {
			if _, err := install.DecodeResults(enc); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A daemon that does not wait for the program is told why nothing can be done, too, once: it would otherwise say that nobody has
// taken the request up.
func TestDamageIsAnswered(t *testing.T) {
	b := installtest.New(t, nil)
	req := b.Request(t, b.Bundle(t, spec("1", 1)), installtest.Want{}).Fresh()
	if err := os.MkdirAll(b.Config.State, 0o755); err != nil {
		t.Fatal(err)
	}
	installtest.WriteFile(t, filepath.Join(b.Config.State, "installed.json"), []byte("decayed"))
	for range 2 {
		want(t, installer(b).Apply(t.Context(), req), "deferred 1 Deferred StateDamaged E4103")
	}
	installer(b).Recover(t.Context())
	rs := kept(t, b)
	if a := rs.Answer(req.ID); a == nil || a.Reason != install.ReasonStateDamaged || !strings.Contains(a.Detail, "restore the file") || len(rs.Results) != 1 {
		t.Errorf("%+v", rs)
	}
}
