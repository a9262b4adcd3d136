package apt

import (
	"bytes"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/tool"
)

// signs are the words by which apt and dpkg tell why they failed, the more telling kinds first. Runner sets the
// language. Nothing depends on them but the kind: whether it failed is known from the exit status and from Judge.
var signs = []struct {
	kind  manager.Kind
	words []string
}{
	{manager.Space, []string{"No space left on device", "enough free space in", "Disk quota exceeded"}},
	{manager.Busy, []string{"Could not get lock", "Unable to acquire the dpkg frontend lock", "Unable to lock", "was locked by another process", "is locked by another process"}},
	{manager.Broken, []string{"dpkg was interrupted", "--fix-broken install", "needs to be reinstalled, but", "The package lists or status file could not be parsed"}},
	{manager.Refused, []string{"Packages need to be removed but remove is disabled", "Packages were downgraded and -y was used", "Held packages were changed and -y was used",
		"Essential packages were removed and -y was used", "Removing essential system-critical packages is not permitted"}},
	{manager.Untrusted, []string{"Hash Sum mismatch", "unexpected size", "is not signed", "signatures couldn't be verified", "signatures were invalid", "not signed by",
		"GPG error", "could not be authenticated", "There were unauthenticated packages", "Clearsigned file isn't valid", "does not have a Release file", "Splitting up",
		"No good signature", "Insufficient information available to perform this download securely", "Unable to find expected entry"}},
	{manager.Script, []string{"script subprocess returned error exit status", "script subprocess was killed", "subprocess returned error exit status"}},
	{manager.Unresolved, []string{"unmet dependencies", "Unable to correct problems", "Unable to locate package", "was not found", "has no installation candidate", "File not found",
		"Unable to correct dependencies", "dependency problems"}},
	{manager.Cut, []string{"received signal", "exited unexpectedly", "received a segmentation fault"}},
}

// classify makes an error of what a program said that ended with a status other than 0. What scripts print counts only
// where neither apt nor dpkg gave a reason.
func classify(res tool.Result) *manager.Error {
	lines := reasons(res)
	text := strings.Join(lines, "\n")
	if text == "" {
		text = string(res.Both)
		lines = []string{lastLine(res.Both)}
	}
	const most = 6
	if len(lines) > most {
		lines = append(lines[:most], "…")
	}
	e := &manager.Error{Kind: manager.Tool, Detail: strings.Join(lines, "; "), Exit: res.Exit, Log: tail(res.Both)}
	// apt says this itself in the end when dpkg was at work, unless it was killed: then a lock that somebody speaks of is one
	// that a script met, and the machine was touched.
	begun := res.Exit < 0 || bytes.Contains(res.Stderr, []byte("E: Sub-process "))
	for _, s := range signs {
		if s.kind == manager.Busy && begun {
			continue
		}
		if slices.ContainsFunc(s.words, func(w string) bool { return strings.Contains(text, w) }) {
			e.Kind = s.kind
			return e
		}
	}
	if res.Exit < 0 {
		e.Kind = manager.Cut
	}
	return e
}

// reasons are the lines that name the trouble: the packages under "unmet dependencies", and errors, each with the line
// that says why.
func reasons(res tool.Result) []string {
	out := unmet(string(res.Stdout))
	lines := strings.Split(string(res.Stderr), "\n")
	for i, line := range lines {
		if !says(line) {
			continue
		}
		if i+1 < len(lines) && strings.HasPrefix(lines[i+1], " ") {
			line += lines[i+1]
		}
		out = append(out, strings.TrimSpace(line))
	}
	return out
}

// unmet are the lines below "The following packages have unmet dependencies:", which are indented.
func unmet(text string) []string {
	var out []string
	_, text, _ = strings.Cut(text, "have unmet dependencies:\n")
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, " ") {
			break
		}
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return out
}

// says reports a line in which apt or dpkg itself, not a script, speaks of an error.
func says(line string) bool {
	return strings.HasPrefix(line, "E: ") || strings.HasPrefix(line, "dpkg: error") || strings.HasPrefix(line, "dpkg: unrecoverable") || strings.HasPrefix(line, "dpkg-deb: error")
}

// unread are the lines that say that apt could not read all of a repository, whatever its status.
func unread(res tool.Result) []string {
	return linesOf(res.Stderr, "E: ", "W: Failed to fetch", "W: Some index files failed", "W: GPG error", "W: An error occurred")
}

// complaints are the lines in which apt or dpkg says that a package failed, whatever the status. The words are long,
// because a script may say "E: …" of what does not matter.
func complaints(res tool.Result) []string {
	return linesOf(res.Stderr, "dpkg: error processing ", "E: Sub-process ", "E: Failed to fetch ")
}

func linesOf(b []byte, beginnings ...string) []string {
	var out []string
	for line := range strings.Lines(string(b)) {
		if slices.ContainsFunc(beginnings, func(p string) bool { return strings.HasPrefix(line, p) }) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

func lastLine(both []byte) string {
	lines := strings.Split(strings.TrimSpace(string(both)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// tail is the end of what a program said, from the beginning of a line.
func tail(both []byte) string {
	if len(both) > manager.MaxLog {
		both = both[len(both)-manager.MaxLog:]
		if i := bytes.IndexByte(both, '\n'); i >= 0 {
			both = both[i+1:]
		}
	}
	return strings.ToValidUTF8(string(both), "?")
}
