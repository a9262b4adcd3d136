// Testsum runs "go test -json" with the arguments it is given and prints what a person wants to know: one line for
// each package, the whole output of what failed, and at the end which tests were skipped, why, and the totals. It
// exits non-zero when a test or a build failed, and, with PATCHMESH_REQUIRE=1 in the environment, when a test was
// skipped for want of something; what says "make X-test" is left to that target. It runs one child process and waits for it.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, os.Getenv("PATCHMESH_REQUIRE") == "1"))
}

func run(args []string, stdout, stderr io.Writer, require bool) int {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintf(stderr, "testsum: %v\n", err)
		return 1
	}
	s := newSummary(stdout)
	readErr := s.read(out)
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) || readErr != nil {
		fmt.Fprintf(stderr, "testsum: %v\n", errors.Join(err, readErr))
		return 1
	}
	s.close()
	switch {
	case s.failed > 0 || exit != nil:
		return 1
	case require && len(s.skipped) > 0:
		fmt.Fprintln(stderr, "testsum: PATCHMESH_REQUIRE=1 and tests were skipped")
		return 1
	}
	return 0
}

// read feeds the lines of "go test -json" to the summary. What is no event (a message of the build) is passed on.
func (s *summary) read(r io.Reader) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var e event
		if json.Unmarshal(sc.Bytes(), &e) != nil {
			fmt.Fprintf(s.out, "%s\n", sc.Bytes())
			continue
		}
		s.add(e)
	}
	return sc.Err()
}
