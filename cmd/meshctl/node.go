package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/status"
)

func newNode(env cli.Env) *cobra.Command {
	s := &server{env: env}
	c := &cobra.Command{Use: "node", Short: "nodes of all sites"}
	s.addFlags(c, callTimeout)
	c.AddCommand(newNodeList(s))
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
			client, err := s.client()
			if err != nil {
				return err
			}
			ctx, cancel := s.within(c.Context())
			defer cancel()
			f, err := client.Status(ctx)
			if err != nil {
				return err
			}
			sites, nodes := pick(f.Sites, want, conditions), []status.Seen{}
			for _, x := range sites {
				nodes = append(nodes, x.Nodes...)
			}
			switch out.format {
			case "table":
				_, err = nodeTable(sites).WriteTo(s.env.Stdout)
				return err
			case "csv", "name":
				return nodeRows(s.env.Stdout, out.format, sites)
			}
			return out.structured(s.env.Stdout, nodes, func(emit func(any) error) error {
				for _, n := range nodes {
					if err := emit(n); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	c.Flags().StringArrayVarP(&labels, "selector", "l", nil, "label that a node must have, `KEY=VALUE`; may be given several times")
	c.Flags().StringVar(&filter, "filter", "", "`conditions` that must hold, e.g. phase=Deferred,reason=LowDisk")
	out.addFlags(c, "table", "json", "yaml", "jsonl", "csv", "name")
	return c
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

func nodeTable(sites []status.Site) *cli.Table {
	var t cli.Table
	t.Row("NODE", "PHASE", "VERSION", "WANTED", "SEEN", "NEXT-TRY", "REASON")
	for _, s := range sites {
		for _, n := range s.Nodes {
			t.Row(cli.Printable(s.Site+"/"+n.Node.Node), dash(string(n.Phase)), installed(n.Node), wanted(n.Node), seenAge(s.AsOf, n), nextTry(n.NextAttempt), remark(s, n))
		}
	}
	return &t
}
