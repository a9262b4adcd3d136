package install

import (
	"strings"
	"testing"
)

// mesh-install.yaml is read by root: what is taken is valid.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("root: /opt/x\nkeep: 3\nhealth: {timeoutSeconds: 5}\n"))
	f.Add([]byte("root: ../x\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("labels: {role: pos}\nfacts: {os: debian, release: \"12\", arch: amd64}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseConfig(b); err == nil {
			if err := c.Validate(); err != nil {
				t.Errorf("taken and not valid: %v", err)
			}
		}
	})
}

// What the executor answers is bounded, and says what became of the request.
func FuzzDecodeResult(f *testing.F) {
	f.Add([]byte(`{"kind":"` + KindResult + `","outcome":"success","phase":"Installed"}`))
	f.Add([]byte(`{"kind":"` + KindResult + `","outcome":"success","phase":"Installed","installed":null,"changes":[{}],"next":"2026-11-21T00:00:00Z"}`))
	f.Add([]byte("{}"))
	f.Add([]byte("null"))
	f.Add([]byte(strings.Repeat("[", 1000)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := DecodeResult(b); err == nil && (len(b) > MaxResultBytes || r.Kind != KindResult || r.Outcome == "" || r.Phase == "") {
			t.Errorf("%+v", r)
		}
	})
}

// /etc/os-release is the machine's: whatever is in it, nothing of it is more than one line.
func FuzzParseOSRelease(f *testing.F) {
	f.Add([]byte("ID=debian\nVERSION_ID=\"12\"\n"))
	f.Add([]byte("ID='a'\r\nVERSION_ID\n=\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m := ParseOSRelease(b); strings.Contains(m.OS+m.Release, "\n") {
			t.Errorf("%+v", m)
		}
	})
}
