package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/plan"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/node"
)

// What the seeder says of a change, a saved state says without it; and a directory says which fields change.
func TestDiffOffline(t *testing.T) {
	o := newOffice(t, time.Hour)
	o.good("site create store-1 --timezone America/Chicago --wan-cap 6Mbit")
	for _, name := range []string{"pos-1", "pos-2"} {
		if _, err := node.Join(t.Context(), filepath.Join(o.dir, name), name, strings.TrimSpace(o.good("site token store-1 --label role=pos")), nil); err != nil {
			t.Fatal(err)
		}
	}
	for i, v := range []string{"1", "2"} {
		o.write("src"+v+"/a", strings.Repeat(v, 100_000))
		o.good("bundle build --name app --version " + v + ".0 --sequence " + v + " --format files --target-os any --from src" + v + " --out b" + v + " --key release.key")
		o.good("bundle push b" + v)
		o.policy([]string{"main", "branch"}[i]+"/policies/app.yaml", v+".0", "b"+v)
	}
	o.good("apply -f main/policies --key operator.key")
	if out := o.good("diff --save-state state.json"); out[:17] != "wrote state.json:" {
		t.Error(out)
	}
	planned := func(line string) (p api.Plan) {
		t.Helper()
		exit, out, errs := o.run(line)
		if err := json.Unmarshal([]byte(out), &p); err != nil || exit != problem.ExitFailure || errs != "" {
			t.Fatalf("meshctl %s: exit status %d, %v\n%s%s", line, exit, err, out, errs)
		}
		return p
	}
	online := planned("diff -f branch/policies -o json")
	o.env = map[string]string{} // from here on nobody is named
	if exit, _, errs := o.run("diff -f branch/policies -o json"); exit != problem.ExitUsage || !strings.Contains(errs, "no seeder is named") {
		t.Errorf("the control asks somebody: %d %s", exit, errs)
	}
	offline := planned("diff -f branch/policies --offline state.json -o json")
	if x := offline.Changes[0]; x.Nodes != 2 || x.Finish == nil || x.WANBytes == 0 {
		t.Errorf("%+v", x)
	}
	same := func(p *api.Plan) { // what differs for a reason: when it was asked, and how the bytes are packed
		p.AsOf = time.Time{}
		for i := range p.Changes {
			x := &p.Changes[i]
			x.SiteBytes, x.WANBytes, x.StagedBy, x.Finish, x.Windows = 0, 0, nil, nil, nil
		}
	}
	same(&online)
	same(&offline)
	if d := cmp.Diff(online, offline); d != "" {
		t.Errorf("offline it is another plan (-online +offline):\n%s", d)
	}
	exit, out, errs := o.run("diff -f branch/policies --offline main")
	if exit != problem.ExitFailure || !strings.HasPrefix(out, "no node is known here") || !strings.Contains(out, "spec.bundleRef.version  1.0 -> 2.0") || errs != "" {
		t.Errorf("%d %s%s", exit, out, errs)
	}
	// The branch is in force already, whatever the state says: the last one counts.
	if out := o.good("diff -f branch/policies --offline state.json --offline branch"); !strings.Contains(out, "nothing changes") {
		t.Error(out)
	}
	o.write("gone/policies/new.yaml", strings.NewReplacer("VERSION", "9", "CHECKSUM", "sha256:"+strings.Repeat("0", 64), "name: app}\n", "name: new}\n").Replace(policyForm))
	if exit, out, errs := o.run("diff -f gone --offline state.json --prune"); exit != problem.ExitNotFound || !strings.Contains(out, "- PatchPolicy/app") || !strings.Contains(errs, "E1204") {
		t.Errorf("%d %s%s", exit, out, errs)
	}
	o.write("bad.json", "{}")
	o.write("sites/sites/x.yaml", "name: y\n")
	o.write("sites/policies/app.yaml", string(must(os.ReadFile("main/policies/app.yaml"))))
	for _, against := range []string{"bad.json", "nowhere", "sites", "src1"} {
		if exit, _, errs := o.run("diff -f branch/policies --offline " + against); exit != problem.ExitUsage || !strings.Contains(errs, "E1002") {
			t.Errorf("--offline %s: %d %s", against, exit, errs)
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// A saved state is a file like any other: whatever stands in it, it is read or refused.
func FuzzPlanState(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"meshctl.io/v1","kind":"PlanState","asOf":"2026-11-21T00:00:00Z","sites":[{"name":"a","timezone":"UTC","wan":{"cap":"6Mbit","perDay":"0","rules":[]},"today":1,"nodes":[{"name":"n","labels":{"role":"pos"},"installed":{"app":1}}],"held":{}}],"policies":[],"bundles":[]}`))
	f.Add([]byte(`{"apiVersion":"meshctl.io/v1","kind":"PlanState","sites":null,"policies":["x"],"bundles":[{"digest":"sha256:"}]}`))
	f.Add([]byte("{}x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := parseState(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		w := plan.World{Now: asOf}
		if st.add(&w, "state") != nil {
			return
		}
		plan.Compute(w, w.InForce, true)
	})
}
