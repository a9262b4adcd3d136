package revocation

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

var epoch = time.Date(2026, 8, 25, 12, 0, 0, 0, time.UTC)

func line1(version string) Bundle {
	return Bundle{Bundle: "app", Version: version, Checksum: manifest.DigestOf([]byte(version)), Revoked: Timestamp(epoch), Reason: "tills freeze"}
}

func sample() *List {
	return (*List)(nil).Add(line1("1.0"), epoch).Add(line1("2.0"), epoch)
}

func key(t *testing.T, name string) *signer.KeyFile {
	t.Helper()
	priv, _, _, err := signer.GenerateKey(signer.KeyOptions{Name: name, Email: name + "@example.org", Created: epoch})
	if err != nil {
		t.Fatal(err)
	}
	k, err := signer.FromKey(priv, nil)
	if err != nil {
		t.Fatal(err)
	}
	k.Now = func() time.Time { return epoch }
	return k
}

func role(t *testing.T, k *signer.KeyFile) trust.RoleKeys {
	t.Helper()
	r, err := trust.NewRoleKeys(1, k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func sign(t *testing.T, k *signer.KeyFile, doc []byte) trust.Signed {
	t.Helper()
	sig, err := k.Sign(t.Context(), doc)
	if err != nil {
		t.Fatal(err)
	}
	return trust.Signed{Doc: doc, Sig: sig}
}

func encoded(t testing.TB, l *List) []byte {
	t.Helper()
	b, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A list is taken when the operator's key signed it, and only then: not with the key of releases or of rosters, not after
// a change, and an order with a good signature is no list.
func TestOpen(t *testing.T) {
	operator, release, stranger := key(t, "operator"), key(t, "release"), key(t, "stranger")
	set := &trust.Set{Policy: role(t, operator), Release: role(t, release), Roster: role(t, release)}
	doc := encoded(t, sample())
	got, err := Open(set, sign(t, operator, doc), epoch)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sample(), got); d != "" {
		t.Error(d)
	}
	changed := sign(t, operator, doc)
	changed.Doc = []byte(strings.Replace(string(doc), "freeze", "sneeze", 1))
	o := order.Order{Schema: order.Schema, Sequence: 1, Created: order.Timestamp(epoch), Kind: order.Retry, Bundle: "app", Version: "1", Checksum: manifest.DigestOf(nil),
		Targets: order.Targets{Sites: []string{"s"}, Nodes: []string{}, Labels: map[string]string{}}, Reason: "x"}
	od, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		s    trust.Signed
		code problem.Code
	}{
		"a stranger's key":    {sign(t, stranger, doc), problem.SignatureInvalid},
		"another role's key":  {sign(t, release, doc), problem.SignatureInvalid},
		"changed afterwards":  {changed, problem.SignatureInvalid},
		"signed another week": {sign(t, operator, encoded(t, (*List)(nil).Add(line1("1.0"), epoch.AddDate(0, 0, -7)))), problem.SignatureInvalid},
		"an order":            {sign(t, operator, od), problem.InvalidRevocation},
		"too large":           {trust.Signed{Doc: make([]byte, MaxBytes+1)}, problem.InvalidRevocation},
	} {
		if l, err := Open(set, c.s, epoch); problem.CodeOf(err) != c.code {
			t.Errorf("%s: %v, %v; want %s", name, l, err, c.code)
		}
	}
}

// What breaks a rule is neither written nor read.
func TestRules(t *testing.T) {
	for name, change := range map[string]func(*List){
		"schema":              func(l *List) { l.Schema = order.Schema },
		"no sequence":         func(l *List) { l.Sequence = 0 },
		"sequence far ahead":  func(l *List) { l.Sequence = uint64(epoch.Unix()) + MaxAhead + 1 },
		"sequence beyond all": func(l *List) { l.Sequence = math.MaxUint64 },
		"time":                func(l *List) { l.Created = "yesterday" },
		"time of a zone":      func(l *List) { l.Created = "2026-08-25T12:00:00+02:00" },
		"no lines":            func(l *List) { l.Bundles = nil },
		"name":                func(l *List) { l.Bundles[0].Bundle = "../app" },
		"version":             func(l *List) { l.Bundles[0].Version = "" },
		"no checksum":         func(l *List) { l.Bundles[0].Checksum = manifest.Digest{} },
		"line twice":          func(l *List) { l.Bundles[1].Checksum = l.Bundles[0].Checksum },
		"line without a time": func(l *List) { l.Bundles[0].Revoked = "" },
		"no reason":           func(l *List) { l.Bundles[0].Reason = "" },
		"reason of two lines": func(l *List) { l.Bundles[0].Reason = "a\nb" },
		"reason with an ESC":  func(l *List) { l.Bundles[0].Reason = "\x1b[2J" },
		"long reason":         func(l *List) { l.Bundles[0].Reason = strings.Repeat("x", MaxReason+1) },
		"too many": func(l *List) {
			for i := range MaxBundles {
				l.Bundles = append(l.Bundles, line1(fmt.Sprint("9.", i)))
			}
		},
	} {
		l := sample()
		change(l)
		b, err := l.Encode()
		if problem.CodeOf(err) != problem.InvalidRevocation {
			t.Errorf("%s: written as %q, %v", name, b, err)
		}
		if b, err = manifest.EncodeCanonical(l); err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(b); problem.CodeOf(err) != problem.InvalidRevocation {
			t.Errorf("%s: read: %v", name, err)
		}
	}
}

// The largest list there can be fits a document, and thus a frame and a request.
func TestLargest(t *testing.T) {
	var l *List
	for i := range MaxBundles {
		v := fmt.Sprintf("%064d", i)
		l = l.Add(Bundle{Bundle: strings.Repeat("b", 64), Version: v, Checksum: manifest.DigestOf([]byte(v)), Revoked: Timestamp(epoch), Reason: strings.Repeat(`"`, MaxReason)}, epoch)
	}
	if b := encoded(t, l); len(b) > MaxBytes {
		t.Errorf("%d bytes", len(b))
	}
	full := l.Add(line1("1.0"), epoch)
	if len(full.Bundles) != MaxBundles || full.Find(line1("1.0").Checksum) == nil || full.Bundles[0] != l.Bundles[1] {
		t.Errorf("a full list has %d lines, the first %v", len(full.Bundles), full.Bundles[0])
	}
	if err := full.Follows(l); err != nil {
		t.Errorf("the oldest line may go from a full list: %v", err)
	}
}

// Whether a list may take the place of the one in force.
func TestFollows(t *testing.T) {
	one := (*List)(nil).Add(line1("1.0"), epoch)
	two := one.Add(line1("2.0"), epoch)
	other := (*List)(nil).Add(line1("3.0"), epoch.Add(time.Hour))
	for name, c := range map[string]struct {
		next, old *List
		ok        bool
	}{
		"the first":                      {one, nil, true},
		"the next":                       {two, one, true},
		"itself":                         {one, one, false},
		"an older one":                   {one, two, false},
		"newer, made without the oldest": {other, two, false},
		"newer, with the same lines":     {two.Add(line1("2.0"), epoch), two, true},
	} {
		if err := c.next.Follows(c.old); (err == nil) != c.ok || err != nil && problem.CodeOf(err) != problem.ChangedMeanwhile {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefuse(t *testing.T) {
	if (*List)(nil).Refuse(line1("1.0").Checksum) != nil || sample().Refuse(manifest.DigestOf(nil)) != nil {
		t.Error("a bundle is refused that nobody has revoked")
	}
	if err := sample().Refuse(line1("2.0").Checksum); err == nil || err.Code != problem.BundleRevoked || !strings.Contains(err.Error(), "tills freeze") {
		t.Errorf("%v", err)
	}
}

// In whatever order lists come, and whichever are replayed, nothing that was revoked comes back while there is room, and
// the sequence never falls.
func TestNothingComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var lists []*List
		for i := range rapid.IntRange(1, 8).Draw(t, "lists") {
			var base *List
			if i > 0 && rapid.Bool().Draw(t, "knows another") { // two operators, two sticks
				base = lists[rapid.IntRange(0, i-1).Draw(t, "which")]
			}
			lists = append(lists, base.Add(line1(fmt.Sprint("1.", rapid.IntRange(0, 5).Draw(t, "bundle"))), epoch.Add(time.Duration(i)*time.Second)))
		}
		var known *List
		seen := map[manifest.Digest]bool{}
		for range rapid.IntRange(1, 12).Draw(t, "arrivals") {
			l := lists[rapid.IntRange(0, len(lists)-1).Draw(t, "arrives")]
			next := Merge(known, l)
			for _, b := range l.Bundles {
				seen[b.Checksum] = true
			}
			if known != nil && next.Sequence < known.Sequence || !next.Covers(known) || !next.Covers(l) || len(next.Bundles) != len(seen) {
				t.Fatalf("after %+v came %+v: %+v", known, l, next)
			}
			if _, err := next.Encode(); err != nil {
				t.Fatal(err)
			}
			known = next
		}
	})
}

// What is read is written back byte for byte, whatever it was.
func FuzzParse(f *testing.F) {
	b := encoded(f, sample())
	f.Add(b)
	f.Add([]byte(`{}`))
	f.Add([]byte(strings.Replace(string(b), "1.0", "1.1", 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Parse(b)
		if err != nil {
			return
		}
		again, err := l.Encode()
		if err != nil || string(again) != string(b) {
			t.Fatalf("read and written: %v\n%s\n%s", err, b, again)
		}
		if m := Merge(l, l); !m.Covers(l) || len(m.Bundles) != len(l.Bundles) {
			t.Fatalf("merged with itself: %+v", m)
		}
		for _, x := range l.Bundles {
			if l.Refuse(x.Checksum) == nil {
				t.Fatalf("%s is not refused", x.Checksum)
			}
		}
	})
}
