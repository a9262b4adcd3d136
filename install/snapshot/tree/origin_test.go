package tree

import "testing"

func FuzzDecodeOrigin(f *testing.F) {
	f.Add(string(origin{ino: 1 << 40, ctime: stamp{-5, 999_999_999}, flags: flagImmutable}.encode()))
	f.Add(string(origin{left: true}.encode()))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if o, err := decodeOrigin(s); err == nil && string(o.encode()) != s {
			t.Errorf("%q became %+v", s, o)
		}
	})
}
