package managertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// attempt is one order carried out as the executor does it: plan, apply, and then a look at the machine itself.
type attempt struct {
	before, after []packages.Installed
	plan          manager.Plan
	out           manager.Output
	err           error
	planned       bool // err, if any, is of Apply or Repair
	findings      []string
}

// runner is one for a test, marked with its name. The mark must be no other process's: what carries it is killed.
func runner(t testing.TB, env ...string) tool.Runner {
	id := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return '-'
	}, t.Name())
	return tool.Runner{ID: fmt.Sprintf("%s-%d", id, os.Getpid()), Env: env}
}

func installed(t testing.TB, m manager.Manager) []packages.Installed {
	t.Helper()
	have, err := m.Installed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return have
}

// carryOut does an order. ctx is that of Apply.
func carryOut(ctx context.Context, t testing.TB, m manager.Manager, o manager.Order) attempt {
	t.Helper()
	a := attempt{before: installed(t, m)}
	if a.plan, a.err = m.Plan(t.Context(), o); a.err == nil {
		a.planned = true
		a.out, a.err = m.Apply(ctx, o, a.plan)
	}
	a.look(t, m, o)
	return a
}

// look fills in what there is afterwards, and what is to be said of it.
func (a *attempt) look(t testing.TB, m manager.Manager, o manager.Order) {
	t.Helper()
	a.after, a.findings = installed(t, m), nil
	if a.planned {
		a.findings = manager.Judge(a.before, a.after, o.List, a.plan, o.AllowDowngrade)
	}
	audit, err := m.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a.findings = append(a.findings, audit...)
}

// good reports success as the executor understands it.
func (a *attempt) good() bool {
	return a.err == nil && len(a.findings) == 0 && len(a.out.Complain) == 0
}

func (a *attempt) kind() manager.Kind {
	var e *manager.Error
	if errors.As(a.err, &e) {
		return e.Kind
	}
	return ""
}

// says is what patchmesh would report, on one line.
func (a *attempt) says() string {
	var s []string
	var e *manager.Error
	switch {
	case errors.As(a.err, &e):
		s = append(s, map[bool]string{false: "not begun", true: "failed"}[a.planned]+": "+string(e.Kind)+": "+e.Detail)
	case a.err != nil:
		s = append(s, "failed: "+a.err.Error())
	case a.good() && a.plan.Empty():
		s = append(s, "nothing to do")
	case a.good():
		s = append(s, "done")
	default:
		s = append(s, "failed")
	}
	for _, k := range a.plan.Kept {
		s = append(s, "kept "+k.Name+" "+k.Version+" ("+k.Why+")")
	}
	if len(a.out.Complain) > 0 {
		s = append(s, "the tool said: "+a.out.Complain[0])
	}
	if len(a.findings) > 0 {
		s = append(s, fmt.Sprintf("%d findings, the first: %s", len(a.findings), a.findings[0]))
	}
	return strings.ReplaceAll(strings.Join(append(s, state(a.after)), "; "), "|", "/")
}

// versions is what is installed, by name; a bad state stands behind the version.
func versions(have []packages.Installed) map[string]string {
	out := map[string]string{}
	for _, p := range have {
		v := p.Version
		if p.State != "" {
			v += " " + p.State
		}
		out[p.Name] = strings.TrimPrefix(out[p.Name]+" and "+v, " and ")
	}
	delete(out, basePackage)
	return out
}

// state is the same on one line.
func state(have []packages.Installed) string {
	var s []string
	for name, v := range versions(have) {
		s = append(s, name+" "+v)
	}
	slices.Sort(s)
	return "[" + strings.Join(s, ", ") + "]"
}

// basePackage may be in a machine of a bed beside what a test asked for.
const basePackage = "tinybase"
