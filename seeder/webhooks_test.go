package seeder

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

func TestAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 100).Draw(t, "tries")
		if d := again(n); d < time.Second || d > 2*time.Hour || again(n+1) < d {
			t.Fatalf("after %d tries %s", n, d)
		}
	})
	total := time.Duration(0)
	for n := 1; n < letterTries; n++ {
		total += again(n)
	}
	if total < 8*time.Hour || total > 24*time.Hour {
		t.Errorf("a letter is given up after %s", total)
	}
}

func TestHookURLs(t *testing.T) {
	for u, good := range map[string]bool{
		"https://hooks.example.com/x?y=1": true, "http://127.0.0.1:9093/api/v2/alerts": true, "http://[::1]:1/": true, "https://10.0.0.1/": true,
		"http://hooks.example.com/": false, "http://localhost:1/": false, "http://169.254.169.254/": false, "ftp://h/": false, "https://u:p@h/": false, "file:///etc/passwd": false,
		"https:///x": false, "": false, "https://h/#f": false, "http://127.0.0.1.example.com/": false, "https://" + strings.Repeat("h", 1100): false,
	} {
		if err := checkHookURL(u); (err == nil) != good {
			t.Errorf("%q: %v", u, err)
		}
	}
}

// receiver is a real server that keeps what it was sent.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	answer func(n int) int
	got    []string // bodies that were answered with 200
	tries  int
	secret string
	bad    []string // signatures that did not hold
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{answer: func(int) int { return 200 }}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.tries++
		var at int64
		var sum string
		if _, err := fmt.Sscanf(strings.Replace(q.Header.Get(api.HeaderSignature), ",", " ", 1), "t=%d v1=%s", &at, &sum); err != nil {
			r.bad = append(r.bad, err.Error())
		}
		h := hmac.New(sha256.New, []byte(r.secret))
		fmt.Fprintf(h, "%d.%s", at, body)
		if hex.EncodeToString(h.Sum(nil)) != sum {
			r.bad = append(r.bad, q.Header.Get(api.HeaderSignature))
		}
		code := r.answer(r.tries)
		if code == 200 {
			r.got = append(r.got, string(body))
		}
		if code == 302 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(code)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) state() (got []string, tries int, bad []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.got...), r.tries, append([]string{}, r.bad...)
}

// office is the queue of webhooks on a database, without a seeder that runs: rounds are made by the test.
func office(t *testing.T, b *bed, clk interface{ now() time.Time }) *post {
	t.Helper()
	e := newEvents(clk.now)
	return newPost(b.db, b.log, clk.now, e)
}

func (b *bed) hook(name, url, rest string) api.WebhookInfo {
	b.t.Helper()
	w := b.as(b.token, "POST", api.PathWebhooks, `{"name": "`+name+`", "url": "`+url+`"`+rest+`}`)
	var h api.WebhookInfo
	if err := json.Unmarshal(w.Body.Bytes(), &h); err != nil || w.Code != 200 || h.Secret == "" {
		b.t.Fatalf("%d %s", w.Code, w.Body)
	}
	return h
}

// An event is signed and sent; a receiver that is ill gets it later, in order; what waits outlives a restart.
func TestWebhookDeliversInOrder(t *testing.T) {
	clk := newClock(time.Unix(1_800_000_000, 0))
	b := start(t, nil)
	r := newReceiver(t)
	r.secret = b.hook("alerts", r.URL, `, "events": ["site", "quarantine"]`).Secret
	p := office(t, b, clk)
	round := func() {
		t.Helper()
		if err := p.round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r.answer = func(n int) int { return map[bool]int{true: 500, false: 200}[n <= 2] }
	for i := range 3 {
		p.events.publish(api.Event{Kind: "site", Name: "silent", Subject: fmt.Sprint("s", i)})
	}
	p.events.publish(api.Event{Kind: "bundle", Name: "published"}) // nobody asked for these
	round()
	if got, tries, _ := r.state(); len(got) != 0 || tries != 1 {
		t.Fatalf("%d delivered, %d tries", len(got), tries)
	}
	round() // not due yet
	if _, tries, _ := r.state(); tries != 1 {
		t.Fatalf("tried %d times at once", tries)
	}
	clk.set(clk.now().Add(again(1)))
	round()
	// A new program on the same database goes on where the old one was.
	b.stop()
	b.run()
	p = office(t, b, clk)
	clk.set(clk.now().Add(again(2)))
	round()
	got, tries, bad := r.state()
	var subjects []string
	for _, body := range got {
		var e api.Event
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			t.Fatal(err)
		}
		subjects = append(subjects, e.Subject)
	}
	if d := cmp.Diff([]string{"s0", "s1", "s2"}, subjects); d != "" || tries != 5 || len(bad) > 0 {
		t.Errorf("%s %d tries, bad signatures %q", d, tries, bad)
	}
	hooks, err := b.db.Webhooks(t.Context())
	if err != nil || hooks[0].Delivered != 3 || hooks[0].Waiting != 0 || hooks[0].LastError != "" {
		t.Errorf("%+v, %v", hooks, err)
	}
	// Control: with another secret the signature does not hold.
	r.mu.Lock()
	r.secret = "another"
	r.mu.Unlock()
	p.events.publish(api.Event{Kind: "site"})
	round()
	if _, _, bad := r.state(); len(bad) != 1 {
		t.Errorf("control: %q", bad)
	}
}

