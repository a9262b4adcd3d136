package dnf

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/tool"
)

// maxComplaints bounds Output.Complain; one is enough to make a transaction fail.
const maxComplaints = 50

// complain is how rpm and dnf speak of what went wrong while the status is 0: a script that failed after the files were
// in place (rpm: "%post(a-1-1.noarch) scriptlet failed, exit status 1", "lua script failed"; dnf: "Error in POSTIN
// scriptlet in rpm package a", of older ones "Non-fatal POSTIN scriptlet failure"). A script that prints "error" itself
// and succeeds has succeeded.
var complain = regexp.MustCompile(`(?i)scriptlet failed|scriptlet failure|error in <?\w+>? scriptlet|lua script failed|failed to exec scriptlet|error unpacking rpm|unpacking of archive failed`)

func complaints(said []byte) (out []string) {
	for line := range bytes.Lines(said) {
		line = bytes.TrimSpace(line[bytes.LastIndexByte(bytes.TrimRight(line, "\r\n"), '\r')+1:])
		if complain.Match(line) && len(out) < maxComplaints {
			out = append(out, strings.ToValidUTF8(string(line), "?"))
		}
	}
	return out
}

// kinds are the words by which an error of dnf or rpm is known, in the order in which they count.
var kinds = []struct {
	kind manager.Kind
	re   *regexp.Regexp
}{
	{manager.Busy, regexp.MustCompile(`already locked by|can't create transaction lock|cannot acquire lock|is locked by another`)},
	{manager.Space, regexp.MustCompile(`more space (needed )?on the|needs \d+.* on the \S+ filesystem|more inodes|No space left on device|Disk quota exceeded`)},
	{manager.Script, regexp.MustCompile(`(?i)scriptlet failed|error in <?\w+>? scriptlet|lua script failed|scriptlet failure`)},
	{manager.Broken, regexp.MustCompile(`(?i)rpmdb: |database disk image is malformed|cannot open packages database|loading rpmdb|rpmdb open failed|damaged header|rpmdbNextIterator`)},
	{manager.Untrusted, regexp.MustCompile(`GPG check FAILED|is not signed|ha(s|ve) incorrect checksum|[Cc]hecksum (doesn't|does not) match|Failed to (download|synchronize|load|parse) |repomd\.xml|is not correct\. Package|digests? .*(BAD|NOT OK)|not an rpm package`)},
	{manager.Refused, regexp.MustCompile(`protected packages|would result in removing|conflicts (between attempted|with file from)`)},
	{manager.Unresolved, regexp.MustCompile(`nothing provides|conflicting requests|Unable to find a match|No match for argument|Depsolve Error|is needed by|cannot install (the best|both)|filtered out by|does not belong to a distupgrade|requires .* but none`)},
}

// running is the line with which dnf begins to change the machine.
var running = regexp.MustCompile(`(?m)^Running transaction\s*$`)

// failure says what a run with a status other than 0 means.
func failure(res tool.Result) *manager.Error {
	e := &manager.Error{Kind: manager.Tool, Detail: excerpt(res), Exit: res.Exit, Log: tail(res.Both)}
	// dnf says so after its own test: then a lock that somebody speaks of is one that a script met.
	begun := res.Dropped > 0 || running.Match(res.Stdout)
	for _, k := range kinds {
		if k.kind == manager.Busy && begun {
			continue
		}
		if k.re.Match(res.Stderr) || k.re.Match(res.Stdout) {
			e.Kind = k.kind
			break
		}
	}
	return e
}

// excerpt is the part of what was said from the first line that speaks of an error, a few lines of it.
func excerpt(res tool.Result) string {
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(string(res.Stderr), "?")), "\n")
	from := 0
	for i, l := range lines {
		if l = strings.ToLower(l); strings.HasPrefix(l, "error") || strings.HasPrefix(l, " problem") {
			from = i
			break
		}
	}
	lines = lines[from:min(len(lines), from+12)]
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, " ")
}

func nothingToDo(said []byte) bool { return bytes.Contains(said, []byte("Nothing to do.")) }
