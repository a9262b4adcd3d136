package node

import "testing"

// meshd.yaml: what is taken can be checked, and what is taken twice is the same.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("state: /x\nlistenPeer: 127.0.0.1:1\nmdns: false\nleaveTimeout: 30s\n"))
	f.Add([]byte("facts: {os: debian, release: \"12\", arch: amd64}\nnetworks: [10.0.0.0/8]\nstatic: [\"10.0.0.1:1\"]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("unknown: 1\n"))
	f.Add(make([]byte, MaxConfigBytes+1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseConfig(b); err == nil {
			if len(b) > MaxConfigBytes {
				t.Errorf("%d bytes were read", len(b))
			}
			_ = c.Validate()
		}
	})
}

// state.json as this program or another one left it: every life in it can be gone on with.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("null"))
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"version":1,"lives":{"app":{"phase":"Staged","reason":"Complete","tries":-1},"os":null},"told":{"app":null},"errands":{"app":null},"backs":{"p":null}}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		if len(b) == 0 {
			t.Fatal("an empty file is taken for a fresh node")
		}
		for name, l := range r.Lives {
			if l == nil {
				t.Fatalf("life %q is nil", name)
			}
			l.resume()
			_ = l.urgency()
			if l.Target != nil {
				_ = l.beside(name)
			}
		}
		if r.Version != recordVersion || r.Policies == nil || r.Told == nil || r.Transfer == nil {
			t.Errorf("%+v", r)
		}
	})
}
