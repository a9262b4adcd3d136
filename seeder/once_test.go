package seeder

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// The same request with the same key is made once, also after a restart; for another one the key is no good.
func TestIdempotencyKeys(t *testing.T) {
	clk := newClock(time.Now())
	b := start(t, func(c *Config) { c.Now = clk.now })
	operator := b.access("alice", api.RoleOperator)
	post := func(body, key string) (int, string, string) {
		w := b.as(b.token, "POST", api.PathSites, body, api.HeaderIdempotency, key)
		return w.Code, w.Body.String(), w.Header().Get("Idempotency-Replayed")
	}
	code, first, replayed := post(`{"name": "s1"}`, "k1")
	if code != 200 || replayed != "" {
		t.Fatalf("%d %s", code, first)
	}
	b.stop()
	b.run()
	if code, again, replayed := post(`{"name": "s1"}`, "k1"); code != 200 || again != first || replayed != "true" {
		t.Errorf("again: %d %s", code, again)
	}
	if code, text, _ := post(`{"name": "s1"}`, "k2"); code != http.StatusConflict || !strings.Contains(text, "E1201") {
		t.Errorf("control, another key: %d %s", code, text)
	}
	if code, text, replayed := post(`{"name": "s1"}`, "k2"); code != http.StatusConflict || !strings.Contains(text, "E1201") || replayed != "true" {
		t.Errorf("a refusal again: %d %s", code, text)
	}
	if code, text, _ := post(`{"name": "s2"}`, "k1"); code != http.StatusConflict || !strings.Contains(text, "E1207") {
		t.Errorf("same key, other body: %d %s", code, text)
	}
	if w := b.as(operator, "PUT", "/api/v1/sites/s1/timezone", `{"timezone": "UTC"}`, api.HeaderIdempotency, "k1"); w.Code != 200 {
		t.Errorf("a key is its caller's own: %d %s", w.Code, w.Body)
	}
	for _, key := range []string{strings.Repeat("k", maxKey+1), "a b", "é"} {
		if code, text, _ := post(`{"name": "s3"}`, key); code != http.StatusBadRequest {
			t.Errorf("key %q: %d %s", key, code, text)
		}
	}
	if code, text, _ := post(`{"name": "`+strings.Repeat("x", api.MaxBody)+`"}`, "k4"); code != http.StatusBadRequest {
		t.Errorf("a body that is too large: %d %s", code, text)
	}
	// An answer with a secret is not kept.
	w := b.as(b.token, "POST", api.PathAccess, `{"name": "once", "role": "viewer"}`, api.HeaderIdempotency, "k5")
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := b.as(b.token, "POST", api.PathAccess, `{"name": "once", "role": "viewer"}`, api.HeaderIdempotency, "k5"); w.Code != http.StatusConflict || strings.Contains(w.Body.String(), tokenPrefix) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	// After a day a key is forgotten.
	clk.set(clk.now().Add(keepAnswers + time.Minute))
	if code, text, replayed := post(`{"name": "s1"}`, "k1"); code != http.StatusConflict || replayed != "" {
		t.Errorf("a day later: %d %s", code, text)
	}
}

// A key whose request is still being served is not served beside it.
func TestKeyInUse(t *testing.T) {
	b := start(t, nil)
	if !b.once.claim([2]string{"admin", "k"}) {
		t.Fatal("not claimed")
	}
	w := b.as(b.token, "POST", api.PathSites, `{"name": "s1"}`, api.HeaderIdempotency, "k")
	if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "still being served") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// What was not changed is not sent again, and what was changed by another is not written over.
func TestEntityTags(t *testing.T) {
	b := start(t, nil)
	b.site("s1")
	const wan = "/api/v1/sites/s1/wan"
	w := b.as(b.token, "GET", wan, "")
	tag := w.Header().Get("Etag")
	if w.Code != 200 || len(tag) != 34 {
		t.Fatalf("%d %q", w.Code, tag)
	}
	for match, want := range map[string]int{tag: 304, "W/" + tag: 304, `"x", ` + tag: 304, "*": 304, `"x"`: 200} {
		if w := b.as(b.token, "GET", wan, "", "If-None-Match", match); w.Code != want || want == 304 && w.Body.Len() > 0 {
			t.Errorf("If-None-Match %s: %d", match, w.Code)
		}
	}
	put := func(rate, match string) int {
		return b.as(b.token, "PUT", wan, `{"cap": "`+rate+`", "perDay": "0"}`, "If-Match", match).Code
	}
	if c := put("6Mbit", `"x"`); c != http.StatusPreconditionFailed {
		t.Errorf("another tag: %d", c)
	}
	if c := put("6Mbit", tag); c != 200 {
		t.Errorf("the tag that was read: %d", c)
	}
	if c := put("7Mbit", tag); c != http.StatusPreconditionFailed {
		t.Errorf("written over: %d", c)
	}
	if c := put("7Mbit", ""); c != 200 {
		t.Errorf("control, without a condition: %d", c)
	}
	const zone = "/api/v1/sites/s1/timezone"
	tag = b.as(b.token, "GET", zone, "").Header().Get("Etag")
	for i, want := range []int{200, http.StatusPreconditionFailed} {
		if w := b.as(b.token, "PUT", zone, `{"timezone": "America/Denver"}`, "If-Match", tag); w.Code != want {
			t.Errorf("zone, time %d: %d %s", i, w.Code, w.Body)
		}
	}
}

func TestPagesOfSites(t *testing.T) {
	b := start(t, nil)
	for _, s := range []string{"a", "b", "c"} {
		b.site(s)
	}
	w := b.as(b.token, "GET", api.PathSites+"?limit=2", "")
	if link := w.Header().Get("Link"); w.Code != 200 || link != `</api/v1/sites?after=b&limit=2>; rel="next"` || strings.Contains(w.Body.String(), `"c"`) {
		t.Errorf("%d %q %s", w.Code, link, w.Body)
	}
	w = b.as(b.token, "GET", api.PathSites+"?limit=2&after=b", "")
	if w.Header().Get("Link") != "" || !strings.Contains(w.Body.String(), `"name":"c"`) || strings.Contains(w.Body.String(), `"b"`) {
		t.Errorf("%s", w.Body)
	}
}
