package order

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

var epoch = time.Date(2026, 8, 25, 12, 0, 0, 0, time.UTC)

// sample is an order that is valid.
func sample() *Order {
	return &Order{Schema: Schema, Sequence: 7, Created: Timestamp(epoch), Kind: Rollback, Bundle: "app", Version: "2.0", Checksum: manifest.DigestOf([]byte("2.0")),
		Targets: Targets{Sites: []string{"site-1"}, Nodes: []string{}, Labels: map[string]string{}}, Reason: "tills freeze"}
}

// key makes a key that signs at epoch.
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

func encoded(t *testing.T, o *Order) []byte {
	t.Helper()
	b, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// An order is taken when the operator's key signed it, and only then: not with another role's key, not with a
// stranger's, not after a change, and a policy with a good signature is no order.
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
	late := sample()
	late.Created = Timestamp(epoch.Add(-72 * time.Hour))
	gone, err := policy.NewDeletion("app", 1, epoch)
	if err != nil {
		t.Fatal(err)
	}
	deletion, err := gone.Encode()
	if err != nil {
		t.Fatal(err)
	}
	changed := sign(t, operator, doc)
	changed.Doc = []byte(strings.Replace(string(doc), `"now": false`, `"now": true`, 1))
	for name, c := range map[string]struct {
		s    trust.Signed
		code problem.Code
	}{
		"a stranger's key":      {sign(t, stranger, doc), problem.SignatureInvalid},
		"another role's key":    {sign(t, release, doc), problem.SignatureInvalid},
		"changed afterwards":    {changed, problem.SignatureInvalid},
		"signed another day":    {sign(t, operator, encoded(t, late)), problem.SignatureInvalid},
		"a policy's withdrawal": {sign(t, operator, deletion), problem.InvalidOrder},
		"too large":             {trust.Signed{Doc: make([]byte, MaxBytes+1)}, problem.InvalidOrder},
	} {
		if o, err := Open(set, c.s, epoch); problem.CodeOf(err) != c.code {
			t.Errorf("%s: %v, %v; want %s", name, o, err, c.code)
		}
	}
}

// What breaks a rule is neither written nor read.
func TestRules(t *testing.T) {
	for name, change := range map[string]func(*Order){
		"schema":               func(o *Order) { o.Schema = policy.Schema },
		"no sequence":          func(o *Order) { o.Sequence = 0 },
		"sequence beyond all":  func(o *Order) { o.Sequence = math.MaxInt64 + 1 },
		"kind":                 func(o *Order) { o.Kind = "erase" },
		"bundle":               func(o *Order) { o.Bundle = "../app" },
		"version":              func(o *Order) { o.Version = "" },
		"no checksum":          func(o *Order) { o.Checksum = manifest.Digest{} },
		"no reason":            func(o *Order) { o.Reason = "" },
		"reason of two lines":  func(o *Order) { o.Reason = "a\nb" },
		"reason with an ESC":   func(o *Order) { o.Reason = "\x1b[2J" },
		"long reason":          func(o *Order) { o.Reason = strings.Repeat("x", MaxReason+1) },
		"time":                 func(o *Order) { o.Created = "yesterday" },
		"time of another zone": func(o *Order) { o.Created = "2026-08-25T12:00:00+02:00" },
		"nobody":               func(o *Order) { o.Targets.Sites = []string{} },
		"no list":              func(o *Order) { o.Targets.Nodes = nil },
		"site twice":           func(o *Order) { o.Targets.Sites = []string{"a", "a"} },
		"sites in disorder":    func(o *Order) { o.Targets.Sites = []string{"b", "a"} },
		"no name":              func(o *Order) { o.Targets.Sites = []string{"A"} },
		"nodes of two sites": func(o *Order) {
			o.Targets.Sites, o.Targets.Nodes = []string{"a", "b"}, []string{"n"}
		},
		"nodes of no site": func(o *Order) {
			o.Targets = Targets{Sites: []string{}, Nodes: []string{"n"}, Labels: map[string]string{"role": "pos"}}
		},
		"label": func(o *Order) { o.Targets.Labels = map[string]string{"": "x"} },
	} {
		o := sample()
		change(o)
		b, err := o.Encode()
		if problem.CodeOf(err) != problem.InvalidOrder {
			t.Errorf("%s: written as %q, %v", name, b, err)
		}
		if b, err = manifest.EncodeCanonical(o); err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(b); problem.CodeOf(err) != problem.InvalidOrder {
			t.Errorf("%s: read: %v", name, err)
		}
	}
}

