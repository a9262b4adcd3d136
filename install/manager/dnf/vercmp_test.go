package dnf

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"1.0-1", "1.0-1", 0},
		{"1.0-1", "1.0-2", -1},
		{"1.10-1", "1.9-1", 1},
		{"1:0.1-1", "9.9-9", 1},
		{"0:1.0-1", "1.0-1", 0},
		{"1.0", "1.0-7", -1},
		{"1.0~rc1-1", "1.0-1", -1},
		{"1.0^git1-1", "1.0-1", 1},
		{"1.0^git1-1", "1.0.1-1", -1},
		{"1.0~rc1^git1-1", "1.0~rc1-1", 1},
		{"1.0a-1", "1.0.1-1", -1},
		{"1.0a-1", "1.0-1", 1},
		{"1_0-1", "1.0-1", 0},
		{"001-1", "1-1", 0},
		{"1.0.-1", "1.0-1", 0},
		{"3.0.7-27.el9", "3.0.7-6.el9_2", 1},
	} {
		if got := compare(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: %d, want %d", c.a, c.b, got, c.want)
		}
		if got := compare(c.b, c.a); got != -c.want {
			t.Errorf("%s and %s: %d, want %d", c.b, c.a, got, -c.want)
		}
	}
}

// TestCompareIsRPMs asks rpm itself, many pairs at once.
func TestCompareIsRPMs(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("rpm"); err != nil {
		t.Skip("needs rpm: apt-get install rpm")
	}
	version := rapid.StringMatching(`([0-2]:)?[a-c0-2][a-c0-2.~^_+]{0,6}(-[a-c0-2][a-c0-2.~^_+]{0,3})?`)
	rapid.Check(t, func(t *rapid.T) {
		pairs := rapid.SliceOfN(version, 200, 200).Draw(t, "versions")
		var lua strings.Builder
		for i := 0; i+1 < len(pairs); i += 2 {
			fmt.Fprintf(&lua, "print(rpm.vercmp(%q,%q)..' ')", pairs[i], pairs[i+1])
		}
		out, err := exec.Command("rpm", "--eval", "%{lua:"+lua.String()+"}").CombinedOutput()
		answers := strings.Fields(string(out))
		if err != nil || len(answers) != len(pairs)/2 {
			t.Fatalf("%v: %d answers: %.300s", err, len(answers), out)
		}
		for i, a := range answers {
			if want, err := strconv.Atoi(a); err != nil || compare(pairs[2*i], pairs[2*i+1]) != want {
				t.Fatalf("%q and %q: %d, rpm says %s", pairs[2*i], pairs[2*i+1], compare(pairs[2*i], pairs[2*i+1]), a)
			}
		}
	})
}

func FuzzCompare(f *testing.F) {
	f.Add("1:1.0~a-1", "1.0^b-2")
	f.Add("", "-")
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(a)+len(b) > 1000 {
			return
		}
		if x, y := compare(a, b), compare(b, a); x != -y || compare(a, a) != 0 {
			t.Errorf("%q and %q: %d and %d", a, b, x, y)
		}
	})
}
