package node

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// unreachedAfter is how long a site may be without an uplink before a node raises an alarm: an election takes seconds, a
// seeder's restart less than a minute.
const unreachedAfter = 2 * time.Minute

// watchSeeder raises an alarm while no node of the site, as far as this one knows, reaches the seeder. The site goes on
// without it: it shares, installs and keeps its reports.
func (n *Node) watchSeeder(now time.Time) {
	if n.sw.Uplink() != "" || n.seederS != nil {
		n.unreached = time.Time{}
		n.clearAlarm(problem.SeederUnreachable)
		return
	}
	if n.unreached.IsZero() {
		n.unreached = now
	}
	if out := now.Sub(n.unreached); out >= unreachedAfter {
		n.alarm(problem.SeederUnreachable, "no node of the site has reached the seeder since %s", n.cfg.now().Add(-out).UTC().Format(time.RFC3339))
	}
}
