package gitops

import (
	"bytes"
	"testing"
)

// An answer of cat-file comes apart into the objects that were asked for, or is refused.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("3\nabc\n0\n\n"), 2)
	f.Add([]byte("3\nabc\n"), 2)
	f.Add([]byte("-1\nabc\n"), 1)
	f.Add([]byte("99999999999999999999\nabc\n"), 1)
	f.Add([]byte("1\nabc\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		n = n & 7
		out, err := split(b, n)
		if err != nil {
			return
		}
		total := 0
		for _, o := range out {
			total += len(o)
			if !bytes.Contains(b, o) {
				t.Errorf("%q is not in %q", o, b)
			}
		}
		if len(out) != n || total > len(b) {
			t.Errorf("%d objects of %d bytes of %q", len(out), total, b)
		}
	})
}
