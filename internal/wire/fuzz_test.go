package wire_test

import (
	"errors"
	"io"
	"testing"

	"github.com/patchmesh/patchmesh/internal/wire"
)

// Any bytes: no panic, no more memory than the limits allow, and what is accepted is written and read again alike.
func FuzzReader(f *testing.F) {
	for _, s := range samples() {
		b, err := wire.Append(nil, s.m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(header(s.m.Type(), 1<<32-1))
	}
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{3})
	f.Fuzz(func(t *testing.T, b []byte) {
		var ms []wire.Message
		got := allocated(func() {
			r := reader(b)
			for {
				m, err := r.Next()
				if err != nil {
					if errors.Is(err, io.EOF) && len(ms) == 0 && len(b) > 0 {
						t.Error("end of stream before anything was read")
					}
					return
				}
				if d, ok := m.(*wire.Data); ok {
					d.Payload = append([]byte(nil), d.Payload...)
				}
				ms = append(ms, m)
			}
		})
		// 300 KiB for one claim; a frame of five bytes and an empty object may become a statement of half a KiB.
		if most := int64(1<<20 + 200*len(b)); got > most {
			t.Errorf("%d bytes made %d", len(b), got)
		}
		for _, m := range ms {
			again, err := wire.Append(nil, m)
			if limit, _ := wire.Limit(m.Type()); err != nil && len(b) > limit/6 {
				continue // JSON may be longer when said again: < becomes six bytes
			} else if err != nil {
				t.Fatalf("accepted but cannot be said: %+v: %v", m, err)
			}
			back, err := reader(again).Next()
			if err != nil {
				t.Fatalf("accepted but not when said again: %+v: %v", m, err)
			}
			if d := same(m, back); d != "" {
				t.Fatal(d)
			}
		}
	})
}
