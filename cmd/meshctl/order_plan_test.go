package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// standing is a node with a version of app in force and one that it is asked for; "" is none.
func standing(site, name, now, wanted string, phase status.Phase) status.Seen {
	n := status.Seen{Node: status.Node{Site: site, Node: name, Phase: phase}, Labels: map[string]string{"role": "pos", "name": name}}
	if now != "" {
		n.Installed = []status.InstalledItem{{Bundle: "app", Version: now, Checksum: manifest.DigestOf([]byte(now))}, {Bundle: "other", Version: "9"}}
	}
	if wanted != "" {
		n.Desired = &status.Desired{Bundle: "app", Version: wanted, Checksum: manifest.DigestOf([]byte(wanted))}
	}
	return n
}

func sitesAs(nodes ...status.Seen) (out []status.Site) {
	for _, n := range nodes {
		if len(out) == 0 || out[len(out)-1].Site != n.Site {
			out = append(out, status.Site{Site: n.Site})
		}
		s := &out[len(out)-1]
		s.Nodes = append(s.Nodes, n)
	}
	return out
}

// Which release an order is about, when nobody says, and for how many nodes.
func TestPlanOrder(t *testing.T) {
	one := order.Targets{Sites: []string{"s1"}}
	everywhere := order.Targets{Labels: map[string]string{"role": "pos"}}
	for name, c := range map[string]struct {
		kind    order.Kind
		version string
		targets order.Targets
		nodes   []status.Seen
		want    string // version acts/nodes holds, or a code
	}{
		"the one in force":         {order.Rollback, "", one, []status.Seen{standing("s1", "a", "2", "2", "Installed"), standing("s1", "b", "2", "2", "Installed")}, "2 2/2 0"},
		"in the middle of it":      {order.Rollback, "", one, []status.Seen{standing("s1", "a", "2", "2", "Installed"), standing("s1", "b", "1", "2", "Staged")}, "2 1/2 1"},
		"before anybody has it":    {order.Rollback, "", one, []status.Seen{standing("s1", "a", "", "2", "Staging"), standing("s1", "b", "", "2", "Staged")}, "2 0/2 2"},
		"the next is asked for":    {order.Rollback, "", one, []status.Seen{standing("s1", "a", "2", "3", "Staging")}, "E1001"},
		"given twice":              {order.Rollback, "", one, []status.Seen{standing("s1", "a", "1", "2", "RolledBack")}, "E1001"},
		"nothing is asked for":     {order.Rollback, "", one, []status.Seen{standing("s1", "a", "2", "", "Installed")}, "2 1/1 0"},
		"three in force":           {order.Rollback, "", one, []status.Seen{standing("s1", "a", "1", "4", "Staged"), standing("s1", "b", "2", "4", "Staged")}, "E1001"},
		"three and one is said":    {order.Rollback, "2", one, []status.Seen{standing("s1", "a", "1", "4", "Staged"), standing("s1", "b", "2", "4", "Staged")}, "2 1/2 0"},
		"a version nobody has":     {order.Rollback, "7", one, []status.Seen{standing("s1", "a", "2", "2", "Installed")}, "E1204"},
		"no such bundle":           {order.Rollback, "", one, []status.Seen{standing("s1", "a", "", "", "Pending")}, "E1204"},
		"nobody":                   {order.Rollback, "", order.Targets{Sites: []string{"s1"}, Nodes: []string{"z"}}, []status.Seen{standing("s1", "a", "2", "2", "Installed")}, "E1204"},
		"one node":                 {order.Rollback, "", order.Targets{Sites: []string{"s1"}, Nodes: []string{"b"}}, []status.Seen{standing("s1", "a", "2", "2", "Installed"), standing("s1", "b", "1", "2", "Staged")}, "E1001"},
		"one node, and it is said": {order.Rollback, "1", order.Targets{Sites: []string{"s1"}, Nodes: []string{"b"}}, []status.Seen{standing("s1", "a", "2", "2", "Installed"), standing("s1", "b", "1", "2", "Staged")}, "1 1/1 0"},
		"a label, two sites":       {order.Rollback, "", everywhere, []status.Seen{standing("s1", "a", "2", "2", "Installed"), standing("s2", "a", "2", "2", "Installed")}, "2 2/2 0"},
		"retry what was held":      {order.Retry, "", one, []status.Seen{standing("s1", "a", "1", "2", "RolledBack"), standing("s1", "b", "2", "2", "Installed"), standing("s1", "c", "1", "2", "Quarantined")}, "2 2/3 0"},
		"retry, and nothing holds": {order.Retry, "", one, []status.Seen{standing("s1", "a", "2", "2", "Installed"), standing("s1", "b", "1", "2", "Deferred")}, "E1204"},
	} {
		p, err := planOrder(c.kind, "app", c.version, c.targets, sitesAs(c.nodes...))
		got := string(problem.CodeOf(err))
		if err == nil {
			acts, all := 0, 0
			for s, n := range p.nodes {
				acts, all = acts+p.acts[s], all+n
			}
			got = fmt.Sprintf("%s %d/%d %d", p.version, acts, all, p.holds)
			if p.checksum != manifest.DigestOf([]byte(p.version)) {
				t.Errorf("%s: the checksum is of another version", name)
			}
		}
		if got != c.want {
			t.Errorf("%s: %s (%v), want %s", name, got, err, c.want)
		}
	}
}

