package status

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTrafficBeyond(t *testing.T) {
	monday, tuesday := time.Unix(1_800_000_000, 0), time.Unix(1_800_086_400, 0)
	for name, c := range map[string]struct{ was, is, want Traffic }{
		"the first statement":     {is: Traffic{Since: monday, FromLAN: 5}, want: Traffic{Since: monday, FromLAN: 5}},
		"more":                    {Traffic{Since: monday, FromLAN: 5, BadLAN: 1}, Traffic{Since: monday, FromLAN: 9, BadLAN: 3}, Traffic{Since: monday, FromLAN: 4, BadLAN: 2}},
		"the same, another zone":  {Traffic{Since: monday, ToLAN: 5}, Traffic{Since: monday.UTC(), ToLAN: 5}, Traffic{Since: monday.UTC()}},
		"the daemon began anew":   {Traffic{Since: monday, FromLAN: 5}, Traffic{Since: tuesday, FromLAN: 2}, Traffic{Since: tuesday, FromLAN: 2}},
		"less":                    {Traffic{Since: monday, FromLAN: 5, Avoided: 5}, Traffic{Since: monday, FromLAN: 4, Avoided: 6}, Traffic{Since: monday, Avoided: 1}},
		"less than nothing":       {Traffic{Since: monday, FromLAN: math.MinInt64}, Traffic{Since: monday, FromLAN: math.MaxInt64, ToLAN: -1}, Traffic{Since: monday, FromLAN: math.MaxInt64}},
		"a daemon that says none": {Traffic{}, Traffic{}, Traffic{}},
	} {
		if diff := cmp.Diff(c.want, c.is.Beyond(c.was)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
