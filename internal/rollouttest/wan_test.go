package rollouttest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/status"
)

// The site holds its grant and the WAN is cut before anybody has started. The site goes through its nodes by itself, one at
// a time, and stops by itself when its own budget is used up; with a larger budget more nodes start. When the WAN is back
// every receipt comes, with the time at which it happened and the time at which it came, and what was known in between is
// not changed by it.
func TestSiteWithoutWAN(t *testing.T) {
	for _, x := range []struct {
		name    string
		budget  int
		started int // nodes, all of them ill
	}{
		{"stops at its budget", 1, 2},
		{"control: a larger budget", 100, 4},
	} {
		t.Run(x.name, func(t *testing.T) { withoutWAN(newSite(t), x.budget, x.started) })
	}
}

func withoutWAN(s *site, budget, started int) {
	s.meshctl("site", "create", store, "--timezone", "America/New_York")
	s.release("1")
	s.release("2")
	s.nodes(4)
	s.apply(s.text("1", always, together))
	s.settled("version 1 is everywhere", "1", "1", "1", "1")
	s.receipts(1, 1, 1, 1)
	var all []string
	for _, n := range s.shop.Nodes {
		all = append(all, n.Name)
	}
	s.clinic.sick("2", all...)

	window, opens := always, time.Time{}
	if os.Getenv("PATCHMESH_LONG") == "1" {
		window, opens = nextMinute()
	}
	s.apply(s.text("2", window, fmt.Sprintf("batchBy: Site, batchSize: 1, batchDelayMinutes: 0, maxUnavailablePerSite: 1, failureBudget: {max: 100, maxPerSite: %d}", budget)))
	s.await("every node holds the bundle and the grant", func() (bool, string) {
		var without []string
		for _, n := range s.shop.Nodes {
			st, err := n.Self(s.ctx)
			if err != nil || st.Desired == nil || st.Desired.Version != "2" || st.Phase != status.Staged && st.Phase != status.Scheduled || starts(n.State) != len(all) {
				without = append(without, n.Name)
			}
		}
		return len(without) == 0, "not " + strings.Join(without, " ")
	})
	s.seeder.Kill()
	cut := time.Now()
	if nodes, _ := s.clinic.log("2"); len(nodes) > 0 {
		s.Fatalf("%v started before the WAN was cut", nodes)
	}

	s.await("the site has done what it may", func() (bool, string) {
		var went, stopped int
		var said []string
		for _, n := range s.shop.Nodes {
			st, err := n.Self(s.ctx)
			said = append(said, s.stands(n)+" "+st.Reason)
			switch {
			case err != nil:
			case s.stands(n) == "1!":
				went++
			case st.Reason == "Paused" && strings.Contains(st.Detail, "budget"):
				stopped++
			}
		}
		return went == started && went+stopped == len(all), strings.Join(said, ", ")
	})
	nodes, most := s.clinic.log("2")
	if len(nodes) != started || most != 1 {
		s.Errorf("%v started, %d at a time, want %d, 1 at a time", nodes, most, started)
	}
	if !opens.IsZero() && cut.After(opens) {
		s.Errorf("the WAN was cut at %s, after the window had opened at %s", cut, opens)
	}

	back := time.Now()
	s.must(s.seeder.Start(s.ctx))
	want := []int{1, 1, 1, 1}
	for i, n := range s.shop.Nodes {
		if slices.Contains(nodes, n.Name) {
			want[i] = 2
		}
	}
	s.receipts(want...)
	_, list := s.outcomes()
	for _, r := range list {
		if r.Body.Version != "2" {
			continue
		}
		if ended := r.Body.Receipt.Ended; ended.Before(cut.Add(-time.Second)) || ended.After(back) || r.Recorded.Before(back) {
			s.Errorf("%s: ended %s, recorded %s, the WAN was cut from %s to %s", r.Body.Node, ended, r.Recorded, cut, back)
		}
	}
	s.knows(nodes, back)
}

// starts is how many nodes a grant on a node's disk lets start.
func starts(state string) int {
	b, err := os.ReadFile(filepath.Join(state, "grants", name+".json"))
	if err != nil {
		return 0
	}
	var signed struct{ Doc []byte }
	var g struct {
		Version string
		Starts  []struct{}
	}
	if json.Unmarshal(b, &signed) != nil || json.Unmarshal(signed.Doc, &g) != nil || g.Version != "2" {
		return 0
	}
	return len(g.Starts)
}

// nextMinute is a window that opens at the next full minute that is not too near, in the zone of the policy.
func nextMinute() (window string, opens time.Time) {
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		panic(err)
	}
	opens = time.Now().In(zone).Add(75 * time.Second).Truncate(time.Minute)
	return opens.Format("15:04") + "-" + opens.Add(3*time.Hour).Format("15:04"), opens
}

// knows asks what is known now, and what was before the WAN came back.
func (s *site) knows(nodes []string, back time.Time) {
	s.Helper()
	c := s.client()
	for _, q := range []struct {
		known   time.Time
		outcome string
	}{{time.Time{}, "rolled_back"}, {back, "success"}} {
		page, err := c.Compliance(s.ctx, api.ComplianceQuery{AsOf: back, KnownAt: q.known, Site: store})
		s.must(err)
		for _, row := range page.Rows {
			want := "success"
			if slices.Contains(nodes, row.Node) {
				want = q.outcome
			}
			if row.Version != "1" || row.Outcome != want {
				s.Errorf("%s, as known at %s: version %s, %s, want version 1, %s", row.Node, q.known, row.Version, row.Outcome, want)
			}
			if row.Outcome == "rolled_back" && (row.Occurred == nil || row.Recorded == nil || !row.Occurred.Before(back) || row.Recorded.Before(back)) {
				s.Errorf("%s: occurred %v, recorded %v; the WAN was back at %s", row.Node, row.Occurred, row.Recorded, back)
			}
		}
	}
}
