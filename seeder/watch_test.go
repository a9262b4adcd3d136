package seeder

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/status"
)

// A reader that takes what comes has every event once, in order, or is told that some are missing; never less than that.
func TestEventsAreWholeOrSaidNotToBe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clk := newClock(time.Unix(1_800_000_000, 0))
		e := newEvents(clk.now)
		after, told, seen := e.newest(), 0, 0
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			n := rapid.SampledFrom([]int{0, 1, 3, 200, keepEvents / 2, keepEvents + 5}).Draw(t, "published")
			for range n {
				told++
				e.publish(api.Event{Subject: fmt.Sprint(told)})
			}
			if rapid.Bool().Draw(t, "time passes") {
				clk.set(clk.now().Add(time.Duration(rapid.IntRange(-5, 5).Draw(t, "seconds")) * time.Second))
			}
			list, whole, _ := e.since(after, rapid.IntRange(1, 500).Draw(t, "limit"))
			if !whole {
				after, seen = e.newest(), told
				continue
			}
			for _, x := range list {
				if x.ID <= after {
					t.Fatalf("number %d after %d", x.ID, after)
				}
				if seen++; x.Subject != fmt.Sprint(seen) {
					t.Fatalf("event %s where %d is due", x.Subject, seen)
				}
				after = x.ID
			}
		}
		if len(e.ring) > keepEvents {
			t.Fatalf("%d events kept", len(e.ring))
		}
	})
}

