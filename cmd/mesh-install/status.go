package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/patchmesh/patchmesh/install"
)

// printStatus reads the state without the lock; it may run beside an apply.
func printStatus(c command, cfg install.Config, stdout, stderr io.Writer) int {
	st, err := install.ReadStatus(cfg)
	if err != nil {
		return finish(c, install.Unusable(err), stdout, stderr)
	}
	if c.json {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(st); err != nil {
			fmt.Fprintf(stderr, "mesh-install: status: %v\n", err)
		}
		return install.ExitDone
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BUNDLE\tVERSION\tSEQUENCE\tSINCE\tKEPT\tHELD BACK")
	for _, name := range slices.Sorted(maps.Keys(st.Installed.Bundles)) {
		b := st.Installed.Bundles[name]
		version, sequence, since, trial := "-", uint64(0), "-", "-"
		if b.Current != nil {
			version, sequence, since = b.Current.Version, b.Current.Sequence, b.Current.Since.UTC().Format(time.RFC3339)
		}
		if b.Trial != nil {
			trial = fmt.Sprintf("%.19s… %s, %d tries", b.Trial.Checksum, b.Trial.Reason, b.Trial.Attempts)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%s\n", name, version, sequence, since, len(b.Previous), trial)
	}
	if err := w.Flush(); err != nil {
		fmt.Fprintf(stderr, "mesh-install: status: %v\n", err)
	}
	for _, k := range st.Installed.Snapshots() {
		fmt.Fprintf(stdout, "snapshot: %s, of %s", k.Name, k.Taken.UTC().Format(time.RFC3339))
		if !k.Until.IsZero() {
			fmt.Fprintf(stdout, ", until %s", k.Until.UTC().Format(time.DateOnly))
		}
		fmt.Fprintln(stdout)
	}
	if st.Open != nil {
		fmt.Fprintf(stdout, "open: %s %s at %s, try %d; the next run goes on\n", st.Open.New.Bundle, st.Open.New.Version, st.Open.Step, st.Open.Attempt)
	}
	if st.Damage != "" {
		fmt.Fprintf(stdout, "damage: %s\n", st.Damage)
	}
	return install.ExitDone
}
