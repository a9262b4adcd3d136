package dnf

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/packages"
)

func TestSettleFile(t *testing.T) {
	t.Parallel()
	now := time.Now().Unix()
	for _, c := range []struct {
		name         string
		want         packages.Conffiles
		tid          int64
		before       map[string]string // by ending
		after        map[string]string
		hardLinkLeft bool // the run before was cut between its two steps
	}{
		{name: "untouched", want: packages.Keep, tid: now - 60, before: map[string]string{"": "new"}, after: map[string]string{"": "new"}},
		{name: "keep", want: packages.Keep, tid: now - 60, before: map[string]string{"": "new", ".rpmsave": "mine"}, after: map[string]string{"": "mine", ".rpmnew": "new"}},
		{name: "keep, rpm did", want: packages.Keep, tid: now - 60, before: map[string]string{"": "mine", ".rpmnew": "new"}, after: map[string]string{"": "mine", ".rpmnew": "new"}},
		{name: "keep, belonged to nobody", want: packages.Keep, tid: now - 60, before: map[string]string{"": "new", ".rpmorig": "mine"}, after: map[string]string{"": "mine", ".rpmnew": "new"}},
		{name: "replace", want: packages.Replace, tid: now - 60, before: map[string]string{"": "mine", ".rpmnew": "new"}, after: map[string]string{"": "new", ".rpmsave": "mine"}},
		{name: "replace, rpm did", want: packages.Replace, tid: now - 60, before: map[string]string{"": "new", ".rpmsave": "mine"}, after: map[string]string{"": "new", ".rpmsave": "mine"}},
		{name: "other one is older", want: packages.Keep, tid: now - 60, before: map[string]string{"": "new", ".rpmsave": "mine", ".rpmnew": "older"}, after: map[string]string{"": "mine", ".rpmnew": "new"}},
		{name: "left by an earlier transaction", want: packages.Keep, tid: now + 60, before: map[string]string{"": "new", ".rpmsave": "older"}, after: map[string]string{"": "new", ".rpmsave": "older"}},
		{name: "removed by its owner", want: packages.Replace, tid: now - 60, before: map[string]string{".rpmnew": "new"}, after: map[string]string{"": "new"}},
		{name: "cut", want: packages.Keep, tid: now - 60, hardLinkLeft: true, before: map[string]string{"": "new", ".rpmsave": "mine"}, after: map[string]string{"": "mine", ".rpmnew": "new"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			conf := filepath.Join(root, "demo.conf")
			for ending, text := range c.before {
				if err := os.WriteFile(conf+ending, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if c.hardLinkLeft {
				if err := os.Link(conf, conf+".rpmnew"); err != nil {
					t.Fatal(err)
				}
			}
			m := New(Config{Root: root})
			f := configFile{path: "/demo.conf", tid: c.tid}
			// The second time finds nothing to do: what was settled is not turned back.
			if err := errors.Join(m.settleFile(f, c.want), m.settleFile(f, c.want)); err != nil {
				t.Fatal(err)
			}
			after := map[string]string{}
			for _, ending := range []string{"", ".rpmnew", ".rpmsave", ".rpmorig"} {
				if b, err := os.ReadFile(conf + ending); err == nil {
					after[ending] = string(b)
				}
			}
			if diff := cmp.Diff(c.after, after); diff != "" {
				t.Error(diff)
			}
		})
	}
}
