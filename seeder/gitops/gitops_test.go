package gitops

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/bed/gitrepo"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
)

func TestJudge(t *testing.T) {
	now := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	good := func() Facts {
		return Facts{Commit: &policy.Commit{ID: strings.Repeat("b", 40), Time: now}, Signers: []string{"K"}, Now: now,
			Last: strings.Repeat("a", 40), LastTime: now.Add(-time.Second), Descends: true, Policy: []string{"K", "L"}}
	}
	for what, x := range map[string]struct {
		change func(*Facts)
		word   string // of the refusal; empty: none
	}{
		"good":                         {func(*Facts) {}, ""},
		"first":                        {func(f *Facts) { f.Last, f.Descends = "", false }, ""},
		"not a descendant":             {func(f *Facts) { f.Descends = false }, "does not come after"},
		"of the same second":           {func(f *Facts) { f.LastTime = now }, "is not later"},
		"as far ahead as may be":       {func(f *Facts) { f.Commit.Time = now.Add(MaxAhead) }, ""},
		"of the future":                {func(f *Facts) { f.Commit.Time = now.Add(MaxAhead + time.Second) }, "in the future"},
		"keys of the last allow":       {func(f *Facts) { f.LastKeys, f.Keys = []string{"K"}, []string{"L"} }, ""},
		"keys of the last do not":      {func(f *Facts) { f.LastKeys, f.Keys = []string{"L"}, []string{"K", "L"} }, "not in keys/"},
		"first, not in its own keys":   {func(f *Facts) { f.Last, f.Keys = "", []string{"L"} }, "not in keys/"},
		"nobody could sign after that": {func(f *Facts) { f.Keys = []string{"X"} }, "nobody could sign"},
	} {
		f := good()
		x.change(&f)
		err := Judge(f)
		if x.word == "" && err != nil || x.word != "" && (problem.CodeOf(err) != problem.CommitRefused || !strings.Contains(err.Error(), x.word)) {
			t.Errorf("%s: %v, want %q", what, err, x.word)
		}
	}
}

func TestOlder(t *testing.T) {
	for _, x := range []struct {
		downgrade     bool
		next, inForce uint64
		refused       bool
	}{{false, 2, 1, false}, {false, 1, 1, false}, {false, 1, 2, true}, {true, 1, 2, false}} {
		if err := Older(&policy.Policy{Downgrade: x.downgrade}, x.next, x.inForce); (err != nil) != x.refused {
			t.Errorf("%+v: %v", x, err)
		}
	}
}

func TestParseSite(t *testing.T) {
	if s, err := ParseSite("a", []byte("name: a\ntimezone: Europe/Berlin\nwan: {cap: 6Mbit, perDay: \"0\"}\n")); err != nil || s.Timezone != "Europe/Berlin" || s.Profile().Cap != "6Mbit" {
		t.Errorf("%+v, %v", s, err)
	}
	for what, text := range map[string]string{
		"empty": "", "another name": "name: b\n", "unknown field": "name: a\nnodes: 3\n", "unknown zone": "name: a\ntimezone: Mars/North\n",
		"bad cap": "name: a\nwan: {cap: fast}\n", "two documents": "name: a\n---\nname: a\n", "large": "name: a\n#" + strings.Repeat("x", maxSiteBytes),
	} {
		if s, err := ParseSite("a", []byte(text)); problem.CodeOf(err) != problem.InvalidFile {
			t.Errorf("%s: %+v, %v", what, s, err)
		}
	}
}

func FuzzParseSite(f *testing.F) {
	f.Add([]byte("name: a\ntimezone: UTC\nwan: {cap: 6Mbit, perDay: \"0\", rules: [Daily 1Mbit]}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseSite("a", b); err == nil && s.Name != "a" {
			t.Errorf("%+v", s)
		}
	})
}

