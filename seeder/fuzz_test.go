package seeder

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// What is read as a place is what String writes.
func FuzzParsePlace(f *testing.F) {
	f.Add("")
	f.Add(place{"s1", "pos-01", "app"}.String())
	f.Add("WyJhIiwiYiJd")
	f.Add(strings.Repeat("A", maxPlace+1))
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := parsePlace(s); err == nil && s != "" && p.String() != s {
			t.Errorf("%q is %+v, which is written %q", s, p, p)
		}
	})
}

// A page is never larger than it may be, and begins at a number.
func FuzzPage(f *testing.F) {
	for _, q := range []string{"", "after=1&limit=10", "limit=1001", "limit=0", "after=-1", "after=99999999999999999999", "limit=1&limit=2"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL = &url.URL{Path: "/", RawQuery: query}
		if after, limit, err := pageIn(r, 100, 1000); err == nil && (after < 0 || limit < 1 || limit > 1000) {
			t.Errorf("after %d, limit %d", after, limit)
		}
	})
}

// A change that names what it was made to goes through only with the very tag that a reading would have had.
func FuzzIfMatch(f *testing.F) {
	for _, list := range []string{"", "*", `"a", "b"`, `W/"a"`, ",,", `"` + strings.Repeat("a", 1000) + `"`} {
		f.Add(list)
	}
	now := map[string]int{"a": 1}
	tag := etag(replyOf(now, nil).body)
	f.Add(tag)
	f.Add(`"x", ` + tag)
	f.Fuzz(func(t *testing.T, list string) {
		r := httptest.NewRequest("PUT", "/", nil)
		r.Header["If-Match"] = []string{list}
		if err := unchanged(r, "it", now); err == nil && list != "" && !strings.Contains(list, tag) && !strings.Contains(list, "*") {
			t.Errorf("%q was taken for %s", list, tag)
		}
	})
}

// Only who knows the secret makes the seeder look.
func FuzzHook(f *testing.F) {
	sign := func(secret, body string) string {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(body))
		return "sha256=" + hex.EncodeToString(mac.Sum(nil))
	}
	f.Add(sign(hookSecret, "{}"), "{}")
	f.Add(sign("another", "{}"), "{}")
	f.Add("sha256=", "{}")
	f.Add("", "")
	f.Add("sha256=zz", "x")
	f.Fuzz(func(t *testing.T, signature, body string) {
		s := &Seeder{follower: &follower{cfg: GitConfig{Repository: "x", WebhookSecret: []byte(hookSecret)}, poked: make(chan struct{}, 1)}}
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Header["X-Hub-Signature-256"] = []string{signature}
		_, err := s.gitHook(httptest.NewRecorder(), r)
		if looks := len(s.follower.poked) == 1; looks != (err == nil) || looks && !strings.EqualFold(strings.TrimPrefix(signature, "sha256="), strings.TrimPrefix(sign(hookSecret, body), "sha256=")) {
			t.Errorf("signature %q of %q: looks %v, %v", signature, body, looks, err)
		}
	})
}

// A backup is whole or it is refused; a small file does not fill the memory.
func FuzzBackup(f *testing.F) {
	dir := f.TempDir()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{"", "{}\n", `{"schema":"` + backupSchema + `","created":"2026-11-21T00:00:00Z","files":{}}` + "\n" + `{"sha256":"","rows":0,"version":1}` + "\n", strings.Repeat("x", 1<<10)} {
		f.Add(z.EncodeAll([]byte(text), nil))
	}
	f.Add(z.EncodeAll(bytes.Repeat([]byte{'a'}, maxLine+1), nil)) // a few KiB
	f.Add([]byte("not zstd"))
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(dir, "backup")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		head, end, err := verifyBackup(name)
		if err == nil && (end.SHA256 == "" || head.Schema != backupSchema || len(head.Files) < len(secrets)) {
			t.Errorf("%+v, %+v", head, end)
		}
	})
}
