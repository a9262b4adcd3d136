package main

import (
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// Each code has a page that is printed without a seeder and without a daemon, however it is typed.
func TestExplain(t *testing.T) {
	o := &office{t: t, env: map[string]string{}}
	list := o.good("explain")
	for _, p := range problem.Pages() {
		if !strings.Contains(list, string(p.Code)+" ") {
			t.Errorf("%s is not in the list", p.Code)
		}
		for _, typed := range []string{string(p.Code), strings.ToLower(string(p.Code))} {
			got := strings.Join(strings.Fields(o.good("explain "+typed)), " ")
			if !strings.HasPrefix(got, string(p.Code)+": "+p.Title) || !strings.HasSuffix(got, strings.Join(strings.Fields(p.Text), " ")) {
				t.Errorf("explain %s:\n%s", typed, got)
			}
		}
	}
	if exit, _, errs := o.run("explain E9998"); exit != problem.ExitNotFound || !strings.Contains(errs, "meshctl explain") {
		t.Errorf("exit status %d: %s", exit, errs)
	}
}
