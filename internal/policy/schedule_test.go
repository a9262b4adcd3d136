package policy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/window"
)

// scheduled is a policy with this schedule, written in one line of flow.
func scheduled(t testing.TB, fields string) []byte {
	t.Helper()
	return edit(t, "  rollback:", "  schedule: {"+fields+"}\n  rollback:")
}

func TestScheduleRefused(t *testing.T) {
	const zone = ", timezone: UTC"
	full := string(golden(t, "scheduled.yaml"))
	for _, c := range []struct {
		name, fields  string // of the schedule, or
		before, after string // an edit of the full one
		want          string
		code          problem.Code
	}{
		{name: "as in the operator's handbook", fields: `maintenanceWindow: "Tue 2:00am-4"` + zone, code: problem.InvalidWindow,
			want: `p.yaml:17:33: spec.schedule.maintenanceWindow: cannot read "Tue 2:00am-4": write it as Tue 02:00-04:00`},
		{name: "a guess at what was meant", fields: `maintenanceWindow: "Wed 10pm to 1am"` + zone, code: problem.InvalidWindow, want: "write it as Wed 22:00-01:00"},
		{name: "no window in it", fields: `maintenanceWindow: ""` + zone, code: problem.InvalidWindow, want: `cannot read ""`},
		{name: "window is null", fields: "maintenanceWindow: ~" + zone, want: "spec.schedule.maintenanceWindow must be a text"},
		{name: "window is a list", fields: "maintenanceWindow: [Tue 02:00-04:00]" + zone, want: "spec.schedule.maintenanceWindow must be a single value"},
		{name: "windows are one", fields: "maintenanceWindows: Tue 02:00-04:00" + zone, want: "spec.schedule.maintenanceWindows must be a list"},
		{name: "second of the list", fields: "maintenanceWindows: [Tue 02:00-04:00, Wed 2-4]" + zone, code: problem.InvalidWindow, want: `17:52: spec.schedule.maintenanceWindows[1]: cannot read "Wed 2-4"`},
		{name: "list of lists", fields: "maintenanceWindows: [[Tue 02:00-04:00]]" + zone, want: "spec.schedule.maintenanceWindows[0] must be a single value"},
		{name: "together too many", fields: "maintenanceWindows: [" + strings.TrimSuffix(strings.Repeat("Tue 02:00-04:00;Wed 02:00-04:00, ", 17), ", ") + "]" + zone, want: "more than 32 windows"},
		{name: "a long list", fields: "maintenanceWindows: [" + strings.Repeat("x,", 70) + "x]" + zone, want: "has 71 entries, at most 64"},
		{name: "no zone", fields: "maintenanceWindow: Tue 02:00-04:00", want: "17:33: spec.schedule.maintenanceWindow needs spec.schedule.timezone"},
		{name: "no zone for blackouts", fields: "blackouts: [{from: 2026-11-20, to: 2026-12-02}]", want: "17:25: spec.schedule.blackouts needs spec.schedule.timezone"},
		{name: "zone that is none", fields: "timezone: Mars/Olympus", want: `17:24: spec.schedule.timezone: time zone "Mars/Olympus" is not known`},
		{name: "each machine's zone", fields: "timezone: Local", want: `time zone "Local" is not known`},
		{name: "empty zone", fields: `timezone: ""`, want: `time zone "" is not known`},
		{name: "a zone elsewhere", fields: "timezone: ../../etc/passwd", want: "is not known"},
		{name: "blackout without an end", fields: "blackouts: [{from: 2026-11-20}]" + zone, want: "17:26: spec.schedule.blackouts[0] needs from and to"},
		{name: "blackout backwards", fields: "blackouts: [{from: 2026-11-20, to: 2026-11-19}]" + zone, want: "ends on 2026-11-19, before it begins on 2026-11-20"},
		{name: "blackout for ever", fields: "blackouts: [{from: 2026-11-20, to: 2036-11-19}]" + zone, want: "at most 366"},
		{name: "blackout by the hour", fields: "blackouts: [{from: 2026-11-20T08:00:00Z, to: 2026-11-21}]" + zone, want: `spec.schedule.blackouts[0].from "2026-11-20T08:00:00Z" is not a date: write it as 2026-11-20`},
		{name: "blackout misspelt", fields: "blackouts: [{from: 2026-11-20, until: 2026-11-21}]" + zone, want: "spec.schedule.blackouts[0].until is not a field"},
		{name: "blackout as a date", fields: "blackouts: [2026-11-20]" + zone, want: "spec.schedule.blackouts[0] must be a mapping"},
		{name: "blackout by alias", fields: "blackouts: [{from: &d 2026-11-20, to: *d}]" + zone, want: "uses an anchor or an alias"},
		{name: "not before a date", fields: "notBefore: 2026-11-20", want: `spec.schedule.notBefore "2026-11-20" is not a time: write it as 2026-11-20T02:00:00Z`},
		{name: "not before a local time", fields: "notBefore: 2026-11-20T02:00:00", want: "is not a time"},
		{name: "cut-off without window", fields: "startCutoffMinutes: 20", want: "spec.schedule.startCutoffMinutes is about windows, and there is none"},
		{name: "deferrals without window", fields: "maxDeferrals: 4", want: "spec.schedule.maxDeferrals is about windows, and there is none"},
		{name: "cut-off of nothing", fields: "startCutoffMinutes: 0", want: "is not a number of minutes"},
		{name: "cut-off takes all", fields: "maintenanceWindow: Tue 02:00-04:00, startCutoffMinutes: 120" + zone,
			want: "spec.schedule.startCutoffMinutes is 2h0m0s and must be less than spec.schedule.maintenanceWindow, of which the shortest is 2h0m0s"},
		{name: "deadline in words", fields: "deadline: {after: a month}", want: `spec.schedule.deadline.after "a month" is not a time from 1m to 366d: write it as 30d, 36h or 90m`},
		{name: "deadline below nothing", fields: "deadline: {after: -1h}", want: "is not a time"},
		{name: "deadline with a sign", fields: "deadline: {after: 1d+2h}", want: "is not a time"},
		{name: "deadline of a second", fields: "deadline: {after: 1s}", want: "is not a time"},
		{name: "deadline beyond", fields: "deadline: {after: 367d}", want: "is not a time"},
		{name: "deadline that overflows", fields: "deadline: {after: 65535d2562047h}", want: "is not a time"},
		{name: "action that is none", fields: "deadline: {after: 30d, action: Panic}", want: `spec.schedule.deadline.action "Panic" is not one of Alert, RunAnytime`},
		{name: "action that never comes", fields: "deadline: {action: RunAnytime}", want: "spec.schedule.deadline.action never comes to pass: give spec.schedule.deadline.after or spec.schedule.maxDeferrals"},

		{name: "healthy for longer than asked", before: "healthyForSeconds: 30", after: "healthyForSeconds: 90",
			want: "spec.rollback.healthyForSeconds is 1m30s and must be less than spec.rollback.healthCheckTimeoutSeconds, which is 1m30s"},
		{name: "asked for longer than the window", before: `"Mon 23:00-01:00"`, after: `"Mon 23:00-23:01"`,
			want: "29:32: spec.rollback.healthCheckTimeoutSeconds is 1m30s and must be less than spec.schedule.maintenanceWindow, of which the shortest is 1m0s"},
		{name: "no snapshot, and not meant", before: "required: false", after: "required: true", want: "spec.rollback.snapshot.provider none needs spec.rollback.snapshot.required: false"},
		{name: "provider that is none", before: "provider: none", after: "provider: zfs", want: `spec.rollback.snapshot.provider "zfs" is not one of auto, btrfs`},
		{name: "reboot that is none", before: "reboot: IfRequired", after: "reboot: Always", want: `spec.reboot "Always" is not one of Never, IfRequired`},
		{name: "no snapshots kept", before: "keep: 3", after: "keep: 0", want: "is not a number of snapshots from 1 to 100"},
		{name: "downgrade as a word", before: "allowDowngrade: true", after: "allowDowngrade: yes", want: "is not true or false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := []byte(strings.Replace(full, c.before, c.after, 1))
			if c.fields != "" {
				text = scheduled(t, c.fields)
			} else if !strings.Contains(full, c.before) {
				t.Fatalf("%q is not in the policy", c.before)
			}
			p, err := policy.ParseFile("p.yaml", text)
			if err == nil {
				t.Fatalf("accepted as %+v", p.Schedule)
			}
			want := c.want
			if want[0] >= '0' && want[0] <= '9' {
				want = "p.yaml:" + want
			}
			if !strings.Contains(err.Error(), want) {
				t.Errorf("message %q\nlacks    %q", err, want)
			}
			code := c.code
			if code == "" {
				code = problem.InvalidPolicy
			}
			if got := problem.CodeOf(err); got != code {
				t.Errorf("code %s, want %s", got, code)
			}
		})
	}
}

