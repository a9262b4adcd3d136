package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/status"
)

func newNode(env cli.Env) *cobra.Command {
	s := &server{env: env}
	c := &cobra.Command{Use: "node", Short: "nodes of all sites"}
	s.addFlags(c, callTimeout)
	c.AddCommand(newNodeList(s), newNodeGet(s))
	return c
}

func newNodeList(s *server) *cobra.Command {
	var labels []string
	var filter string
	var out output
	c := &cobra.Command{
		Use:   "list",
		Short: "list nodes, by their labels or by what they say",
		Long: `List shows the nodes of all sites, or those that are asked for. A filter is
conditions KEY=VALUE or KEY!=VALUE, joined by commas, which must all hold; a value
may stand in double quotes. The keys: phase, silent, attention, reason, code, alarm,
site, node, bundle, version, policy.`,
		Example: `  meshctl node list -l role=pos --filter silent=true
  meshctl node list --filter phase=RolledBack,reason=HealthFailed -o name`,
		Args: cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			conditions, err := parseFilter(filter)
			if err != nil {
				return cli.Usage(c, "--filter: %v", err)
			}
			want := map[string]string{}
			for _, l := range labels {
				k, v, ok := strings.Cut(l, "=")
				if !ok || k == "" {
					return cli.Usage(c, "-l %q: want KEY=VALUE", l)
				}
				want[k] = v
			}
			return s.do(c, func(ctx context.Context, client *api.Client) error {
				f, err := client.Status(ctx)
				if err != nil {
					return err
				}
				return out.nodes(s.env.Stdout, pick(f.Sites, want, conditions))
			})
		},
	}
	c.Flags().StringArrayVarP(&labels, "selector", "l", nil, "label that a node must have, `KEY=VALUE`; may be given several times")
	c.Flags().StringVar(&filter, "filter", "", "`conditions` that must hold, e.g. phase=Deferred,reason=LowDisk")
	out.addFlags(c, "table", "wide", "json", "yaml", "jsonl", "csv", "name")
	return c
}

func newNodeGet(s *server) *cobra.Command {
	var out output
	c := &cobra.Command{
		Use:   "get SITE/NODE",
		Short: "show one node",
		Long: `Get shows one node in a line, or all it says of itself with -o json or yaml. For
more words: meshctl status SITE/NODE, meshctl why SITE/NODE.`,
		Example: `  meshctl node get store-0417/pos-03 -o yaml`,
		Args:    cli.Args(1, 1, "SITE/NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			site, node, err := oneNode(c, args)
			if err != nil {
				return err
			}
			var of status.Site
			return answer(c, s, &out, func(ctx context.Context, client *api.Client) (n status.Seen, err error) {
				if of, err = client.Site(ctx, site); err == nil {
					n, err = nodeOf(of, node)
				}
				return n, err
			}, func(n status.Seen) *cli.Table {
				of.Nodes = []status.Seen{n}
				return out.nodeTable([]status.Site{of})
			})
		},
	}
	out.addFlags(c, "table", "wide", "json", "yaml")
	return c
}

// nodes prints nodes of several sites.
func (o *output) nodes(w io.Writer, sites []status.Site) error {
	nodes := []status.Seen{}
	for _, x := range sites {
		nodes = append(nodes, x.Nodes...)
	}
	switch o.format {
	case "table", "wide":
		_, err := o.nodeTable(sites).WriteTo(w)
		return err
	case "csv", "name":
		return nodeRows(w, o.format, sites)
	}
	return o.structured(w, nodes, func(emit func(any) error) error {
		for _, n := range nodes {
			if err := emit(n); err != nil {
				return err
			}
		}
		return nil
	})
}

// condition is KEY=VALUE or KEY!=VALUE.
type condition struct {
	key, value string
	not        bool
}

