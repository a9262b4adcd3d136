package preflight

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC)

func TestDecide(t *testing.T) {
	full := Space{Path: "/var", Need: 812 << 20, Free: 300 << 20, Files: -1}
	roomy := Space{Path: "/", Need: 1, Free: 1, NeedFiles: 5, Files: 5}
	till := Lock{Name: "till-transaction", Who: "pos-till", PID: 811, Since: now.Add(-6 * time.Minute), Until: now.Add(20 * time.Minute)}
	apt := Process{PID: 7, Name: "apt-get", File: "/var/lib/dpkg/lock"}
	hook := &Deferral{HookDeferred, "hook 10-open: the store is open", 30 * time.Minute}
	for what, c := range map[string]struct {
		f    Facts
		want *Deferral
	}{
		"nothing found":       {Facts{}, nil},
		"all as it should be": {Facts{Space: []Space{roomy}, Skew: -5 * time.Minute, Power: Power{OnBattery: true, Percent: 40}}, nil},
		"bytes": {Facts{Space: []Space{roomy, full}},
			&Deferral{LowDisk, "file system /var needs 812.0 MiB, has 300.0 MiB free", time.Hour}},
		"inodes": {Facts{Space: []Space{{Path: "/", NeedFiles: 6, Files: 5}}},
			&Deferral{LowDisk, "file system / needs 6 inodes, has 5 free", time.Hour}},
		"battery": {Facts{Power: Power{OnBattery: true, Percent: 39}},
			&Deferral{LowPower, "on battery with 39 %: want 40 % or mains", 15 * time.Minute}},
		"clock": {Facts{Skew: -301 * time.Second},
			&Deferral{ClockUnsure, "the clock differs by 5m1s from those of its neighbours: at most 5m0s", 15 * time.Minute}},
		"manager": {Facts{Managers: []Process{apt}},
			&Deferral{ManagerBusy, "pid 7 apt-get is at work, it holds /var/lib/dpkg/lock", 5 * time.Minute}},
		"application": {Facts{Locks: []Lock{till}},
			&Deferral{AppLock, "till-transaction, by pid 811 pos-till, 6m0s; lease ends 2026-11-21T02:20:00Z", 20 * time.Minute}},
		"held for long": {Facts{Locks: []Lock{{Name: "x", Who: "y", PID: 1, Since: now.Add(-LockOverdue)}}},
			&Deferral{AppLock, "Overdue: x, by pid 1 y, 4h0m0s", 5 * time.Minute}},
		"hook":     {Facts{Hook: hook}, hook},
		"snapshot": {Facts{Snapshot: "no btrfs"}, &Deferral{SnapshotUnavailable, "no btrfs", time.Hour}},
		"the first of the order, all of them named, the longest wait": {Facts{Hook: hook, Locks: []Lock{till}, Managers: []Process{apt}, Power: Power{OnBattery: true}},
			&Deferral{LowPower, "on battery with 0 %: want 40 % or mains; Locked: pid 7 apt-get is at work, it holds /var/lib/dpkg/lock; " +
				"AppLock: till-transaction, by pid 811 pos-till, 6m0s; lease ends 2026-11-21T02:20:00Z; HookDeferred: hook 10-open: the store is open", 30 * time.Minute}},
		"everything": {Facts{Space: []Space{full}, Snapshot: "s", Skew: time.Hour, Hook: hook},
			&Deferral{LowDisk, "file system /var needs 812.0 MiB, has 300.0 MiB free; SnapshotUnavailable: s; " +
				"ClockUnsure: the clock differs by 1h0m0s from those of its neighbours: at most 5m0s; HookDeferred: hook 10-open: the store is open", time.Hour}},
	} {
		c.f.Now = now
		if diff := cmp.Diff(c.want, Decide(c.f, DefaultLimits())); diff != "" {
			t.Errorf("%s:\n%s", what, diff)
		}
	}
}

func TestJudge(t *testing.T) {
	written := now.Add(-10 * time.Minute)
	holder := &Process{PID: 9, Name: "till", Since: now.Add(-5 * time.Minute), File: "f"}
	old := &Process{PID: 9, Name: "till", Since: now.Add(-5 * time.Hour)}
	for what, c := range map[string]struct {
		text    string
		written time.Time
		holder  *Process
		dead    bool
		want    *Lock
		note    bool
	}{
		"left behind by flock":               {"", written, nil, false, nil, false},
		"held":                               {"", written, holder, false, &Lock{Name: "f", Who: "till", PID: 9, Since: holder.Since}, false},
		"held and garbled":                   {"hello", written, holder, false, &Lock{Name: "f", Who: "till", PID: 9, Since: holder.Since}, false},
		"held by what runs for long":         {"", written, old, false, &Lock{Name: "f", Who: "till", PID: 9, Since: written}, false},
		"held with an end":                   {"2026-11-21T02:01:00Z till cards", written, holder, false, &Lock{Name: "f", Who: "till", Why: "cards", PID: 9, Since: holder.Since, Until: now.Add(time.Minute)}, false},
		"held past its end":                  {"2026-11-21T02:00:00Z till cards", written, holder, false, nil, true},
		"lease":                              {"2026-11-21T02:01:00Z till card batch", written, nil, false, &Lock{Name: "f", Who: "till", Why: "card batch", Since: written, Until: now.Add(time.Minute)}, false},
		"lease in seconds":                   {"@1795226460 till", written, nil, false, &Lock{Name: "f", Who: "till", Since: written, Until: time.Unix(1795226460, 0)}, false},
		"lease that ended":                   {"2026-11-21T02:00:00Z till", written, nil, false, nil, false},
		"lease for ever":                     {"2099-01-01T00:00:00Z till", written, nil, false, &Lock{Name: "f", Who: "till", Since: written, Until: written.Add(MaxLease)}, false},
		"lease for ever, of the day before":  {"2099-01-01T00:00:00Z till", now.Add(-MaxLease), nil, false, nil, false},
		"lease of a process":                 {"2026-11-21T02:01:00Z till:9 x", written, nil, false, &Lock{Name: "f", Who: "till", Why: "x", PID: 9, Since: written, Until: now.Add(time.Minute)}, false},
		"lease of a process that is no more": {"2026-11-21T02:01:00Z till:9 x", written, nil, true, nil, true},
		"garbled":                            {"hello", written, nil, false, nil, true},
		"nobody's":                           {"2026-11-21T02:01:00Z", written, nil, false, nil, true},
	} {
		l, err := parseLine([]byte(c.text))
		got, note := judge("f", l, err, c.written, c.holder, func(int, time.Time) bool { return !c.dead }, now)
		if diff := cmp.Diff(c.want, got); diff != "" || (note != "") != c.note {
			t.Errorf("%s: note %q\n%s", what, note, diff)
		}
	}
}

