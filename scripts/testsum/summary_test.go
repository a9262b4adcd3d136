package main

import (
	"strings"
	"testing"
)

// The lines are what "go test -json" of Go 1.26 prints, shortened.
func TestSummary(t *testing.T) {
	const in = `{"Action":"start","Package":"github.com/patchmesh/patchmesh/a"}
{"Action":"output","Package":"github.com/patchmesh/patchmesh/a","Test":"TestGood","Output":"chatter\n"}
{"Action":"pass","Package":"github.com/patchmesh/patchmesh/a","Test":"TestGood","Elapsed":0.1}
{"Action":"output","Package":"github.com/patchmesh/patchmesh/a","Test":"TestRoot","Output":"    a_test.go:7: needs root: run as root\n"}
{"Action":"output","Package":"github.com/patchmesh/patchmesh/a","Test":"TestRoot","Output":"--- SKIP: TestRoot (0.00s)\n"}
{"Action":"skip","Package":"github.com/patchmesh/patchmesh/a","Test":"TestRoot","Elapsed":0}
{"Action":"output","Package":"github.com/patchmesh/patchmesh/a","Test":"TestLong","Output":"    a_test.go:9: needs an hour: make vm-test\n"}
{"Action":"skip","Package":"github.com/patchmesh/patchmesh/a","Test":"TestLong","Elapsed":0}
{"Action":"pass","Package":"github.com/patchmesh/patchmesh/a","Elapsed":0.2}
{"Action":"output","Package":"github.com/patchmesh/patchmesh/b","Test":"TestBad","Output":"    b_test.go:3: 1 is not 2\n"}
{"Action":"fail","Package":"github.com/patchmesh/patchmesh/b","Test":"TestBad","Elapsed":0}
{"Action":"fail","Package":"github.com/patchmesh/patchmesh/b","Elapsed":0.3}
{"ImportPath":"github.com/patchmesh/patchmesh/c","Action":"build-output","Output":"c.go:1:1: expected 'package'\n"}
{"ImportPath":"github.com/patchmesh/patchmesh/c","Action":"build-fail"}
{"Action":"fail","Package":"github.com/patchmesh/patchmesh/c","Elapsed":0,"FailedBuild":"github.com/patchmesh/patchmesh/c"}
{"Action":"output","Package":"github.com/patchmesh/patchmesh/d","Test":"TestPanic","Output":"panic: boom\n"}
{"Action":"fail","Package":"github.com/patchmesh/patchmesh/d","Elapsed":0.1}
{"Action":"skip","Package":"github.com/patchmesh/patchmesh/empty","Elapsed":0}
`
	const want = `ok   a 0.2s
    b_test.go:3: 1 is not 2
FAIL b 0.3s
c.go:1:1: expected 'package'
FAIL c
panic: boom
FAIL d
left to another target 1:
  a TestLong: needs an hour: make vm-test
skipped 1:
  a TestRoot: needs root: run as root
1 passed, 3 failed, 1 skipped
`
	var out strings.Builder
	s := newSummary(&out)
	if err := s.read(strings.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	s.close()
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}