func TestTargets(t *testing.T) {
	pos := map[string]string{"role": "pos", "env": "prod"}
	for name, c := range map[string]struct {
		t              Targets
		names, concern bool
	}{
		"the site":                 {Targets{Sites: []string{"s1"}}, true, true},
		"another site":             {Targets{Sites: []string{"s2"}}, false, false},
		"several sites":            {Targets{Sites: []string{"s0", "s1"}}, true, true},
		"the node":                 {Targets{Sites: []string{"s1"}, Nodes: []string{"n1", "n2"}}, true, true},
		"a neighbour":              {Targets{Sites: []string{"s1"}, Nodes: []string{"n2"}}, false, true},
		"the label anywhere":       {Targets{Labels: map[string]string{"role": "pos"}}, true, true},
		"another label":            {Targets{Labels: map[string]string{"role": "kiosk"}}, false, true},
		"one label of two is not":  {Targets{Labels: map[string]string{"role": "pos", "env": "test"}}, false, true},
		"the label elsewhere":      {Targets{Sites: []string{"s2"}, Labels: map[string]string{"role": "pos"}}, false, false},
		"nothing said is nobody":   {Targets{}, false, false},
		"a node of no site at all": {Targets{Nodes: []string{"n1"}}, false, false},
	} {
		if got := c.t.Names("s1", "n1", pos); got != c.names {
			t.Errorf("%s: names it: %v", name, got)
		}
		if got := c.t.Concerns("s1"); got != c.concern {
			t.Errorf("%s: concerns the site: %v", name, got)
		}
	}
}

// An order that names a node concerns its site, whatever it says: a board that leaves out what does not concern a site
// leaves out nothing.
func TestConcernsIsWider(t *testing.T) {
	word := rapid.SampledFrom([]string{"a", "b", "c"})
	rapid.Check(t, func(t *rapid.T) {
		x := Targets{Sites: rapid.SliceOfDistinct(word, rapid.ID[string]).Draw(t, "sites"), Nodes: rapid.SliceOfDistinct(word, rapid.ID[string]).Draw(t, "nodes"),
			Labels: rapid.MapOf(word, word).Draw(t, "labels")}
		site, node, labels := word.Draw(t, "site"), word.Draw(t, "node"), rapid.MapOf(word, word).Draw(t, "of the node")
		if x.Names(site, node, labels) && !x.Concerns(site) {
			t.Fatalf("%+v names %s/%s %v and does not concern the site", x, site, node, slices.Collect(maps.Keys(labels)))
		}
	})
}

func TestNext(t *testing.T) {
	now := epoch.Unix()
	for _, c := range []struct{ last, want uint64 }{
		{0, uint64(now)}, {uint64(now), uint64(now) + 1}, {uint64(now) + 500, uint64(now) + 501}, {math.MaxInt64, math.MaxInt64},
	} {
		if got := Next(c.last, epoch); got != c.want {
			t.Errorf("after %d comes %d, want %d", c.last, got, c.want)
		}
	}
	if got := Next(0, time.Time{}); got != 1 {
		t.Errorf("with a clock of the year 1: %d", got)
	}
}

func TestCheckLast(t *testing.T) {
	now := uint64(epoch.Unix())
	for last, ok := range map[uint64]bool{0: true, now: true, now + 5000: true, now + 399*86400: true, now + 401*86400: false, math.MaxInt64: false, math.MaxUint64: false} {
		if err := CheckLast(last, epoch); (err == nil) != ok {
			t.Errorf("%d: %v", last, err)
		}
	}
	if err := CheckLast(5, time.Time{}); err == nil { // a clock that was never set
		t.Error("the year 1 passes")
	}
}

// delegated is an order of the seeder that is valid.
func delegated() *Order {
	o := sample()
	o.Targets.Nodes, o.Under = []string{"n1"}, &Under{Policy: "pos", Revision: 3}
	return o
}

