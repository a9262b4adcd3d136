package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

func newDoctor(env cli.Env) *cobra.Command {
	s := &server{env: env}
	var socket, executor string
	var out output
	c := &cobra.Command{
		Use:   "doctor",
		Short: "say on a node what is well with it and what is not",
		Long: `Doctor asks the daemon of this machine and says what is well and what is not:
clock, identity, peers, WAN, content, storage, install, executor. It needs no network.

It ends with 3 when something is not well.`,
		Args: cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			client, err := api.NewNodeClient(socket)
			if err != nil {
				return err
			}
			ctx, cancel := s.within(c.Context())
			defer cancel()
			site, err := client.Status(ctx)
			if err != nil {
				return err
			}
			n, err := client.Node(ctx)
			if err != nil {
				return err
			}
			d := examine(site, n)
			d.executor(executor, n)
			d.conclude(n)
			if out.format == "text" {
				err = d.write(env.Stdout)
			} else {
				err = out.structured(env.Stdout, d, nil)
			}
			if err == nil && d.Errors+d.Warnings > 0 {
				err = cli.Status(problem.ExitDegraded)
			}
			return err
		},
	}
	c.Flags().StringVar(&socket, "socket", nodeSocket, "ask the daemon at this `path`")
	c.Flags().StringVar(&executor, "install-config", "/etc/meshd/mesh-install.yaml", "the executor's configuration, at this `path`")
	c.Flags().DurationVar(&s.timeout, "timeout", callTimeout, "give up after this long; 0 waits for ever")
	out.addFlags(c, "text", "json", "yaml")
	return c
}

// diagnosis is the JSON answer.
type diagnosis struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"` // NodeDiagnosis
	Site       string    `json:"site"`
	Node       string    `json:"node"`
	Findings   []finding `json:"findings"`
	Errors     int       `json:"errors"`
	Warnings   int       `json:"warnings"`
	Result     string    `json:"result"`
}

// finding is one line: of what, how bad, and what.
type finding struct {
	About string       `json:"about"`
	State string       `json:"state"` // ok, warning, error
	Text  string       `json:"text"`
	Code  problem.Code `json:"code,omitempty"`
}

// examine says what a node's own words come to. Pure.
func examine(site status.Site, n status.Node) *diagnosis {
	d := &diagnosis{APIVersion: status.APIVersion, Kind: "NodeDiagnosis", Site: n.Site, Node: n.Node, Findings: []finding{}}
	d.clock(n)
	d.say("identity", "ok", "", "%s, roster version %d of site %s", n.PeerID, site.Roster, n.Site)
	d.peers(site, n)
	d.wan(site, n)
	d.content(n)
	d.alarms("storage", n, "no alarm", func(c string) bool { return strings.HasPrefix(c, "E4") })
	d.alarms("install", n, "no alarm", func(c string) bool { return !strings.HasPrefix(c, "E4") && !clockAlarm(n, c) })
	d.conclude(n)
	return d
}

func (d *diagnosis) say(about, state string, code problem.Code, format string, args ...any) {
	switch state {
	case "error":
		d.Errors++
	case "warning":
		d.Warnings++
	}
	d.Findings = append(d.Findings, finding{about, state, fmt.Sprintf(format, args...), code})
}

// clockUnsure is the reason of a deferral that the clock is to blame for (rule W6).
const clockUnsure = "ClockUnsure"

func clockAlarm(n status.Node, code string) bool {
	for _, a := range n.Alarms {
		if a.Code == code && strings.Contains(strings.ToLower(a.Message), "clock") {
			return true
		}
	}
	return false
}

func (d *diagnosis) clock(n status.Node) {
	bad := n.Reason == clockUnsure
	for _, a := range n.Alarms {
		if clockAlarm(n, a.Code) {
			bad = true
			d.say("clock", "warning", problem.Code(a.Code), "%s", a.Message)
		}
	}
	switch {
	case !bad:
		d.say("clock", "ok", "", "%s, no doubt about it", n.At.UTC().Format("2006-01-02 15:04:05 MST"))
	case n.Reason == clockUnsure:
		d.say("clock", "error", "", "it is not sure of the time and installs nothing: %s", firstLine(n.Detail))
	}
}

