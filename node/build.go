package node

import (
	"runtime/debug"
	"time"
)

// Software and BuildTime say which program this is. BuildTime is the least trusted time of a node whose clock says
// 1970: the commit's, or the date this line was written where the build knows none.
var (
	Software, BuildTime = build()
)

func build() (string, time.Time) {
	version, at := "devel", time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			switch s.Key {
			case "vcs.revision":
				version = s.Value[:min(12, len(s.Value))]
			case "vcs.time":
				if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
					at = t
				}
			}
		}
	}
	return "patchmesh/" + version, at
}
