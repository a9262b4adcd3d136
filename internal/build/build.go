// Package build says which program this is and when its source was committed, as the Go tool wrote both into the
// binary. It decides nothing. Everything in it may be called at any time from any goroutine.
package build

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// least is the time of a build that knows no commit: the date on which this line was written.
const least = 1793491200 // 2026-11-01T00:00:00Z

// identity is what the Go tool knew.
type identity struct {
	version string // of the module
	commit  string // its first 12 digits, "" where unknown
	time    time.Time
}

func read(info *debug.BuildInfo) identity {
	id := identity{version: "unknown", time: time.Unix(least, 0).UTC()}
	if info == nil {
		return id
	}
	if info.Main.Version != "" {
		id.version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			id.commit = s.Value[:min(12, len(s.Value))]
		case "vcs.time":
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil && t.After(id.time) {
				id.time = t.UTC()
			}
		}
	}
	return id
}

// this is read once: a daemon says its software in every statement.
var this = sync.OnceValue(func() identity {
	info, _ := debug.ReadBuildInfo()
	return read(info)
})

// Time is the least trusted time of a machine whose clock may say 1970: when the source was committed, and never
// before a date fixed in the source.
func Time() time.Time { return this().time }

// Software is the name that a program tells others: program/commit, or program/devel where the commit is unknown.
func Software(program string) string { return this().software(program) }

func (id identity) software(program string) string {
	if id.commit == "" {
		return program + "/devel"
	}
	return program + "/" + id.commit
}

// Line is for a person who asks for the version: program, version, commit if known, Go version and platform.
func Line(program string) string { return this().line(program) }

func (id identity) line(program string) string {
	line := program + " " + id.version
	if id.commit != "" {
		line += " " + id.commit
	}
	return line + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}
