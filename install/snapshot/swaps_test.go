package snapshot

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseSwaps(t *testing.T) {
	got, err := parseSwaps([]byte("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n" +
		"/dev/dm-1                               partition\t8388604\t\t0\t\t-2\n" +
		"/swap.img                               file\t\t4194300\t\t1024\t\t-3\n" +
		"/a\\040b/swap                           file\t\t4\t\t0\t\t-4\n" +
		"/gone\\040(deleted)                     file\t\t4\t\t0\t\t-5\n"))
	if diff := cmp.Diff([]string{"/swap.img", "/a b/swap"}, got); diff != "" || err != nil {
		t.Errorf("%s, %v", diff, err)
	}
	for _, bad := range []string{"h\nrelative file 1 2 3\n", "h\n/only\n"} {
		if got, err := parseSwaps([]byte(bad)); err == nil {
			t.Errorf("%q gives %q", bad, got)
		}
	}
	if got, err := parseSwaps(nil); len(got) > 0 || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