func TestCheck(t *testing.T) {
	for address, good := range map[string]bool{
		"https://git.example.com/a.git": true, "ssh://git@git.example.com/a.git": true, "file:///srv/a.git": true, "/srv/a.git": true,
		"": false, "http://git.example.com/a": false, "git://git.example.com/a": false, "ext::sh -c id": false, "-uevil": false, "a/b": false, "https://x/\nurl=y": false,
	} {
		if err := (&Mirror{Repository: address, Branch: "main"}).Check(); (err == nil) != good {
			t.Errorf("%q: %v", address, err)
		}
	}
	for branch, good := range map[string]bool{"main": true, "release/1.x": true, "": false, "-x": false, "a..b": false, "a:b": false, "a b": false, "x.lock": false, "../x": false} {
		if validBranch(branch) != good {
			t.Errorf("branch %q", branch)
		}
	}
	m := &Mirror{Repository: "https://bot:secret@git.example.com/a.git"}
	if p := m.Public(); strings.Contains(p, "secret") || strings.Contains(p, "bot") {
		t.Error(p)
	}
}

func TestMirror(t *testing.T) {
	for _, format := range []string{"sha1", "sha256"} {
		t.Run(format, func(t *testing.T) {
			r := gitrepo.New(t, "--object-format="+format)
			id := r.Commit("", "begin", map[string]string{"policies/a.yaml": "a\n", "policies/README": "x", "sites/b.yaml": "b\n"})
			m := &Mirror{Dir: filepath.Join(t.TempDir(), "git"), Repository: r.Dir, Branch: "main"}
			fetch := func() string {
				t.Helper()
				if err := m.Open(t.Context()); err != nil {
					t.Fatal(err)
				}
				got, err := m.Fetch(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return got
			}
			if got := fetch(); got != id {
				t.Errorf("head %s, want %s", got, id)
			}
			s, err := m.Snapshot(t.Context(), id)
			if err != nil || len(s.Policies) != 1 || string(s.Policies["a"]) != "a\n" || string(s.Sites["b"]) != "b\n" || !s.Holds("a", []byte("a\n")) || s.Holds("a", []byte("b\n")) || !s.Holds("z", nil) {
				t.Errorf("%+v, %v", s, err)
			}
			next := r.Commit("", "next", map[string]string{"policies/a.yaml": "a2\n"})
			// What a killed git leaves behind.
			for _, name := range []string{"refs/heads/followed.lock", "HEAD.lock", "objects/pack/tmp_pack_x"} {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(m.Dir, name)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(m.Dir, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := fetch(); got != next {
				t.Errorf("head %s, want %s", got, next)
			}
			if ok, err := m.Descends(t.Context(), id, next); err != nil || !ok {
				t.Errorf("descends: %v, %v", ok, err)
			}
			if ok, err := m.Descends(t.Context(), next, id); err != nil || ok {
				t.Errorf("descends backwards: %v, %v", ok, err)
			}
			if ids, err := m.Touched(t.Context(), id, next, "policies/a.yaml"); err != nil || len(ids) != 1 || ids[0] != next {
				t.Errorf("touched: %v, %v", ids, err)
			}
			// A mirror that is damaged is made anew.
			if err := os.RemoveAll(filepath.Join(m.Dir, "HEAD")); err != nil {
				t.Fatal(err)
			}
			if got := fetch(); got != next {
				t.Errorf("head %s, want %s", got, next)
			}
		})
	}
}

func TestMirrorIsBounded(t *testing.T) {
	r := gitrepo.New(t)
	id := r.Commit("", "begin", map[string]string{"policies/a.yaml": "a\n"})
	open := func(limit int64) *Mirror {
		m := &Mirror{Dir: filepath.Join(t.TempDir(), "git"), Repository: r.Dir, Branch: "main", MaxBytes: limit}
		if err := m.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		return m
	}
	if got, err := open(1 << 20).Fetch(t.Context()); err != nil || got != id {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := open(1).Fetch(t.Context()); problem.CodeOf(err) != problem.GitUnreachable || !strings.Contains(err.Error(), "at most 1") {
		t.Errorf("above the limit: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := open(1 << 20).Fetch(ctx); problem.CodeOf(err) != problem.GitUnreachable {
		t.Errorf("cancelled: %v", err)
	}
	m := open(1 << 20)
	if _, err := m.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	large := r.Commit("", "large", map[string]string{"policies/b.yaml": strings.Repeat("x", policy.MaxBytes+1)})
	if _, err := m.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Snapshot(t.Context(), large); problem.CodeOf(err) != problem.CommitRefused {
		t.Errorf("a policy that is too large: %v", err)
	}
}