// What never arrives is given up, can be seen, and does not hold up what comes after it. No redirect is followed.
func TestDeadLetters(t *testing.T) {
	clk := newClock(time.Unix(1_800_000_000, 0))
	b := start(t, nil)
	r := newReceiver(t)
	r.secret = b.hook("alerts", r.URL, "").Secret
	p := office(t, b, clk)
	r.answer = func(n int) int { return map[bool]int{true: 302, false: 200}[n <= letterTries] }
	p.events.publish(api.Event{Kind: "site", Name: "silent", Subject: "s1"})
	p.events.publish(api.Event{Kind: "site", Name: "silent", Subject: "s2"})
	for range letterTries {
		if err := p.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		clk.set(clk.now().Add(2 * time.Hour))
	}
	got, tries, _ := r.state()
	if len(got) != 1 || !strings.Contains(got[0], `"s2"`) || tries != letterTries+1 {
		t.Errorf("%q after %d tries", got, tries)
	}
	w := b.as(b.token, "GET", "/api/v1/webhooks/alerts/dead", "")
	var dead []api.DeadLetter
	if err := json.Unmarshal(w.Body.Bytes(), &dead); err != nil || len(dead) != 1 || dead[0].Event.Subject != "s1" || dead[0].Tries != letterTries || !strings.Contains(dead[0].Error, "302") {
		t.Errorf("%s, %v", w.Body, err)
	}
	if w := b.as(b.token, "GET", api.PathWebhooks, ""); strings.Contains(w.Body.String(), r.secret) || !strings.Contains(w.Body.String(), `"dead":1`) {
		t.Errorf("%s", w.Body)
	}
	if w := b.as(b.token, "DELETE", "/api/v1/webhooks/alerts", ""); w.Code != 204 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := b.as(b.token, "DELETE", "/api/v1/webhooks/alerts", ""); w.Code != 404 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A queue has an end.
func TestLettersAreBounded(t *testing.T) {
	b := start(t, nil)
	b.hook("h", "https://192.0.2.1/", "")
	list := make([]fleet.Letter, fleet.MaxLetters+7)
	for i := range list {
		list[i] = fleet.Letter{Webhook: "h", Event: "{}", Due: time.Unix(4_000_000_000, 0)}
	}
	if n, err := b.db.PostLetters(t.Context(), list); err != nil || n != 7 {
		t.Errorf("%d dropped, %v", n, err)
	}
}

func TestBadWebhooks(t *testing.T) {
	b := start(t, nil)
	for _, body := range []string{`{"name": "A b", "url": "https://h/"}`, `{"name": "a", "url": "http://h/"}`, `{"name": "a", "url": "https://h/", "format": "xml"}`,
		`{"name": "a", "url": "https://h/", "events": ["weather"]}`, `{"name": "a", "url": "https://h/", "secret": "short"}`} {
		if w := b.as(b.token, "POST", api.PathWebhooks, body); w.Code != 400 {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	b.hook("a", "https://192.0.2.1/", "")
	if w := b.as(b.token, "POST", api.PathWebhooks, `{"name": "a", "url": "https://192.0.2.1/"}`); w.Code != 409 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Good news resolves the alert that the bad one raised: the labels are the same.
func TestAlertmanager(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	bad := alerts(api.Event{Kind: "site", Name: "silent", Severity: "warning", Subject: "s1", Site: "s1", Text: "nothing heard"}, now)
	good := alerts(api.Event{Kind: "site", Name: "returned", Severity: "info", Subject: "s1", Site: "s1"}, now)
	if d := cmp.Diff(bad[0].Labels, good[0].Labels); d != "" || bad[0].EndsAt != nil || good[0].EndsAt == nil {
		t.Errorf("%s", d)
	}
	for _, severity := range []string{"critical", "info"} { // by its budget, by a person
		paused := alerts(api.Event{Kind: "rollout", Name: "paused", Severity: severity, Subject: "p", Policy: "p"}, now)
		var over bool
		for _, a := range alerts(api.Event{Kind: "rollout", Name: "resumed", Severity: "info", Subject: "p", Policy: "p"}, now) {
			over = over || a.EndsAt != nil && cmp.Equal(a.Labels, paused[0].Labels)
		}
		if !over {
			t.Errorf("a pause of severity %s does not end", severity)
		}
	}
	if bad[0].Labels["alertname"] != "patchmesh site silent" || bad[0].Annotations["summary"] != "nothing heard" {
		t.Errorf("%+v", bad)
	}
}