func TestCoalesce(t *testing.T) {
	x := func(id int64, kind, subject, severity string) api.Event {
		return api.Event{ID: id, Kind: kind, Subject: subject, Severity: severity}
	}
	got := coalesce([]api.Event{x(1, "node", "s/a", "info"), x(2, "node", "s/b", "info"), x(3, "node", "s/a", "warning"), x(4, "site", "s", "info"), x(5, "site", "s", "info"), x(6, "node", "s/a", "info")})
	want := []api.Event{x(2, "node", "s/b", "info"), x(3, "node", "s/a", "warning"), x(4, "site", "s", "info"), x(5, "site", "s", "info"), x(6, "node", "s/a", "info")}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestSilence(t *testing.T) {
	var got []string
	for _, e := range silence(map[string]bool{"a": true, "b": true, "c": false, "gone": true}, map[string]bool{"a": true, "b": false, "c": true, "new": true, "fresh": false}) {
		got = append(got, e.Name+" "+e.Site)
	}
	if d := cmp.Diff([]string{"returned b", "silent c", "silent new"}, got); d != "" {
		t.Error(d)
	}
}

func TestNodeEvents(t *testing.T) {
	n := func(p status.Phase, q string) status.Node {
		return status.Node{Site: "s", Node: "n", Phase: p, Reason: "because", Quarantine: q}
	}
	for _, c := range []struct {
		was, is  status.Node
		severity string
	}{
		{n(status.Staged, ""), n(status.Staged, ""), ""},
		{n(status.Staged, ""), n(status.Installing, ""), "info"},
		{n(status.Staged, ""), n(status.RolledBack, ""), "warning"},
		{n(status.Staged, ""), n(status.Quarantined, ""), "critical"},
		{n(status.Staged, ""), n(status.Staged, "chunk 214 changed"), "critical"},
		{n(status.Staged, ""), n("Dancing", ""), ""},
		{status.Node{}, n(status.Pending, ""), "info"},
	} {
		e, ok := nodeEvent(c.was, c.is)
		if ok != (c.severity != "") || e.Severity != c.severity {
			t.Errorf("%s to %s: %v %+v", c.was.Phase, c.is.Phase, ok, e)
		}
	}
}

// listen opens a stream against a real server and returns its lines.
func (b *bed) listen(last string) (lines func() []string, end func()) {
	b.t.Helper()
	if _, err := b.admin.Sites(b.t.Context()); err != nil { // an answer: the seeder runs
		b.t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = api.NewServer(trusted(b.routes()), b.log)
	srv.Config.WriteTimeout = 20 * time.Millisecond // as short as a test wants it: a stream must not end by it
	srv.Start()
	ctx, cancel := context.WithCancel(b.t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", srv.URL+api.PathWatch, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(r) //nolint:bodyclose // the stream ends with its context
	if err != nil {
		b.t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("X-Accel-Buffering") != "no" {
		b.t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	in := bufio.NewScanner(resp.Body)
	lines = func() (out []string) { // of one message
		for in.Scan() && in.Text() != "" {
			out = append(out, in.Text())
		}
		return out
	}
	return lines, func() { cancel(); resp.Body.Close(); srv.Close() }
}

// A stream begins with a snapshot, tells what happens, outlives the server's time for an answer, and is resumed.
func TestWatch(t *testing.T) {
	b := start(t, nil)
	lines, end := b.listen("")
	if l := lines(); len(l) != 3 || l[1] != "event: snapshot" {
		t.Fatalf("%q", l)
	}
	b.site("s1")
	l := lines()
	if len(l) != 3 || l[1] != "event: site" || !strings.Contains(l[2], `"name":"created"`) || !strings.Contains(l[2], `"subject":"s1"`) {
		t.Fatalf("%q", l)
	}
	first := strings.TrimPrefix(l[0], "id: ")
	b.site("s2") // at least watchPause later, long after the server's write timeout
	if l := lines(); len(l) != 3 || !strings.Contains(l[2], `"subject":"s2"`) {
		t.Fatalf("%q", l)
	}
	end()
	lines, end = b.listen(first)
	if l := lines(); len(l) != 3 || l[1] != "event: resume" || l[0] != "id: "+first {
		t.Errorf("%q", l)
	}
	if l := lines(); len(l) != 3 || !strings.Contains(l[2], `"subject":"s2"`) {
		t.Errorf("%q", l)
	}
	end()
	for range keepEvents + 1 {
		b.events.publish(api.Event{Kind: "site", Name: "x"})
	}
	for _, last := range []string{first, "1", "9000000000000000000"} {
		lines, end = b.listen(last)
		if l := lines(); len(l) != 3 || l[1] != "event: resync" {
			t.Errorf("after %s: %q", last, l)
		}
		end()
	}
	for range maxWatchers {
		b.watchers <- struct{}{}
	}
	if w := b.as(b.token, "GET", api.PathWatch, ""); w.Code != http.StatusTooManyRequests {
		t.Errorf("one too many: %d", w.Code)
	}
	for range maxWatchers {
		<-b.watchers
	}
	if w := b.as(b.token, "GET", api.PathWatch, "", "Last-Event-ID", "x"); w.Code != http.StatusBadRequest {
		t.Errorf("%d", w.Code)
	}
}

// A stream ends with the seeder: nobody waits for its reader.
func TestWatchEndsWithTheSeeder(t *testing.T) {
	b := start(t, nil)
	lines, end := b.listen("")
	defer end()
	lines()
	b.stop()
	if l := lines(); len(l) != 0 {
		t.Errorf("%q", l)
	}
}

// The client takes events one by one, goes on where it was, and hears of what it missed.
func TestClientWatches(t *testing.T) {
	b := start(t, nil)
	enough := errors.New("enough")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	first := b.events.newest()
	b.site("s1")
	b.site("s2")
	var got []string
	take := func(n int) func(api.Event) error {
		return func(e api.Event) error {
			if got = append(got, e.Name+" "+e.Subject); len(got) == n {
				return enough
			}
			return nil
		}
	}
	last, err := b.admin.Watch(ctx, first, take(2), func() { t.Error("nothing was missed") })
	if d := cmp.Diff([]string{"created s1", "created s2"}, got); d != "" || !errors.Is(err, enough) || last <= first {
		t.Fatalf("%s, %d, %v", d, last, err)
	}
	b.site("s3")
	if _, err = b.admin.Watch(ctx, last, take(3), func() { t.Error("nothing was missed") }); !errors.Is(err, enough) || got[2] != "created s3" {
		t.Errorf("%q, %v", got, err)
	}
	missed := 0
	short, end := context.WithCancel(ctx)
	_, err = b.admin.Watch(short, 1, take(99), func() { missed++; end() })
	if missed != 1 || short.Err() == nil {
		t.Errorf("missed %d, %v", missed, err)
	}
}

// A stream ends when its token does.
func TestRevokedTokenEndsItsStream(t *testing.T) {
	b := start(t, nil)
	token := b.access("v", api.RoleViewer)
	c := b.client(api.Access{URLs: b.Access().URLs[1:], Pin: b.PeerID(), Token: token})
	defer c.CloseIdle()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	first := b.events.newest()
	b.site("s1")
	_, err := c.Watch(ctx, first, func(api.Event) error {
		if w := b.as(b.token, "DELETE", api.PathAccess+"/v", ""); w.Code != http.StatusNoContent {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		return nil
	}, func() {})
	if ctx.Err() != nil || err == nil {
		t.Errorf("%v", err)
	}
}
