package build

import (
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

func TestIdentity(t *testing.T) {
	settings := func(revision, at string) *debug.BuildInfo {
		info := &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: revision}, {Key: "vcs.time", Value: at}}}
		info.Main.Version = "v1.2.3"
		return info
	}
	floor := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	later := time.Date(2027, 2, 3, 4, 5, 6, 0, time.UTC)
	for name, c := range map[string]struct {
		info           *debug.BuildInfo
		software, line string
		at             time.Time
	}{
		"nothing known":     {nil, "meshd/devel", "meshd unknown go", floor},
		"a test binary":     {&debug.BuildInfo{}, "meshd/devel", "meshd unknown go", floor},
		"a commit":          {settings("0123456789abcdef", "2027-02-03T04:05:06Z"), "meshd/0123456789ab", "meshd v1.2.3 0123456789ab go", later},
		"another zone":      {settings("0123", "2027-02-03T05:05:06+01:00"), "meshd/0123", "meshd v1.2.3 0123 go", later},
		"a date that lies":  {settings("0123", "1970-01-01T00:00:00Z"), "meshd/0123", "meshd v1.2.3 0123 go", floor},
		"no date to be had": {settings("", "yesterday"), "meshd/devel", "meshd v1.2.3 go", floor},
	} {
		id := read(c.info)
		if got := id.software("meshd"); got != c.software {
			t.Errorf("%s: software %q, want %q", name, got, c.software)
		}
		if got := id.line("meshd"); !strings.HasPrefix(got, c.line) {
			t.Errorf("%s: line %q, want %q…", name, got, c.line)
		}
		if !id.time.Equal(c.at) || id.time.Location() != time.UTC {
			t.Errorf("%s: time %v, want %v", name, id.time, c.at)
		}
	}
}