func (d *diagnosis) peers(site status.Site, n status.Node) {
	others, heard := 0, 0
	for _, x := range site.Nodes {
		if x.Node.Node == n.Node {
			continue
		}
		if others++; !x.Silent {
			heard++
		}
	}
	switch {
	case others == 0:
		d.say("peers", "ok", "", "it is alone in its site")
	case heard == 0:
		d.say("peers", "error", problem.SiteSilent, "none of %s of the site is heard: the LAN, its firewall or multicast", cli.Count(others, "other node"))
	case heard < others:
		d.say("peers", "warning", "", "%d of %d heard, %d connected", heard, others, n.Transfer.Peers)
	default:
		d.say("peers", "ok", "", "%d of %d heard, %d connected", heard, others, n.Transfer.Peers)
	}
}

func (d *diagnosis) wan(site status.Site, n status.Node) {
	if site.Uplink == "" {
		d.say("wan", "error", problem.SeederUnreachable, "no uplink is known: %s", site.WAN.Why)
		return
	}
	state := "ok"
	if strings.Contains(site.WAN.Why, "reaches the data centre") {
		state = "warning"
	}
	d.say("wan", state, "", "uplink %s; %s; %d reports wait", site.Uplink, site.WAN.Why, n.Outbox)
}

func (d *diagnosis) content(n status.Node) {
	x := n.Transfer
	switch {
	case n.Desired == nil:
		d.say("content", "ok", "", "no policy asks for anything")
	case x.Bytes > 0 && x.BytesHave == x.Bytes:
		d.say("content", "ok", "", "%s is complete: %d chunks, %s", wanted(n), x.Chunks, cli.Bytes(x.Bytes))
	default:
		d.say("content", "ok", "", "%s is on its way: %d of %d chunks", wanted(n), x.ChunksHave, x.Chunks)
	}
}

// alarms of one kind, or that there is none.
func (d *diagnosis) alarms(about string, n status.Node, well string, of func(code string) bool) {
	found := false
	for _, a := range n.Alarms {
		if of(a.Code) {
			found = true
			d.say(about, "warning", problem.Code(a.Code), "%s", a.Message)
		}
	}
	if about == "install" {
		switch {
		case status.Failed(n.Phase):
			found = true
			d.say(about, "error", problem.Code(n.Code), "%s: %s", n.Phase, n.Reason)
		case n.Phase == status.Deferred:
			found = true
			d.say(about, "warning", problem.Code(n.Code), "deferred: %s; next try %s", words(n.Reason), nextTry(n.NextAttempt))
		}
		well = strings.TrimSuffix(string(n.Phase)+": "+n.Reason, ": ")
	}
	if !found {
		d.say(about, "ok", "", "%s", well)
	}
}

func (d *diagnosis) conclude(n status.Node) {
	x := n.Transfer
	can := "this node waits for its content"
	switch {
	case n.Quarantine != "" || status.Failed(n.Phase):
		can = "this node installs nothing until somebody looks at it"
	case n.Desired == nil || n.Phase == status.Installed:
		can = "this node has what it is asked for"
	case x.Bytes > 0 && x.BytesHave == x.Bytes:
		can = "this node can patch in its window, with or without the WAN"
	}
	d.Result = fmt.Sprintf("%s, %s: %s", cli.Count(d.Errors, "error"), cli.Count(d.Warnings, "warning"), can)
}

func (d *diagnosis) write(w io.Writer) error {
	var t cli.Table
	last := ""
	for _, f := range d.Findings {
		about := f.About
		if about == last {
			about = ""
		}
		last = f.About
		text := cli.Printable(f.Text)
		if f.Code != "" {
			text += " (meshctl explain " + cli.Printable(string(f.Code)) + ")"
		}
		t.Row(about, map[string]string{"ok": "ok", "warning": "!", "error": "x"}[f.State], text)
	}
	t.Row("result", "", d.Result)
	_, err := t.WriteTo(w)
	return err
}

func firstLine(s string) string { line, _, _ := strings.Cut(s, "\n"); return line }
