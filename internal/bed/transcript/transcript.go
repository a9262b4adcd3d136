// Package transcript replays in tests what was said to a machine that only decides, and holds what it answers to what is
// written. It is for tests only and not safe for concurrent use. (The form is that of etcd's raft, rafttest.)
package transcript

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Run replays each testdata/*.txt with a machine of its own. A line that begins with "> " is said to the machine, which
// writes its answer below; empty lines and those that begin with # stay. update writes what it answers in place of
// comparing.
func Run(t *testing.T, update bool, machine func(*testing.T) func(out io.Writer, said string)) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(want, machine(t))
			if update {
				if err := os.WriteFile(name, got, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(got, want) {
				t.Errorf("the transcript differs; got:\n%s", got)
			}
		})
	}
}

func replay(script []byte, say func(io.Writer, string)) []byte {
	var out bytes.Buffer
	for lines := bufio.NewScanner(bytes.NewReader(script)); lines.Scan(); {
		line := lines.Text()
		said, ok := strings.CutPrefix(line, "> ")
		if !ok && line != "" && !strings.HasPrefix(line, "#") {
			continue // the answer of the time before
		}
		out.WriteString(line + "\n")
		if ok {
			say(&out, said)
		}
	}
	return out.Bytes()
}
