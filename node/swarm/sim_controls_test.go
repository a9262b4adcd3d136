package swarm

import (
	"strings"
	"testing"
	"time"
)

// Positive controls: with a rule switched off the simulation sees what the rule is for. Each must be violated in one
// of the runs.
func TestSimControls(t *testing.T) {
	const never = 100 * time.Hour
	find := func(name string) scenario {
		for _, c := range scenarios() {
			if c.name == name {
				return c
			}
		}
		t.Fatalf("no scenario %q", name)
		return scenario{}
	}
	for _, c := range []struct {
		rule, scenario, want string
		off                  func(*scenario)
	}{
		{"the write-through window", "uplink killed on a slow LAN", "crossed the WAN twice",
			func(c *scenario) { c.l.cfg.Window = 16 << 20 }},
		{"the wait for neighbours", "all boot with pieces", "crossed the WAN twice",
			func(c *scenario) { c.l.cfg.Settle, c.l.cfg.Stagger = time.Nanosecond, time.Nanosecond }},
		{"listening to what neighbours hold", "a node joins late", "which node",
			func(c *scenario) {
				c.l.kinder = func(_ *simNode, ev Event) []Event {
					if h, ok := ev.(PeerHave); ok {
						h.Bitmap = make([]byte, len(h.Bitmap))
						ev = h
					} else if _, ok := ev.(PeerHaveAdd); ok {
						return nil
					}
					return []Event{ev}
				}
			}},
		{"the end of a lease", "uplink frozen for 20 s", "without a lease",
			func(c *scenario) {
				// The seeder forgets the lease; the holder takes its grant for endless.
				c.l.kinder = func(n *simNode, ev Event) []Event {
					switch e := ev.(type) {
					case LeaseGranted:
						e.TTL, e.Renew = never, never
						n.sw.uplink.sent = n.s.now
						ev = e
					case LeaseRefused:
						return nil
					}
					return []Event{ev}
				}
				c.fs = []fault{func(s *sim) {
					s.when(0.3, func() { s.hitUplink(func(n *simNode) { s.seeder.forget(n); s.over(10*time.Second, func() {}) }) })
				}}
			}},
		{"verification", "wrong bytes", "not genuine",
			func(c *scenario) { c.fs = append(c.fs, func(s *sim) { s.blind = true }) }},
		{"the deadline of a chunk", "stalls", "not complete",
			func(c *scenario) { c.l.cfg.Deadline, c.l.cfg.Barren = never, never }},
		{"the end of belief in an uplink", "an uplink fetches nothing", "not complete",
			func(c *scenario) { c.l.cfg.Barren = never }},
		{"bans", "wrong bytes", "wrong chunks",
			func(c *scenario) { c.l.cfg.Ban = time.Nanosecond }},
	} {
		t.Run(c.rule, func(t *testing.T) {
			for i := range max(simSeeds, 12) {
				sc := find(c.scenario)
				c.off(&sc)
				for _, b := range play(t, sc, simFirst+uint64(i)).bad {
					if strings.Contains(b, c.want) {
						return
					}
				}
			}
			t.Errorf("with the rule off nothing was %q: the simulation proves nothing about it", c.want)
		})
	}
}
