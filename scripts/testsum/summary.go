package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// event is one line of "go test -json" (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build events
	Test       string
	Output     string
	Elapsed    float64
}

type testID struct{ pkg, test string }

// summary counts events. It keeps the output of a test only until the test has passed.
type summary struct {
	out            io.Writer
	passed, failed int
	skipped        []string // "package test: reason"
	elsewhere      []string // the same, of what another target of the Makefile runs
	output         map[testID][]string
	failedIn       map[string]int // tests that failed, by package
	built          map[string][]string
}

func newSummary(out io.Writer) *summary {
	return &summary{out: out, output: map[testID][]string{}, failedIn: map[string]int{}, built: map[string][]string{}}
}

func (s *summary) add(e event) {
	id := testID{e.Package, e.Test}
	switch e.Action {
	case "output":
		s.output[id] = append(s.output[id], e.Output)
	case "build-output":
		s.built[e.ImportPath] = append(s.built[e.ImportPath], e.Output)
	case "build-fail":
		fmt.Fprintf(s.out, "%s", strings.Join(s.built[e.ImportPath], ""))
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e)
		} else {
			s.endTest(id, e)
		}
		delete(s.output, id)
	}
}

func (s *summary) endTest(id testID, e event) {
	switch e.Action {
	case "pass":
		s.passed++
	case "skip":
		why := reason(s.output[id])
		line := fmt.Sprintf("%s %s: %s", shortPackage(e.Package), e.Test, why)
		if target.MatchString(why) {
			s.elsewhere = append(s.elsewhere, line)
		} else {
			s.skipped = append(s.skipped, line)
		}
	case "fail":
		s.failed++
		s.failedIn[e.Package]++
		fmt.Fprintf(s.out, "%s", strings.Join(s.output[id], ""))
	}
}

// endPackage prints the package's line. A package that failed without a failed test (it did not build, it panicked,
// it ran out of time) counts as one failure.
func (s *summary) endPackage(e event) {
	switch {
	case e.Action == "fail" && s.failedIn[e.Package] == 0:
		s.failed++
		for id, lines := range s.output { // a panic leaves its text with the test that never ended
			if id.pkg == e.Package {
				fmt.Fprintf(s.out, "%s", strings.Join(lines, ""))
			}
		}
		fmt.Fprintf(s.out, "FAIL %s\n", shortPackage(e.Package))
	case e.Action == "fail":
		fmt.Fprintf(s.out, "FAIL %s %.1fs\n", shortPackage(e.Package), e.Elapsed)
	case e.Action == "pass":
		fmt.Fprintf(s.out, "ok   %s %.1fs\n", shortPackage(e.Package), e.Elapsed)
	}
}

// target is how a test says that it is no part of this run: its time or its needs have a target of their own.
var target = regexp.MustCompile(`: make [a-z]+-test$`)

// close prints the last lines: what was skipped and the totals.
func (s *summary) close() {
	for _, part := range []struct {
		what  string
		lines []string
	}{{"left to another target", s.elsewhere}, {"skipped", s.skipped}} {
		if len(part.lines) == 0 {
			continue
		}
		slices.Sort(part.lines)
		fmt.Fprintf(s.out, "%s %d:\n", part.what, len(part.lines))
		for _, line := range part.lines {
			fmt.Fprintf(s.out, "  %s\n", line)
		}
	}
	fmt.Fprintf(s.out, "%d passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skipped))
}

// reason is the text of t.Skip in the output of a test: the last line "    file.go:12: text".
func reason(lines []string) string {
	for _, line := range slices.Backward(lines) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "---") || strings.HasPrefix(line, "===") || line == "" {
			continue
		}
		if _, after, ok := strings.Cut(line, ".go:"); ok {
			if _, text, ok := strings.Cut(after, ": "); ok {
				return text
			}
		}
		return line
	}
	return "no reason given"
}

func shortPackage(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, "github.com/patchmesh/patchmesh"), "/")
}
