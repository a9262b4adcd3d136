package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/plan"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/seeder/gitops"
)

// planOffline plans files against what is in force by saved states and directories, and asks nobody. Where several speak
// of the same site or policy the last one counts: a state for the nodes, and a directory for the policies of a branch.
func planOffline(env cli.Env, files, against []string, prune bool) (*plan.Plan, error) {
	texts, err := readPolicies(env, files)
	if err != nil {
		return nil, err
	}
	w := plan.World{Now: env.Now(), Unpublished: true, Missing: func(string, manifest.Digest) int64 { return 0 }}
	for _, path := range against {
		info, err := os.Stat(path)
		switch {
		case err != nil:
		case info.IsDir():
			err = addDirectory(env, &w, path)
		default:
			err = addState(&w, path)
		}
		if err != nil {
			return nil, offlineProblem(path, err)
		}
	}
	var given []plan.File
	for _, t := range texts {
		p, err := policy.ParseFile(t.file, t.text)
		if err != nil {
			return nil, err
		}
		given = append(given, plan.File{File: t.file, Text: string(t.text), Policy: p})
	}
	return plan.Compute(w, given, prune), nil
}

func offlineProblem(path string, err error) error {
	var p *problem.Error
	if errors.As(err, &p) {
		return err
	}
	return problem.New(problem.InvalidFile, "--offline %s", path).Because(err).WithNext("give a file of meshctl diff --save-state, or a directory with policies")
}

// addDirectory takes the policies of a directory as those in force, and its sites. It is laid out as the Git repository
// that a seeder follows, or holds nothing but policies.
func addDirectory(env cli.Env, w *plan.World, dir string) error {
	policies := filepath.Join(dir, policy.GitDirectory)
	if info, err := os.Stat(policies); err != nil || !info.IsDir() {
		policies = dir
	}
	texts, err := readPolicies(env, []string{policies})
	if err != nil {
		return err
	}
	for _, t := range texts {
		if err := inForceIs(w, t.file, string(t.text)); err != nil {
			return err
		}
	}
	names, err := filepath.Glob(filepath.Join(dir, "sites", "*.yaml"))
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := readLimited(env, name, maxSiteFile)
		if err != nil {
			return err
		}
		s, err := gitops.ParseSite(strings.TrimSuffix(filepath.Base(name), ".yaml"), b)
		if err != nil {
			return err
		}
		site := siteIn(w, s.Name)
		if zone, err := policy.LoadZone(s.Timezone); err == nil && s.Timezone != "" {
			site.Zone = zone
		}
		if d := s.Profile(); d != nil {
			if site.WAN, err = d.Profile(); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxSiteFile is more than a file of a site may have.
const maxSiteFile = 64 << 10

// siteIn is a site of the world, which is added where there is none of that name.
func siteIn(w *plan.World, name string) *plan.Site {
	i := slices.IndexFunc(w.Sites, func(s plan.Site) bool { return s.Name == name })
	if i < 0 {
		w.Sites, i = append(w.Sites, plan.Site{Name: name}), len(w.Sites)
	}
	return &w.Sites[i]
}

// inForceIs puts a policy in the place of the one of its name.
func inForceIs(w *plan.World, file, text string) error {
	p, err := policy.ParseFile(file, []byte(text))
	if err != nil {
		return err
	}
	w.InForce = slices.DeleteFunc(w.InForce, func(f plan.File) bool { return f.Policy.Name == p.Name })
	w.InForce = append(w.InForce, plan.File{File: file, Text: text, Policy: p})
	return nil
}

// offlineNote says what a plan that asked nobody leaves open.
func offlineNote(w io.Writer, p *plan.Plan) {
	nodes := 0
	for _, c := range p.Changes {
		nodes += c.Nodes + c.NodesWere
	}
	if nodes == 0 {
		fmt.Fprintln(w, "no node is known here: fields only; with a saved state it says more (meshctl diff --save-state FILE)")
	}
}
