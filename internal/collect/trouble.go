package collect

import (
	"regexp"
	"strings"

	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// What the tools say, in the words of apt 2.6 and dnf 4.14. The order counts: what cannot be reached has no signature
// either.
var (
	saysUnreachable = regexp.MustCompile(`(?i)could not connect|unable to connect|could not resolve|temporary failure resolving|connection (failed|refused|timed out)|couldn't connect|timeout was reached|network is unreachable`)
	saysUntrusted   = regexp.MustCompile(`(?i)NO_PUBKEY|BADSIG|EXPKEYSIG|REVKEYSIG|is not signed|GPG error|signatures? (couldn't|were invalid|verification)|not valid yet|is expired|GPG check FAILED|bad GPG signature|is not signed|cannot be authenticated|no digest|key.* not.* installed`)
	saysChecksum    = regexp.MustCompile(`(?i)hash sum mismatch|unexpected size|incorrect checksum|checksum doesn't match`)
	saysNoRelease   = regexp.MustCompile(`(?i)does not have a release file|doesn't have the component|doesn't support architecture|status code: 404|404  not found|file not found|couldn't open file|error 37`)
	saysMalformed   = regexp.MustCompile(`(?i)malformed|list of sources could not be read`)
	saysUnknown     = regexp.MustCompile(`(?m)(?:Unable to locate package |No match for argument: |Package '?)([^\s']+)(?:'? has no installation candidate)?$`)
)

// said is all that a program said. The two streams stand one after the other: as they came, a line of one could end in
// the middle of a line of the other.
func said(res tool.Result) string { return string(res.Stdout) + "\n" + string(res.Stderr) }

// updateProblem says what was wrong with the sources; nil: nothing.
func updateProblem(res tool.Result) error {
	text := said(res)
	lines := complaints(text)
	if res.Exit == 0 && !saysNoRelease.MatchString(lines) {
		return nil
	}
	p := problem.New(problem.InvalidFile, "the sources cannot be used: %s", lines)
	switch {
	case saysUnreachable.MatchString(text):
		p = problem.New(problem.SourceUnreachable, "a source cannot be reached: %s", lines).WithNext("check the network and the proxy (http_proxy)")
	case saysChecksum.MatchString(text):
		p = problem.New(problem.ChecksumMismatch, "a source is damaged, or changes just now: %s", lines).WithNext("try again in a while")
	case saysUntrusted.MatchString(text):
		p = problem.New(problem.SignatureInvalid, "a source has no good signature: %s", lines).
			WithNext("give the distribution's key with signed-by or --key, from a place you trust")
	case saysNoRelease.MatchString(text):
		p = problem.New(problem.NotFound, "a source has no such release, component or architecture: %s", lines).WithNext("correct the source")
	case saysMalformed.MatchString(text):
		p = problem.New(problem.Usage, "a source is not understood: %s", lines)
	}
	return p.WithDone("nothing was collected")
}

// resolveProblem says why no answer was found for a list.
func resolveProblem(list string, res tool.Result) error {
	text := said(res)
	if m := saysUnknown.FindStringSubmatch(text); m != nil {
		return unknownName(m[1])
	}
	return problem.New(problem.NotClosed, "%s: the sources do not resolve: %s", list, complaints(text)).
		WithDone("nothing was collected").WithNext("complete the list or the sources, or name fewer packages with --only")
}

// downloadProblem says why packages did not come.
func downloadProblem(res tool.Result) error {
	if res.Exit == 0 {
		return problem.New(problem.SignatureInvalid, "packages cannot be authenticated: %s", complaints(said(res))).WithDone("nothing was collected")
	}
	return updateProblem(res)
}

// complaints are the lines in which a tool speaks of what is wrong, at most ten.
func complaints(text string) string {
	var out []string
	unmet := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		unmet = unmet && strings.HasPrefix(line, " ") || strings.Contains(line, "unmet dependencies")
		if len(out) < 10 && (unmet && strings.HasPrefix(line, " ") || strings.HasPrefix(line, "E: ") || strings.HasPrefix(line, "W: ") || strings.HasPrefix(strings.ToLower(line), "error") ||
			strings.HasPrefix(line, "  - ") || strings.HasPrefix(line, " Problem") || strings.Contains(line, "FAILED")) {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	if len(out) == 0 {
		lines := strings.Split(strings.TrimSpace(text), "\n")
		out = lines[max(0, len(lines)-3):]
	}
	return strings.Join(out, "; ")
}

// sameSystem refuses this machine's own sources for another system.
func (o *Options) sameSystem() error {
	if t := o.Target; t.OS != o.Here.OS || t.Release != o.Here.Release && t.Release != manifest.Any {
		return problem.New(problem.Usage, "this machine is %s-%s: its own sources are not those of %s-%s", o.Here.OS, o.Here.Release, t.OS, t.Release).
			WithDone("nothing was collected").WithNext("give the sources with --source or --sources")
	}
	return nil
}
