package lease

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the transcripts; commit only what you understand")

// TestTranscripts replays testdata/*.txt: a line that begins with "> " is an event, what follows are the actions and
// the leases after it. "> 5s ask s1 a active" is: five seconds later, peer a of site s1 asks.
func TestTranscripts(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, want)
			if *update {
				if err := os.WriteFile(name, got, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(got, want) {
				t.Errorf("the transcript differs; got:\n%s", got)
			}
		})
	}
}

func replay(t *testing.T, script []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	tab := NewTable(Config{MaxActive: 3}, 0)
	sc := bufio.NewScanner(bytes.NewReader(script))
	for sc.Scan() {
		line := sc.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			fmt.Fprintln(&out, line)
			continue
		}
		cmd, ok := strings.CutPrefix(line, "> ")
		if !ok {
			continue // output of the run before
		}
		fmt.Fprintln(&out, line)
		f := strings.Fields(cmd)
		d, err := time.ParseDuration(f[0])
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		now = now.Add(d)
		ev := parse(t, f[1:])
		for _, a := range tab.Step(now, ev) {
			fmt.Fprintln(&out, "  "+format(a))
		}
		if len(f) > 2 {
			for _, l := range tab.Leases(f[2]) {
				fmt.Fprintf(&out, "    %s holds %d%s%s for %s\n", l.Peer, l.ID, word(l.Split, " split"), word(l.Active, " active"), l.Expires.Sub(now))
			}
		}
	}
	return out.Bytes()
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