func TestOrderScreen(t *testing.T) {
	var nodes []status.Seen
	for i := range 23 {
		nodes = append(nodes, standing(fmt.Sprintf("site-%02d", i), "pos-01", "2.0", "2.0", "Installed"), standing(fmt.Sprintf("site-%02d", i), "pos-02", "1.0", "2.0", "Staged"))
	}
	nodes[5].Silent = true
	p, err := planOrder(order.Rollback, "app", "", order.Targets{Sites: []string{}, Nodes: []string{}, Labels: map[string]string{"role": "pos"}}, sitesAs(nodes...))
	if err != nil {
		t.Fatal(err)
	}
	p.reason = "tills freeze"
	golden(t, "rollback", p.text())
	o := p.order()
	o.Schema, o.Sequence, o.Created = order.Schema, 7, order.Timestamp(asOf)
	if _, err := o.Encode(); err != nil {
		t.Errorf("what is shown cannot be ordered: %v", err)
	}
}

// The commands, against a real seeder: who may order, what is asked before, and that a sequence is used once.
func TestOrderCommands(t *testing.T) {
	o := newOffice(t, time.Hour)
	o.good("site create store-1")
	o.good("site create store-2")
	for _, c := range []struct {
		line           string
		exit           problem.Exit
		stdout, stderr string
	}{
		{"rollback", 2, ``, `E1001`},
		{"rollback app --reason x --key operator.key", 2, ``, `E1001.*no node is named`},
		{"rollback app --site store-1 --key operator.key", 2, ``, `E1001.*no reason`},
		{"rollback app --site store-1 --reason x", 2, ``, `E1001.*no key`},
		{"rollback app --site store-1 --site store-2 --node a --reason x --dry-run", 2, ``, `E1001.*exactly one --site`},
		{"rollback app --label pos --reason x --dry-run", 2, ``, `E1001.*KEY=VALUE`},
		{"rollback app --site store-9 --reason x --dry-run", 10, ``, `E1204.*store-9`},
		{"rollback app --site store-1 --reason x --dry-run", 10, ``, `E1204.*for no node: store-1`},
		{"retry app --site store-1 --now --reason x", 2, ``, `unknown flag: --now`},
		{"order list", 0, `^ORDER +KIND`, ``},
		{"events", 0, `^$`, ``},
		{"events store-1", 0, `^$`, ``},
		{"events store-9", 10, ``, `E1204.*store-9`},
		{"events store-1/a", 10, ``, `E1204.*no node a`},
		{"events store-1/", 2, ``, `E1001`},
		{"events --limit 0", 2, ``, `E1001`},
		{"events -f -o json", 2, ``, `E1001.*jsonl`},
		{"events --json", 0, `^\[\]`, ``},
		{"why store-1", 0, `^store-1 has no nodes`, ""},
		{"why store-1/a", 10, ``, `E1204.*no node a`},
	} {
		exit, out, errs := o.run(c.line)
		if exit != c.exit || !regexp.MustCompile(c.stdout).MatchString(out) || !regexp.MustCompile(c.stderr).MatchString(errs) || c.exit != 0 && strings.TrimSpace(out) != "" {
			t.Errorf("meshctl %s: exit status %d, want %d\n%s%s", c.line, exit, c.exit, out, errs)
		}
	}
}
