package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// What lint prints for a schedule, in the spring of New York.
func TestLint(t *testing.T) {
	const text = `apiVersion: patchmgmt.io/v1
kind: PatchPolicy
metadata: {name: pos}
spec:
  bundleRef: {version: "7", checksum: "sha256:9f2c0000000000000000000000000000000000000000000000000000000000aa"}
  targets: {selector: {matchLabels: {role: pos}}}
`
	for name, c := range map[string]struct {
		schedule string
		args     []string
		want     string
		exit     problem.Exit
	}{
		"none": {want: `policy pos is valid: default 7
windows  none: installs start as soon as the bundle is staged
`},
		"skipped and short": {schedule: `{maintenanceWindow: "Sun 02:00-03:00; Sun 01:30-03:30", timezone: America/New_York, startCutoffMinutes: 50}`,
			want: `policy pos is valid: default 7
windows  Sun 02:00-03:00; Sun 01:30-03:30 America/New_York
opens    Sun 2027-03-07 01:30 EST to 03:30 EST (2h0m0s, America/New_York)
opens    Sun 2027-03-14 01:30 EST to 03:30 EDT (1h0m0s, America/New_York)
opens    Sun 2027-03-21 01:30 EDT to 03:30 EDT (2h0m0s, America/New_York)
opens    Sun 2027-03-28 01:30 EDT to 03:30 EDT (2h0m0s, America/New_York)
warning[W1204]: Sun 02:00-03:00 does not exist in America/New_York on 2027-03-14 (clocks go forward); that day is skipped
warning[W1205]: Sun 01:30-03:30 lasts only 1h0m0s in America/New_York on 2027-03-14 (clocks go forward)
`},
		"too short to start": {schedule: `{maintenanceWindow: "Sun 01:00-03:00", timezone: America/New_York, startCutoffMinutes: 61}`,
			want: `policy pos is valid: default 7
windows  Sun 01:00-03:00 America/New_York
opens    Sun 2027-03-07 01:00 EST to 03:00 EST (2h0m0s, America/New_York)
opens    Sun 2027-03-21 01:00 EDT to 03:00 EDT (2h0m0s, America/New_York)
opens    Sun 2027-03-28 01:00 EDT to 03:00 EDT (2h0m0s, America/New_York)
opens    Sun 2027-04-04 01:00 EDT to 03:00 EDT (2h0m0s, America/New_York)
warning[W1205]: Sun 01:00-03:00 lasts only 1h0m0s in America/New_York on 2027-03-14 (clocks go forward), less than schedule.startCutoffMinutes: nothing starts
`},
		"each site's zone": {schedule: `{maintenanceWindow: "Sat 23:00-01:00", timezone: site}`,
			want: `policy pos is valid: default 7
windows  Sat 23:00-01:00 in the time zone of each site
opens    at another time in each zone: name the zones of your sites with --zone
`},
		"two sites' zones": {schedule: `{maintenanceWindow: "Daily 03:00-03:00", timezone: site, notBefore: 2027-03-14T00:00:00Z, blackouts: [{from: 2027-03-15, to: 2027-03-16}]}`,
			args: []string{"--zone", "Asia/Tokyo", "--zone", "Europe/Berlin"},
			want: `policy pos is valid: default 7
windows  Daily 03:00-03:00 in the time zone of each site
opens    Sun 2027-03-14 09:00 JST to Mon 2027-03-15 00:00 JST (15h0m0s, Asia/Tokyo)
opens    from Wed 2027-03-17 00:00 JST on
opens    Sun 2027-03-14 01:00 CET to Mon 2027-03-15 00:00 CET (23h0m0s, Europe/Berlin)
opens    from Wed 2027-03-17 00:00 CET on
warning[W1205]: Daily 03:00-03:00 lasts only 23h0m0s in Europe/Berlin on 2027-03-27 (clocks go forward)
`},
		"not valid":         {schedule: `{maintenanceWindow: "Tue 2:00am-4", timezone: UTC}`, exit: problem.ExitUsage},
		"zone that is none": {schedule: `{maintenanceWindow: "Tue 02:00-04:00", timezone: site}`, args: []string{"--zone", "Mars"}, exit: problem.ExitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "p.yaml")
			body := text
			if c.schedule != "" {
				body += "  schedule: " + c.schedule + "\n"
			}
			if err := os.WriteFile(file, []byte(body), 0o644); err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			env := cli.System()
			env.Args, env.Stdout, env.Stderr = append([]string{"lint", "-f", file}, c.args...), &out, &errs
			env.Now = func() time.Time { return time.Date(2027, 3, 6, 12, 0, 0, 0, time.UTC) }
			if exit := cli.Run(t.Context(), env, newRoot(env)); exit != c.exit {
				t.Fatalf("exit status %d\n%s", exit, errs.String())
			}
			if d := cmp.Diff(c.want, out.String()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if c.exit != 0 && name == "not valid" && !strings.Contains(errs.String(), "error[E1107]: "+file+":7:33: spec.schedule.maintenanceWindow") {
				t.Errorf("%s", errs.String())
			}
		})
	}
}