func TestScheduleAccepted(t *testing.T) {
	for fields, want := range map[string]policy.Schedule{
		"notBefore: null":              {},
		"maintenanceWindows: []":       {},
		"blackouts: [], timezone: UTC": {Zone: "UTC"},
		"deadline: {after: 1d12h}":     {Deadline: 36 * time.Hour},
		"deadline: {after: 90m}":       {Deadline: 90 * time.Minute},
		"maintenanceWindow: Daily 22:00-22:00, timezone: site, maxDeferrals: 1, deadline: {action: RunAnytime}": {
			Windows: "Daily 22:00-22:00", Zone: "site", MaxDeferrals: 1, RunAnytime: true},
	} {
		p, err := policy.Parse(scheduled(t, fields))
		if err != nil || fmt.Sprintf("%+v", p.Schedule) != fmt.Sprintf("%+v", want) {
			t.Errorf("%s: %+v, %v", fields, p, err)
		}
	}
}

func TestOwnersSample(t *testing.T) {
	p, err := policy.Parse(golden(t, "sample.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]bool{"2026-11-24T06:59:59Z": false, "2026-11-24T07:00:00Z": true, "2026-11-24T08:59:59Z": true, "2026-11-24T09:00:00Z": false} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := p.Schedule.Decide(now, nil); err != nil || v.Start != want {
			t.Errorf("at %s: %+v, %v", at, v, err)
		}
	}
}

