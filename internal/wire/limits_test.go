package wire_test

import (
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
)

// atLimit is a payload of exactly the limit that is valid.
func atLimit(t *testing.T, m wire.Message) []byte {
	limit, _ := wire.Limit(m.Type())
	b, err := wire.Append(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	b = b[wire.HeaderBytes:]
	switch {
	case b[0] == '{': // an unknown field fills it up
		pad := limit - len(b) - len(`,"zz":""`)
		return append(b[:len(b)-1], `,"zz":"`+strings.Repeat("z", pad)+`"}`...)
	case m.Type() == wire.TypeHave: // the largest bitmap is a little below the limit
		return append(append(b[:33:33], 1, 0, 0, 0), make([]byte, wire.MaxHaveChunks/8)...)
	default:
		return append(b, make([]byte, limit-len(b))...)
	}
}

func TestLimits(t *testing.T) {
	for _, s := range samples() {
		limit, _ := wire.Limit(s.m.Type())
		if _, err := reader(frame(s.m.Type(), atLimit(t, s.m))).Next(); err != nil {
			t.Errorf("%s at its limit: %v", s.name, err)
		}
		// Nothing behind the header is there to be read: the error must come from the header alone.
		_, err := reader(header(s.m.Type(), limit+1)).Next()
		if err == nil || !strings.Contains(err.Error(), "at most") {
			t.Errorf("%s over its limit: %v", s.name, err)
		}
	}
	for _, typ := range []wire.Type{0, 22, 255} {
		if _, err := reader(header(typ, 0)).Next(); err == nil || !strings.Contains(err.Error(), "unknown type") {
			t.Errorf("type %d: %v", typ, err)
		}
	}
}

// Append refuses what Next would.
func TestAppendRefuses(t *testing.T) {
	big := strings.Repeat("x", 5<<10)
	many := status.Node{Alarms: make([]status.Alarm, wire.MaxListed+1)}
	for name, m := range map[string]wire.Message{
		"hello over its limit":        &wire.Hello{Name: big},
		"data over its limit":         &wire.Data{Payload: make([]byte, 2<<20)},
		"too many documents":          &wire.Docs{Entries: make([]wire.DocEntry, wire.MaxDocs+1)},
		"document too long":           &wire.Doc{Doc: make([]byte, 256<<10+1)},
		"signature too long":          &wire.Doc{Sig: make([]byte, 16<<10+1)},
		"bitmap too short":            &wire.Have{Total: 9, Bitmap: make([]byte, 1)},
		"bitmap too long":             &wire.Have{Total: 8, Bitmap: make([]byte, 2)},
		"bits behind the last chunk":  &wire.Have{Total: 9, Bitmap: []byte{0, 2}},
		"too many chunks":             &wire.Have{Total: wire.MaxHaveChunks + 1, Bitmap: make([]byte, wire.MaxHaveChunks/8+1)},
		"chunks beyond every integer": &wire.Have{Total: 1<<32 - 1},
		"no numbers":                  &wire.HaveAdd{},
		"too many numbers":            &wire.HaveAdd{Numbers: make([]uint32, wire.MaxHaveAdd+1)},
		"number out of range":         &wire.HaveAdd{Numbers: []uint32{wire.MaxHaveChunks}},
		"too many alarms":             &wire.Status{Node: many},
		"too many nodes":              &wire.SiteState{Nodes: make([]status.Node, wire.MaxSiteNodes+1)},
		"too many alarms of a node":   &wire.SiteState{Nodes: []status.Node{many}},
		"too many alive":              &wire.SiteState{Alive: make([]string, wire.MaxSiteNodes+1)},
	} {
		if b, err := wire.Append([]byte("kept"), m); err == nil || b != nil {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
}

func TestPayloadsRefused(t *testing.T) {
	list := func(open, each, end string, n int) string {
		return open + strings.TrimSuffix(strings.Repeat(each+",", n), ",") + end
	}
	bundle := strings.Repeat("b", 32)
	for name, c := range map[string]struct {
		typ     wire.Type
		payload string
	}{
		"empty json":                   {wire.TypeHello, ""},
		"null":                         {wire.TypeHello, "null"},
		"not an object":                {wire.TypeHello, "[]"},
		"a string":                     {wire.TypeUplink, `"x"`},
		"blank before":                 {wire.TypeHello, " {}"},
		"second object":                {wire.TypeHello, "{}{}"},
		"brace behind":                 {wire.TypeHello, "{}}"},
		"bracket behind":               {wire.TypeHello, "{}]"},
		"zero byte behind":             {wire.TypeHello, "{}\x00"},
		"cut":                          {wire.TypeHello, `{"version":1`},
		"wrong kind of value":          {wire.TypeHello, `{"version":"1"}`},
		"number too large":             {wire.TypeLeaseRelease, `{"lease":18446744073709551616}`},
		"digest too short":             {wire.TypeGetDoc, `{"digest":"00"}`},
		"base64 that is none":          {wire.TypeReport, `{"body":"*"}`},
		"deep nesting":                 {wire.TypeDocs, `{"x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "}"},
		"too many documents":           {wire.TypeDocs, list(`{"entries":[`, "{}", "]}", wire.MaxDocs+1)},
		"too many nothings":            {wire.TypeDocs, list(`{"entries":[`, "null", "]}", wire.MaxDocs+1)},
		"documents that are no list":   {wire.TypeDocs, `{"entries":{}}`},
		"too many alarms":              {wire.TypeStatus, list(`{"alarms":[`, "{}", "]}", wire.MaxListed+1)},
		"too many installed":           {wire.TypeStatus, list(`{"installed":[`, "null", "]}", wire.MaxListed+1)},
		"too many nodes":               {wire.TypeSiteState, list(`{"nodes":[`, "{}", "]}", wire.MaxSiteNodes+1)},
		"too many alarms of a node":    {wire.TypeSiteState, list(`{"nodes":[{"alarms":[`, "{}", "]}]}", wire.MaxListed+1)},
		"too many alive":               {wire.TypeSiteState, list(`{"alive":[`, `""`, "]}", wire.MaxSiteNodes+1)},
		"short ping":                   {wire.TypePing, "1234567"},
		"short get":                    {wire.TypeGet, strings.Repeat("g", 35)},
		"short data":                   {wire.TypeData, "1234"},
		"short refuse":                 {wire.TypeRefuse, "1234"},
		"short have":                   {wire.TypeHave, bundle + "\x00\x00\x00\x00"},
		"have with unknown flags":      {wire.TypeHave, bundle + "\x02\x00\x00\x00\x00"},
		"have: bitmap too short":       {wire.TypeHave, bundle + "\x00\x00\x00\x00\x09\x00"},
		"have: bitmap too long":        {wire.TypeHave, bundle + "\x00\x00\x00\x00\x08\x00\x00"},
		"have: bits behind the last":   {wire.TypeHave, bundle + "\x00\x00\x00\x00\x09\x00\x02"},
		"have: more chunks than any":   {wire.TypeHave, bundle + "\x00\xff\xff\xff\xff"},
		"haveadd without numbers":      {wire.TypeHaveAdd, bundle},
		"haveadd with half a number":   {wire.TypeHaveAdd, bundle + "\x00\x00\x00\x01\x00\x00"},
		"haveadd: number out of range": {wire.TypeHaveAdd, bundle + "\x01\x00\x00\x00"},
	} {
		if m, err := reader(frame(c.typ, []byte(c.payload))).Next(); err == nil {
			t.Errorf("%s: accepted as %+v", name, m)
		}
	}
}

// Newer software may say more; a reader of this version hears what it knows.
func TestUnknownFieldsAreIgnored(t *testing.T) {
	b := frame(wire.TypeStatus, []byte(`{"node":"n","mood":{"deep":[1,{"x":null}]},"installed":[{"bundle":"os","colour":"red"}]}`))
	m, err := reader(b).Next()
	if err != nil {
		t.Fatal(err)
	}
	if st := m.(*wire.Status); st.Node.Node != "n" || len(st.Installed) != 1 || st.Installed[0].Bundle != "os" {
		t.Errorf("%+v", st)
	}
}

// A cut stream is an error wherever it is cut, except between frames.
func TestCutAnywhere(t *testing.T) {
	b, err := wire.Append(nil, &wire.Have{Total: 3, Bitmap: []byte{5}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		_, err := reader(b[:i]).Next()
		if errors.Is(err, io.EOF) != (i == 0) || err == nil {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

// allocated counts the bytes that f allocates in all, kept or not.
func allocated(f func()) int64 {
	var a, b runtime.MemStats
	runtime.ReadMemStats(&a)
	f()
	runtime.ReadMemStats(&b)
	return int64(b.TotalAlloc - a.TotalAlloc)
}

// What a header claims costs nothing until it is proven.
func TestClaimsCostLittle(t *testing.T) {
	for _, s := range samples() {
		limit, _ := wire.Limit(s.m.Type())
		for n, most := range map[int]int64{limit: 300 << 10, limit + 1: 8 << 10, 1<<32 - 1: 8 << 10} {
			if got := allocated(func() { reader(header(s.m.Type(), n)).Next() }); got > most {
				t.Errorf("%s: a claim of %d bytes allocated %d", s.name, n, got)
			}
		}
	}
}

// The longest lists of the smallest entries cost a small multiple of their bytes. The control shows what they cost
// a decoder that counts afterwards.
func TestListsCostLittle(t *testing.T) {
	fill := func(size int, open, end string) []byte {
		return []byte(open + strings.Repeat("{},", (size-len(open)-len(end)-2)/3) + "{}" + end)
	}
	for name, c := range map[string]struct {
		typ       wire.Type
		open, end string
		into      any
	}{
		"docs":                {wire.TypeDocs, `{"entries":[`, `]}`, new(wire.Docs)},
		"site state":          {wire.TypeSiteState, `{"nodes":[`, `]}`, new(wire.SiteState)},
		"alarms of one node":  {wire.TypeSiteState, `{"nodes":[{"alarms":[`, `]}]}`, new(wire.SiteState)},
		"bundles of one node": {wire.TypeSiteState, `{"nodes":[{"installed":[`, `]}]}`, new(wire.SiteState)},
	} {
		limit, _ := wire.Limit(c.typ)
		whole := frame(c.typ, fill(limit, c.open, c.end))
		got := allocated(func() {
			if _, err := reader(whole).Next(); err == nil {
				t.Errorf("%s: accepted", name)
			}
		})
		part := fill(64<<10, c.open, c.end) // enough to see the ratio
		naive := allocated(func() {
			if err := json.Unmarshal(part, c.into); err != nil {
				t.Error(err)
			}
		})
		ratio, without := float64(got)/float64(limit), float64(naive)/float64(len(part))
		t.Logf("%s: a byte costs %.1f, %.0f without the limit", name, ratio, without)
		if ratio > 12 {
			t.Errorf("%s: %d bytes allocated for a frame of %d", name, got, limit)
		}
		if without < 20 {
			t.Errorf("%s: positive control: a byte costs %.0f without the limit", name, without)
		}
	}
}
