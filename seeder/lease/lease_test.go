package lease

import (
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/bed/transcript"
)

var update = flag.Bool("update", false, "rewrite the transcripts; commit only what you understand")

// TestTranscripts replays testdata/*.txt: a line that begins with "> " is an event, what follows are the actions and
// the leases after it. "> 5s ask s1 a active" is: five seconds later, peer a of site s1 asks.
func TestTranscripts(t *testing.T) {
	transcript.Run(t, *update, func(t *testing.T) func(io.Writer, string) {
		now := time.Unix(1000, 0)
		tab := NewTable(Config{MaxActive: 3}, 0)
		return func(out io.Writer, said string) {
			f := strings.Fields(said)
			d, err := time.ParseDuration(f[0])
			if err != nil {
				t.Fatalf("%q: %v", said, err)
			}
			now = now.Add(d)
			for _, a := range tab.Step(now, parse(t, f[1:])) {
				fmt.Fprintln(out, "  "+format(a))
			}
			if len(f) > 2 {
				for _, l := range tab.Leases(f[2]) {
					fmt.Fprintf(out, "    %s holds %d%s%s for %s\n", l.Peer, l.ID, word(l.Split, " split"), word(l.Active, " active"), l.Expires.Sub(now))
				}
			}
		}
	})
}

func parse(t *testing.T, f []string) Event {
	t.Helper()
	opt := map[string]string{}
	for _, o := range f[min(3, len(f)):] {
		k, v, _ := strings.Cut(o, "=")
		opt[k] = v
	}
	has := func(k string) bool { _, ok := opt[k]; return ok }
	id, _ := strconv.ParseUint(opt["lease"], 10, 64)
	switch f[0] {
	case "ask":
		return Ask{Site: f[1], Peer: f[2], Nonce: 1, Active: has("active"), Unreachable: opt["unreachable"], Never: has("never")}
	case "renew":
		return Renew{Site: f[1], Peer: f[2], Nonce: 2, Lease: id, Active: has("active"), SeesHolder: has("sees")}
	case "release":
		return Release{Site: f[1], Peer: f[2], Lease: id}
	case "gone":
		return Gone{Site: f[1], Peer: f[2]}
	case "tick":
		return Tick{}
	}
	t.Fatalf("unknown event %q", f)
	return nil
}

func format(a Action) string {
	switch a := a.(type) {
	case Grant:
		return fmt.Sprintf("grant %s lease=%d ttl=%s renew=%s%s%s", a.Peer, a.Lease, a.TTL, a.Renew, word(a.Split, " split"), word(a.First, " first"))
	case Refuse:
		return fmt.Sprintf("refuse %s holder=%s retry=%s: %s", a.Peer, a.Holder, a.Retry.Round(100*time.Millisecond), a.Reason)
	case Revoke:
		return fmt.Sprintf("revoke %s lease=%d: %s", a.Peer, a.Lease, a.Reason)
	}
	return "?"
}

func word(b bool, s string) string {
	if b {
		return s
	}
	return ""
}
