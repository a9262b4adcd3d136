package apt

import (
	"os/exec"
	"testing"

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/install/tool"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	// Each is older than the next.
	order := []string{"0~~", "0~~a", "0~", "0", "0a", "0+", "0.1-1", "0.1-1+b1", "0.1-1.1", "0.1-2", "0.10", "1.0~rc1-1", "1.0-1~bpo1", "1.0-1", "1.0a-1", "1.0+dfsg-1", "1:0", "2:0~"}
	for i, a := range order {
		for j, b := range order {
			if got, want := compare(a, b), sign(i-j); got != want {
				t.Errorf("%s and %s: %d, want %d", a, b, got, want)
			}
		}
	}
	for a, b := range map[string]string{"1": "1-0", "0:1": "1", "01": "1", "1.0": "1.00"} {
		if compare(a, b) != 0 {
			t.Errorf("%s is not %s", a, b)
		}
	}
}

// dpkg itself is the oracle, on versions that are likely to be close.
func TestCompareAsDpkg(t *testing.T) {
	t.Parallel()
	if !tool.Has("dpkg") {
		t.Skip("needs dpkg: apt-get install dpkg")
	}
	version := rapid.StringMatching(`([0-2]:)?[0-2][0-2a~+.\-]{0,3}[0-2a~+](-[0-2a~+.]{1,3})?`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := version.Draw(t, "a"), version.Draw(t, "b")
		if rapid.Bool().Draw(t, "begins alike") {
			b = a + rapid.StringMatching(`[0-2a~+.]{0,2}`).Draw(t, "more")
		}
		got := compare(a, b)
		op := map[int]string{-1: "lt", 0: "eq", 1: "gt"}[got]
		if out, err := exec.Command("dpkg", "--compare-versions", a, op, b).CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("%s %s %s: dpkg says %v %s", a, op, b, err, out)
		}
		if back := compare(b, a); back != -got {
			t.Fatalf("%s and %s: %d, and %d the other way round", a, b, got, back)
		}
	})
}