func TestDecide(t *testing.T) {
	chicago, err := policy.LoadZone("America/Chicago")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC) // 03:00 in Chicago
	s := policy.Schedule{Windows: "Tue 02:00-04:00", Zone: policy.ZoneSite}
	if v, err := s.Decide(now, chicago); err != nil || !v.Start {
		t.Errorf("in the site's zone: %+v, %v", v, err)
	}
	if v, err := s.Decide(now, nil); !errors.Is(err, policy.ErrNoSiteZone) || v.Start {
		t.Errorf("the site has no zone: %+v, %v", v, err)
	}
	if v, err := (policy.Schedule{}).Decide(now, nil); err != nil || !v.Start {
		t.Errorf("no schedule: %+v, %v", v, err)
	}
	s = policy.Schedule{Windows: "Tue 02:00-04:00", Zone: "UTC", Cutoff: time.Hour, Blackouts: []policy.Blackout{{From: "2026-11-25", To: "2026-11-25"}}}
	if v, err := s.Decide(now, nil); err != nil || v.Start || v.Reason != window.Closed {
		t.Errorf("in UTC: %+v, %v", v, err)
	}
	if v, err := s.Anytime().Decide(now, nil); err != nil || !v.Start {
		t.Errorf("at any time: %+v, %v", v, err)
	}
	if v, err := s.Anytime().Decide(now.AddDate(0, 0, 1), nil); err != nil || v.Start || v.Reason != window.Blackout {
		t.Errorf("at any time, in a blackout: %+v, %v", v, err)
	}
}