// An order of the seeder names the policy that lets it be given, and an operator's names none.
func TestOpenDelegated(t *testing.T) {
	operator, seeder := key(t, "operator"), key(t, "seeder")
	set := &trust.Set{Policy: role(t, operator), Release: role(t, operator), Roster: role(t, seeder)}
	doc := encoded(t, delegated())
	got, err := OpenDelegated(set, sign(t, seeder, doc), epoch)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(delegated(), got); d != "" {
		t.Error(d)
	}
	if _, err := Open(set, sign(t, operator, doc), epoch); problem.CodeOf(err) != problem.InvalidOrder {
		t.Errorf("signed by the operator: %v", err)
	}
	for name, change := range map[string]func(*Order){
		"under nothing": func(o *Order) { o.Under = nil },
		"for everybody": func(o *Order) { o.Targets.Nodes = []string{} },
		"at once":       func(o *Order) { o.Now = true },
		"a retry":       func(o *Order) { o.Kind = Retry },
	} {
		o := delegated()
		change(o)
		if _, err := OpenDelegated(set, sign(t, seeder, encoded(t, o)), epoch); problem.CodeOf(err) != problem.Denied {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*Order){
		"a path":      func(o *Order) { o.Under.Policy = "../x" },
		"no revision": func(o *Order) { o.Under.Revision = 0 },
		"a huge one":  func(o *Order) { o.Under.Revision = math.MaxInt64 + 1 },
	} {
		o := delegated()
		change(o)
		if b, err := o.Encode(); problem.CodeOf(err) != problem.InvalidOrder {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// An order of the seeder counts within the revision that it is under, and gives way to an operator's newer one.
func TestAdmitDelegated(t *testing.T) {
	for _, c := range []struct {
		done policy.Mark
		last uint64
		ok   bool
	}{
		{policy.Mark{}, 0, true},
		{policy.Mark{Revision: 3, Number: 6}, 6, true},
		{policy.Mark{Revision: 3, Number: 7}, 0, false},
		{policy.Mark{Revision: 2, Number: math.MaxInt64}, 0, true},
		{policy.Mark{Revision: 4, Number: 1}, 0, false},
		{policy.Mark{}, 7, false},
	} {
		if err := AdmitDelegated(c.done, c.last, delegated()); (err == nil) != c.ok || err != nil && problem.CodeOf(err) != problem.OrderTooOld {
			t.Errorf("order 7 under revision 3, after %+v and an operator's %d: %v", c.done, c.last, err)
		}
	}
}

func TestDelegated(t *testing.T) {
	may := func(change func(*policy.Policy)) *policy.Policy {
		o := delegated()
		p := &policy.Policy{Name: "pos", Bundle: policy.BundleRef{Name: o.Bundle, Checksum: o.Checksum}, Rollout: &policy.Rollout{Budget: policy.Budget{Rollback: true}}}
		if change != nil {
			change(p)
		}
		return p
	}
	for name, c := range map[string]struct {
		revision uint64
		p        *policy.Policy
		ok       bool
	}{
		"it may":            {3, may(nil), true},
		"no policy":         {3, nil, false},
		"another revision":  {4, may(nil), false},
		"another policy":    {3, may(func(p *policy.Policy) { p.Name = "till" }), false},
		"another release":   {3, may(func(p *policy.Policy) { p.Bundle.Checksum = manifest.Digest{1} }), false},
		"no rollout":        {3, may(func(p *policy.Policy) { p.Rollout = nil }), false},
		"onExceeded: Pause": {3, may(func(p *policy.Policy) { p.Rollout.Budget.Rollback = false }), false},
	} {
		if err := Delegated(delegated(), c.revision, c.p); (err == nil) != c.ok || err != nil && problem.CodeOf(err) != problem.Denied {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAdmit(t *testing.T) {
	for last, ok := range map[uint64]bool{0: true, 6: true, 7: false, 8: false} {
		if err := Admit(last, sample()); (err == nil) != ok || err != nil && problem.CodeOf(err) != problem.OrderTooOld {
			t.Errorf("order 7 after %d: %v", last, err)
		}
	}
	if err := Admit(7, sample()); !errors.Is(err, errOld) {
		t.Errorf("%v", err)
	}
}

func TestNewest(t *testing.T) {
	var all []uint64
	for i := range uint64(MaxKept + 3) {
		all = append(all, (i*37)%(MaxKept+3)+1)
	}
	got := Newest(all, func(n uint64) uint64 { return n })
	if len(got) != MaxKept || got[0] != 4 || got[MaxKept-1] != MaxKept+3 || !slices.IsSorted(got) {
		t.Errorf("%v", got)
	}
}

// What is read is written back byte for byte, whatever it was.
func FuzzParse(f *testing.F) {
	b, err := sample().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{}`))
	d, err := delegated().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d)
	f.Add([]byte(strings.Replace(string(b), "rollback", "retry", 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := Parse(b)
		if err != nil {
			return
		}
		again, err := o.Encode()
		if err != nil || string(again) != string(b) {
			t.Fatalf("read and written: %v\n%s\n%s", err, b, again)
		}
		if !o.Targets.Concerns(append(o.Targets.Sites, "any")[0]) {
			t.Fatalf("an order for nobody: %s", b)
		}
	})
}
