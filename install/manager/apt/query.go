package apt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// queryFormat has dpkg-query say one line for each package it knows.
const queryFormat = "${db:Status-Want}\t${db:Status-Eflag}\t${db:Status-Status}\t${binary:Package}\t${Architecture}\t${Version}\n"

// Installed lists dpkg's database, with apt's marks.
func (m *Manager) Installed(ctx context.Context) ([]packages.Installed, error) {
	have, _, err := m.installed(ctx)
	return have, err
}

// installed returns also the machine's own architecture.
func (m *Manager) installed(ctx context.Context) ([]packages.Installed, string, error) {
	arch, err := m.dpkg(ctx, "--print-architecture")
	if err != nil {
		return nil, "", cut(err, arch)
	}
	res, err := m.c.Runner.Run(ctx, tool.Command{Path: "dpkg-query", Args: []string{"--admindir=" + m.path("var/lib/dpkg"), "-W", "-f=" + queryFormat}})
	if err != nil {
		return nil, "", cut(err, res)
	}
	if arch.Exit != 0 || res.Exit != 0 {
		return nil, "", &manager.Error{Kind: manager.Broken, Detail: "dpkg cannot read its database", Exit: res.Exit, Log: tail(append(arch.Both, res.Both...))}
	}
	marks, err := readFile(m.path(marksFile), maxStateBytes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("apt marks: %w", err)
	}
	native := strings.TrimSpace(string(arch.Stdout))
	have, err := parseInstalled(string(res.Stdout), parseMarks(string(marks)), native)
	if err != nil {
		return nil, "", &manager.Error{Kind: manager.Tool, Detail: err.Error(), Log: tail(res.Both)}
	}
	return have, native, nil
}

// parseInstalled reads what queryFormat had dpkg-query say. auto holds the packages of parseMarks.
func parseInstalled(text string, auto map[string]bool, native string) ([]packages.Installed, error) {
	var out []packages.Installed
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 6 {
			return nil, fmt.Errorf("line %q of dpkg-query has %d fields", line, len(f))
		}
		want, flag, status := f[0], f[1], f[2]
		if status == "not-installed" || status == "config-files" && flag == "ok" {
			continue
		}
		name, _, _ := strings.Cut(f[3], ":")
		p := packages.Installed{Name: name, Arch: f[4], Version: f[5], Held: want == "hold"}
		p.Auto = auto[identity(p.Name, p.Arch, native)]
		if status != "installed" {
			p.State = status
		}
		if flag != "ok" {
			p.State = strings.TrimPrefix(p.State+", "+flag, ", ")
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b packages.Installed) int { return strings.Compare(a.ID(), b.ID()) })
	return out, nil
}

// identity is what dpkg and apt know a package by: one for all architectures counts as one of the machine's own.
func identity(name, arch, native string) string {
	if arch == "all" {
		arch = native
	}
	return name + ":" + arch
}

// parseMarks reads extended_states: the packages that came in for others. What it does not understand it passes over,
// as apt does.
func parseMarks(text string) map[string]bool {
	auto := map[string]bool{}
	for stanza := range strings.SplitSeq(text, "\n\n") {
		field := map[string]string{}
		for line := range strings.Lines(stanza) {
			if k, v, ok := strings.Cut(line, ":"); ok {
				field[k] = strings.TrimSpace(v)
			}
		}
		if field["Auto-Installed"] == "1" {
			auto[field["Package"]+":"+field["Architecture"]] = true
		}
	}
	return auto
}

// Audit asks dpkg what is half done, and apt whether what each package needs is there. It looks for an empty output:
// dpkg --audit ends with status 0 whether or not it finds anything.
func (m *Manager) Audit(ctx context.Context) ([]string, error) {
	res, err := m.dpkg(ctx, "--audit")
	if err != nil {
		return nil, cut(err, res)
	}
	findings := parseAudit(string(res.Stdout))
	if res.Exit != 0 {
		findings = append(findings, "dpkg --audit: "+lastLine(res.Both))
	}
	if f := m.interrupted(); f != "" {
		findings = append(findings, f)
	}
	if err := m.configure(privateMarks); err != nil {
		return nil, err
	}
	res, err = m.run(ctx, "apt-get", "-s", "check")
	if err != nil {
		return nil, cut(err, res)
	}
	if res.Exit != 0 {
		findings = append(findings, classify(res).Detail)
	}
	return findings, nil
}

// interrupted says so when dpkg left a journal of status changes: apt reads the status without them.
func (m *Manager) interrupted() string {
	es, err := os.ReadDir(m.path("var/lib/dpkg/updates"))
	if err != nil {
		return ""
	}
	for _, e := range es {
		if strings.Trim(e.Name(), "0123456789") == "" {
			return "dpkg was interrupted: its journal is not empty"
		}
	}
	return ""
}

// parseAudit makes one line of each paragraph: what is wrong, and the names. Two kinds are left out, because they say
// nothing of whether a transaction was done: sums that an old package never had, and architectures.
func parseAudit(text string) []string {
	var out []string
	for part := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		var head string
		var names []string
		for line := range strings.Lines(part) {
			line = strings.TrimRight(line, "\n")
			if name, ok := strings.CutPrefix(line, " "); ok {
				names = append(names, strings.Fields(name + " ?")[0])
				continue
			}
			head += line + " "
		}
		if i := strings.IndexAny(head, ".,:"); i > 0 {
			head = head[:i]
		}
		head = strings.TrimPrefix(strings.TrimSpace(head), "The following ")
		if head == "" || strings.Contains(head, "md5sums control file") || strings.Contains(head, "architecture") {
			continue
		}
		out = append(out, head+": "+strings.Join(names, ", "))
	}
	return out
}

// onlyTriggers reports a finding of parseAudit that the next transaction settles by itself.
func onlyTriggers(finding string) bool {
	return strings.HasPrefix(finding, "packages are awaiting processing of triggers") || strings.HasPrefix(finding, "packages have been triggered")
}