// parseFilter reads conditions joined by commas; a value in double quotes may hold commas.
func parseFilter(text string) (out []condition, err error) {
	for rest := text; rest != ""; {
		key, after, ok := strings.Cut(rest, "=")
		c := condition{key: strings.TrimSpace(key)}
		if c.key, c.not = strings.CutSuffix(c.key, "!"); !ok || c.key == "" {
			return nil, fmt.Errorf("%.60q: want KEY=VALUE or KEY!=VALUE, joined by commas", rest)
		}
		if quoted, ok := strings.CutPrefix(after, `"`); ok {
			c.value, rest, ok = strings.Cut(quoted, `"`)
			if !ok || rest != "" && rest[0] != ',' {
				return nil, fmt.Errorf("%.60q: the quotes do not end", after)
			}
			rest = strings.TrimPrefix(rest, ",")
		} else {
			c.value, rest, _ = strings.Cut(after, ",")
		}
		if _, ok := property(status.Site{}, status.Seen{}, c.key); !ok {
			return nil, fmt.Errorf("%.60q is not known: phase, silent, attention, reason, code, alarm, site, node, bundle, version, policy", c.key)
		}
		out = append(out, c)
	}
	return out, nil
}

// property is the values that a node has for a key.
func property(s status.Site, n status.Seen, key string) (values []string, known bool) {
	d := status.Desired{}
	if n.Desired != nil {
		d = *n.Desired
	}
	switch key {
	case "phase":
		return []string{string(n.Phase)}, true
	case "silent":
		return []string{fmt.Sprint(n.Silent)}, true
	case "attention":
		return []string{fmt.Sprint(needsAttention(n) != "")}, true
	case "reason":
		return []string{n.Reason, strings.ReplaceAll(n.Reason, `"`, "'")}, true
	case "code":
		return []string{n.Code}, true
	case "alarm":
		for _, a := range n.Alarms {
			values = append(values, a.Code)
		}
		return values, true
	case "site":
		return []string{s.Site}, true
	case "node":
		return []string{n.Node.Node}, true
	case "bundle":
		return []string{d.Bundle}, true
	case "version":
		return []string{d.Version}, true
	case "policy":
		return []string{d.Policy}, true
	}
	return nil, false
}

func (c condition) holds(s status.Site, n status.Seen) bool {
	values, _ := property(s, n, c.key)
	for _, v := range values {
		if v == c.value {
			return !c.not
		}
	}
	return c.not
}

// pick returns the sites with those of their nodes that are asked for, and no site without any.
func pick(sites []status.Site, labels map[string]string, conditions []condition) (out []status.Site) {
	for _, s := range sites {
		one := s
		one.Nodes = nil
		for _, n := range s.Nodes {
			ok := true
			for k, v := range labels {
				have, has := n.Labels[k]
				ok = ok && has && have == v
			}
			for _, c := range conditions {
				ok = ok && c.holds(s, n)
			}
			if ok {
				one.Nodes = append(one.Nodes, n)
			}
		}
		if len(one.Nodes) > 0 {
			out = append(out, one)
		}
	}
	return out
}

func (o *output) nodeTable(sites []status.Site) *cli.Table {
	var t cli.Table
	head := []string{"NODE", "PHASE", "VERSION", "WANTED", "SEEN", "NEXT-TRY", "REASON"}
	if o.wide() {
		head = append(head[:len(head)-1:len(head)-1], "POLICY", "BATCH", "GRANT", "SNAPSHOT", "AGENT", "LABELS", "REASON")
	}
	t.Row(head...)
	for _, s := range sites {
		for _, n := range s.Nodes {
			row := []string{cli.Printable(s.Site + "/" + n.Node.Node), dash(string(n.Phase)), installed(n.Node), wanted(n.Node), seenAge(s.AsOf, n), nextCell(s.AsOf, n)}
			if o.wide() {
				row = append(row, policyOf(n.Node), ordinal(n.Batch), ordinal(n.Grant), dash(n.Snapshot), dash(n.Software), dash(pairs(n.Labels)))
			}
			t.Row(append(row, remark(s, n))...)
		}
	}
	return &t
}

// ordinal is a number in a table; 0 is none.
func ordinal[T int | uint64](n T) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