func FuzzLock(f *testing.F) {
	f.Add([]byte("@1795226460 till:811 card batch\nmore"))
	f.Add([]byte("2026-11-21T02:01:00Z t"))
	f.Add([]byte("\xff\x00 a:b"))
	f.Add([]byte("@1797000000 :1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLine(b)
		k, _ := judge("f", l, err, now, nil, func(int, time.Time) bool { return true }, now)
		if k != nil && (k.Until.After(now.Add(MaxLease)) || !k.Until.After(now) || k.Who == "") {
			t.Fatalf("%q: %+v", b, k)
		}
		if k != nil && k.retry(now) <= 0 {
			t.Fatalf("%q: asked again after %s", b, k.retry(now))
		}
	})
}

func TestHookSays(t *testing.T) {
	for out, want := range map[string]struct {
		said  string
		retry time.Duration
	}{
		"":                                  {"", retryHook},
		"a\nb \n\n":                         {"b", retryHook},
		"a\nretry-after: 600\n":             {"a", 10 * time.Minute},
		"Retry-After:600\na":                {"a", 10 * time.Minute},
		"retry-after: 1\n":                  {"", retryLeast},
		"retry-after: 99999999\nx":          {"x", maxRetry},
		"retry-after: -5\nx":                {"x", retryHook},
		"retry-after: soon\nx":              {"x", retryHook},
		"\x1b[31mred\xff\n":                 {"[31mred?", retryHook},
		"retry-after: 60\nretry-after: 120": {"", 2 * time.Minute},
	} {
		if said, retry := hookSays([]byte(out)); said != want.said || retry != want.retry {
			t.Errorf("%q: %q, %s", out, said, retry)
		}
	}
}

func FuzzHookSays(f *testing.F) {
	f.Add([]byte("why\nretry-after: 600\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		said, retry := hookSays(b)
		if len(said) > maxReason || retry < retryLeast || retry > maxRetry {
			t.Fatalf("%q, %s", said, retry)
		}
	})
}

func TestFileLists(t *testing.T) {
	for l, want := range map[string]struct {
		name string
		size int64
		ok   bool
	}{
		"-rw-r--r-- root/root        12 2026-01-01 00:00 ./usr/share/a b":  {"./usr/share/a b", 12, true},
		"drwxr-xr-x root/root         0 2026-01-01 00:00 ./usr/":           {"./usr/", 0, true},
		"lrwxrwxrwx root/root         0 2026-01-01 00:00 ./lib -> usr/lib": {"./lib", 0, true},
		"hrw-r--r-- root/root         0 2026-01-01 00:00 ./b link to ./a":  {"./b", 0, true},
		"crw-r--r-- root/root       1,3 2026-01-01 00:00 ./dev/null":       {"./dev/null", 0, true},
		"":        {"", 0, false},
		"a b c d": {"", 0, false},
	} {
		if name, size, ok := parseDeb(l); name != want.name || size != want.size || ok != want.ok {
			t.Errorf("%q: %q, %d, %t", l, name, size, ok)
		}
	}
	if name, size, ok := parseRPM("12 /usr/share/a b"); name != "/usr/share/a b" || size != 12 || !ok {
		t.Errorf("%q, %d, %t", name, size, ok)
	}
	for _, l := range []string{"", "12", "x /a", "-1 /a"} {
		if _, _, ok := parseRPM(l); ok {
			t.Errorf("%q is accepted", l)
		}
	}
}

func FuzzFileLists(f *testing.F) {
	f.Add("-rw-r--r-- root/root 12 2026-01-01 00:00 ./usr/share/a")
	f.Add("12 /usr/share/a")
	f.Fuzz(func(t *testing.T, l string) {
		if _, size, ok := parseDeb(l); ok && size < 0 {
			t.Fatal(size)
		}
		if _, size, ok := parseRPM(l); ok && size < 0 {
			t.Fatal(size)
		}
	})
}
