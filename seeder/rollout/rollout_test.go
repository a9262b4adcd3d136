package rollout

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/bed/transcript"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
)

var update = flag.Bool("update", false, "rewrite the transcripts; commit only what you understand")

// TestTranscripts replays testdata/*.txt. A line that begins with "> " is an event, what follows are the actions, and
// where the rollout stands then. "> 5m s1/n1 installed" is: five minutes later node n1 says so. Windows are of two hours
// at 02:00 every day, unless "window" says otherwise; time begins at 01:00.
func TestTranscripts(t *testing.T) {
	transcript.Run(t, *update, func(t *testing.T) func(io.Writer, string) {
		x := &stage{now: day.Add(time.Hour), w: World{Revision: 1, Sites: map[string]Site{}, Policy: testPolicy(policy.Rollout{})}, shift: map[string]time.Duration{}}
		x.s = New(x.now, "pos", 1, nil)
		return func(out io.Writer, said string) { x.say(t, out, said) }
	})
}

var day = time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC)

func testPolicy(r policy.Rollout) *policy.Policy {
	return &policy.Policy{Name: "pos", Bundle: policy.BundleRef{Name: "app", Version: "2.0", Checksum: manifest.DigestOf([]byte("app"))}, Rollout: &r}
}

// stage is a world that a test changes.
type stage struct {
	grants int // so many were asked for
	now    time.Time
	s      State
	w      World
	always bool
	shift  map[string]time.Duration // of the windows of a site
}

