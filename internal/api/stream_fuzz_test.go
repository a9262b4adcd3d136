package api

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"
)

type body []byte

func (b body) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(b))}, nil
}

// A stream of events from a server that may say anything: it ends, with what was seen last and why.
func FuzzWatch(f *testing.F) {
	f.Add([]byte("event: snapshot\nid: 4\ndata: {}\n\nid: 5\nevent: node\ndata: {\"kind\":\"node\",\"name\":\"Staged\"}\n\n: heartbeat\n\n"))
	f.Add([]byte("id: x\n"))
	f.Add([]byte("event: resync\n\nevent: rollout\ndata: [\n\n"))
	f.Add(bytes.Repeat([]byte("a"), maxEventLine+1))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &Client{caller{endpoints: []*endpoint{{base: "http://seeder", http: &http.Client{Transport: body(b)}}}, unreachable: "E", next: "x"}}
		events := 0
		_, err := c.Watch(t.Context(), 0, func(Event) error { events++; return nil }, func() {})
		if err == nil {
			t.Error("the stream ended, and that is not said")
		}
		if events > bytes.Count(b, []byte("event")) {
			t.Errorf("%d events of %q", events, b)
		}
		stop := errors.New("enough")
		if _, err := c.Watch(t.Context(), 0, func(Event) error { return stop }, func() {}); events > 0 && !errors.Is(err, stop) {
			t.Errorf("who has enough hears %v", err)
		}
	})
}

// An administrator's file is one document of known fields.
func FuzzParseAccess(f *testing.F) {
	f.Add([]byte(`{"urls":["unix:///x"],"pin":"p","token":"t"}`))
	f.Add([]byte(`{} {}`))
	f.Add([]byte(`{"other":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseAccess(b); err == nil {
			if _, err := parseAccess(append(bytes.Clone(b), "x"...)); err == nil {
				t.Error("what follows the document is passed over")
			}
		}
	})
}
