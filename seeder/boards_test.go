package seeder

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/wire"
)

// posted are the policies and manifests on a site's board.
func (b *bed) posted(site string) string {
	var out []string
	for _, e := range b.boards.site(site).entries {
		if e.Kind == wire.DocPolicy || e.Kind == wire.DocManifest {
			out = append(out, fmt.Sprintf("%s@%d", e.Name, e.Revision))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// Whoever may follow a policy hears of every change of it: also of the one by which it is about others, and of an exclude,
// which keeps other policies from the node too. What is to be fetched comes only where it is wanted.
func TestBoardPolicies(t *testing.T) {
	b := start(t, nil)
	x := b.bundle("1.0", 7, b.release)
	b.push(x, -1)
	for _, site := range []string{"tills", "kiosks"} {
		b.site(site)
		b.join(site, site+"-1", api.TokenSpec{Labels: map[string]string{"role": site}})
	}
	put := func(name string, rev uint64, targets string) {
		t.Helper()
		if _, err := b.admin.PutPolicy(t.Context(), b.signed(policyText(name, x, x.Digest, "  targets: "+targets+"\n"), rev, b.operator)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what, tills, kiosks string) {
		t.Helper()
		if a, b := b.posted("tills"), b.posted("kiosks"); a != tills || b != kiosks {
			t.Errorf("%s: %q and %q, want %q and %q", what, a, b, tills, kiosks)
		}
	}
	put("os", 1, "{selector: {matchLabels: {role: tills}}}")
	check("for the tills", "app@7 os@1", "")
	put("os", 2, "{selector: {matchLabels: {role: kiosks}}}")
	check("for the kiosks now", "os@2", "app@7 os@2")
	put("os", 3, "{selector: {matchLabels: {role: nobody}}}")
	check("for nobody", "os@3", "os@3")
	b.stop()
	b.run()
	check("after a restart", "os@3", "os@3")
	put("hands-off", 1, "{selector: {matchLabels: {role: tills}}, exclude: {matchExpressions: [{key: site, operator: DoesNotExist}]}}")
	check("an exclude", "hands-off@1 os@3", "os@3")
	for rev := range uint64(maxEarlier) {
		put("many", rev+1, fmt.Sprintf("{selector: {matchLabels: {role: r%d}}}", rev))
	}
	check("as many revisions as are remembered", "hands-off@1 os@3", "os@3")
	put("many", maxEarlier+1, "{selector: {matchLabels: {role: more}}}")
	put("many", maxEarlier+2, "{selector: {matchLabels: {role: last}}}")
	check("more than that: everybody", "hands-off@1 many@34 os@3", "many@34 os@3")
}