// turn looks at the windows and makes a step. The state goes through JSON each time.
func (x *stage) step(t interface{ Fatal(...any) }) []Action {
	for site := range x.w.Sites {
		if x.always {
			x.w.Sites[site] = Site{Known: true}
			continue
		}
		opens := x.now.Truncate(24 * time.Hour).Add(2*time.Hour + x.shift[site])
		if !x.now.Before(opens.Add(2 * time.Hour)) {
			opens = opens.Add(24 * time.Hour)
		}
		x.w.Sites[site] = Site{Known: true, Opens: opens, Closes: opens.Add(2 * time.Hour)}
	}
	before, _ := json.Marshal(x.s)
	s, out := Step(x.now, x.s, x.w)
	if after, _ := json.Marshal(x.s); !bytes.Equal(before, after) {
		t.Fatal("a step changed the state that it was given")
	}
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if x.s, err = Decode(b); err != nil {
		t.Fatal(err)
	}
	for _, a := range out {
		if a.Grant != nil {
			if _, err := a.Grant.Encode(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

func (x *stage) fact(site, node string) *Fact {
	i := slices.IndexFunc(x.w.Nodes, func(f Fact) bool { return f.Site == site && f.Node == node })
	if i < 0 {
		x.w.Nodes = append(x.w.Nodes, Fact{Site: site, Node: node, Said: SaidWaiting, Staged: true})
		x.w.Sites[site] = Site{}
		i = len(x.w.Nodes) - 1
	}
	return &x.w.Nodes[i]
}

// say is an event of a transcript, with what becomes of it.
func (x *stage) say(t *testing.T, out io.Writer, said string) {
	t.Helper()
	f := strings.Fields(said)
	switch f[0] {
	case "policy":
		x.policy(t, f[1:])
		return
	case "site", "shift": // before anything happens
		x.event(f)
		return
	}
	d, err := time.ParseDuration(f[0])
	if err != nil {
		t.Fatalf("%q: %v", said, err)
	}
	for to := x.now.Add(d); ; x.now = x.now.Add(time.Minute) {
		if !x.now.Before(to) {
			x.now = to
			break
		}
		x.show(out, x.step(t))
	}
	if err := x.event(f[1:]); err != nil {
		fmt.Fprintf(out, "  %v\n", err)
	}
	x.show(out, x.step(t))
	fmt.Fprintf(out, "  %s %s %s\n", x.now.Format("2 15:04"), x.s.Phase, x.s.Reason)
}

func (x *stage) policy(t *testing.T, f []string) {
	r := x.w.Policy.Rollout
	for _, word := range f {
		k, v, _ := strings.Cut(word, "=")
		d, _ := time.ParseDuration(v)
		z, _ := policy.ParseSize(v)
		n, _ := strconv.Atoi(v)
		switch k {
		case "batch":
			r.Batch = z
		case "delay":
			r.BatchDelay = d
		case "cap":
			r.MaxUnavailable = z
		case "soak":
			r.Canary = &policy.Canary{Soak: d}
		case "manual":
			r.Canary.Manual = true
		case "max":
			r.Budget.Max = z
		case "samples":
			r.Budget.MinSamples = n
		case "rollback":
			r.Budget.Rollback = true
		case "deadline":
			r.ProgressDeadline = d
		case "strict":
			r.Strict = true
		case "bySite":
			r.BySite = true
		case "fromStarted":
			r.FromStarted = true
		case "fast":
			x.w.Policy.FastTrack = &policy.FastTrack{CVE: "CVE-2026-1", Approvers: []string{"a", "b"}}
		case "staged":
			x.w.Policy.Staging.RequireBeforeWindow = true
		default:
			t.Fatalf("policy %q", word)
		}
	}
}

func (x *stage) event(f []string) (err error) {
	if len(f) == 0 {
		return nil
	}
	switch f[0] {
	case "pause":
		x.s, err = x.s.Pause(x.now, f[1], strings.Join(f[2:], " "))
		return err
	case "resume":
		x.s, err = x.s.Resume(x.now, f[1], strings.Join(f[2:], " "))
		return err
	case "promote":
		x.s, err = x.s.Promote(f[1], strings.Join(f[2:], " "))
		return err
	case "retry":
		var nodes map[string][]string
		x.s, nodes, err = x.s.Retry("")
		if err == nil {
			err = fmt.Errorf("again: %v", nodes)
		}
		return err
	case "suspend":
		x.w.Policy.Suspend = true
	case "unsuspend":
		x.w.Policy.Suspend = false
	case "revoke":
		x.w.Revoked = strings.Join(f[1:], " ")
	case "revision": // with another bundle
		x.w.Revision++
		x.w.Revoked = ""
	case "fresh":
		x.s = New(x.now, "pos", x.w.Revision, &x.s)
	case "delete":
		x.w.Policy = nil
	case "shift":
		d, _ := time.ParseDuration(f[2])
		x.shift[f[1]] = d
	case "site", "add": // site node...
		for _, n := range f[2:] {
			c := strings.HasPrefix(n, "c")
			x.fact(f[1], n).Canary = c
		}
	case "carry":
		x.s, err = x.s.Carry(f[1])
		return err
	default: // site/node word...
		words := 1
		for words < len(f) && strings.Contains(f[words], "/") {
			words++
		}
		for _, who := range f[:words] {
			site, node, _ := strings.Cut(who, "/")
			n := x.fact(site, node)
			for _, w := range f[words:] {
				switch w {
				case "silent":
					n.Silent = true
				case "heard":
					n.Silent = false
				case "unstaged":
					n.Staged = false
				case "staged":
					n.Staged = true
				case "quarantined":
					n.Quarantined = true
				case "rolled-back":
					n.Said = SaidRolledBack
				case "taken-back":
					n.Said = SaidTakenBack
				default:
					said, reason, _ := strings.Cut(w, ":")
					n.Said, n.Reason = Said(said), reason
				}
			}
		}
	}
	return nil
}

func (x *stage) show(out io.Writer, as []Action) {
	for _, a := range as {
		at := x.now.Format("15:04")
		switch {
		case a.Event != nil:
			fmt.Fprintf(out, "  %s %s: %s\n", at, a.Event.Name, a.Event.Text)
		case a.Back != nil:
			fmt.Fprintf(out, "  %s %s goes back: %s\n", at, a.Back.Site, strings.Join(a.Back.Nodes, " "))
		default:
			g := a.Grant
			x.grants++
			fmt.Fprintf(out, "  %s %s %d:", at, g.Site, x.grants)
			if g.Halted != "" {
				fmt.Fprintf(out, " halted: %s\n", g.Halted)
				continue
			}
			if g.First > 0 {
				fmt.Fprintf(out, " first %d;", g.First)
			}
			for _, s := range g.Starts {
				fmt.Fprintf(out, " %s@%s(%d)", s.Node, grant.Time(s.After).Format("15:04"), s.Batch)
			}
			fmt.Fprintf(out, " at most %d, until %s\n", g.MaxUnavailable, grant.Time(g.Expires).Format("2 15:04"))
		}
	}
}

// What counts against the budget, and how much it lets by (rules F1 and F2).
func TestBudget(t *testing.T) {
	for r, failed := range map[Result]bool{Installed: false, TakenBack: false, "": false, InstallFailed: true, VerifyFailed: true, RolledBack: true, Lost: true} {
		if r.Failed() != failed {
			t.Errorf("%q: %v", r, r.Failed())
		}
	}
	percent := func(n, samples int) policy.Budget {
		return policy.Budget{Max: policy.Size{Percent: n}, MinSamples: samples}
	}
	for _, x := range []struct {
		b       policy.Budget
		settled int
		allowed int
		says    bool
	}{
		{policy.Budget{}, 19, 1, false}, // 2 %, from 20 nodes on
		{policy.Budget{}, 20, 1, true},  // 0.4: at least 1
		{policy.Budget{}, 99, 1, true},  // 1.98: down
		{policy.Budget{}, 100, 2, true},
		{percent(10, 5), 4, 1, false},
		{percent(10, 5), 29, 2, true},
		{policy.Budget{Max: policy.Size{Count: 3}}, 1, 3, true}, // a number needs no samples
	} {
		if n, ok := Allowed(x.b, x.settled); n != x.allowed || ok != x.says {
			t.Errorf("%+v of %d: %d %v", x.b, x.settled, n, ok)
		}
	}
}
