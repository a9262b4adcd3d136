package arch_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/arch"
)

// listed is the part of "go list -json" that is used.
type listed struct {
	ImportPath string
	Dir        string
	Imports    []string
	GoFiles    []string
}

func goList(t *testing.T, args ...string) (pkgs []listed) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func short(path string) string { return strings.TrimPrefix(path, arch.Module+"/") }

func TestLayers(t *testing.T) {
	var pkgs []arch.Package
	for _, p := range goList(t, "-json=ImportPath,Imports", "./...") {
		q := arch.Package{Path: short(p.ImportPath)}
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, arch.Module+"/") {
				q.Imports = append(q.Imports, short(imp))
			}
		}
		pkgs = append(pkgs, q)
	}
	for _, line := range arch.CheckLayers(arch.Layers(), arch.Strangers(), pkgs) {
		t.Error(line)
	}
}

// The positive control: the check sees what it is there to see.
func TestLayersRefused(t *testing.T) {
	for name, p := range map[string]arch.Package{
		"upwards":          {Path: "internal/chunk", Imports: []string{"node"}},
		"upwards one step": {Path: "chunker", Imports: []string{"gossip"}},
		"strangers":        {Path: "node", Imports: []string{"seeder"}},
		"strangers inside": {Path: "seeder/lease", Imports: []string{"node/swarm"}},
		"no layer":         {Path: "internal/util"},
	} {
		if got := arch.CheckLayers(arch.Layers(), arch.Strangers(), []arch.Package{p}); len(got) == 0 {
			t.Errorf("%s: %+v is accepted", name, p)
		}
	}
	ok := arch.Package{Path: "node", Imports: []string{"gossip", "chunker/store", "internal/chunk", "node/swarm"}}
	if got := arch.CheckLayers(arch.Layers(), arch.Strangers(), []arch.Package{ok}); len(got) != 0 {
		t.Errorf("imports downwards are refused: %v", got)
	}
}

func TestLayersInArchitecture(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(root(t), "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	for line := range strings.Lines(arch.Table(arch.Layers())) {
		table.WriteString("    " + line)
	}
	if !strings.Contains(string(doc), table.String()) {
		t.Errorf("ARCHITECTURE.md does not show the table of layers; it should have\n%s", table.String())
	}
}

// The executor must stay small: what it does not link, it cannot be attacked through.
func TestNotLinked(t *testing.T) {
	for program, unwanted := range arch.Without() {
		deps := goList(t, "-deps", "-json=ImportPath", "./"+program)
		if len(deps) < 50 { // a program links the runtime at least: an empty list would prove nothing
			t.Errorf("%s: only %d dependencies listed", program, len(deps))
		}
		for _, p := range deps {
			for _, u := range unwanted {
				if strings.HasPrefix(p.ImportPath+"/", strings.TrimSuffix(u, "/")+"/") {
					t.Errorf("%s links %s", program, p.ImportPath)
				}
			}
		}
	}
	// The positive control: the daemon does link them, so the test can see them.
	var seen int
	for _, p := range goList(t, "-deps", "-json=ImportPath", "./cmd/meshd") {
		if strings.HasPrefix(p.ImportPath, "github.com/libp2p/go-libp2p") || p.ImportPath == "github.com/hashicorp/memberlist" {
			seen++
		}
	}
	if seen == 0 {
		t.Error("cmd/meshd links neither libp2p nor memberlist: this test sees nothing")
	}
}

func TestSource(t *testing.T) {
	var rules = []arch.Rule{arch.OldOpenPGP, arch.Renames, arch.Shells, arch.Goroutines}
	for _, p := range goList(t, "-json=ImportPath,Dir,GoFiles", "./...") {
		dir := short(p.ImportPath)
		var doc string
		for _, name := range p.GoFiles {
			src, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			f, err := arch.Parse(dir, filepath.Join(dir, name), src)
			if err != nil {
				t.Fatal(err)
			}
			doc += f.AST.Doc.Text()
			applied := rules
			if slices.Contains(arch.Pure(), dir) {
				applied = append(slices.Clone(rules), arch.Purity)
			}
			for _, rule := range applied {
				for _, line := range rule(f) {
					t.Error(line)
				}
			}
		}
		if len(p.GoFiles) > 0 && arch.Sentences(doc) < 2 {
			t.Errorf("package %s: the doc comment needs two sentences at least: what for, what not, who may call it from where; it has %q", dir, doc)
		}
	}
}

// Every pure package named in the table exists, or the purity test would look at nothing.
func TestPurePackagesExist(t *testing.T) {
	for _, p := range arch.Pure() {
		if _, err := os.Stat(filepath.Join(root(t), p)); err != nil {
			t.Errorf("pure package %s: %v", p, err)
		}
	}
}

// The positive controls of the rules: each is a file that must be refused, and a twin that must not.
func TestSourceRefused(t *testing.T) {
	for _, c := range []struct {
		name, src string
		rule      arch.Rule
		broken    int
	}{
		{"network", `import "net"; var _ = net.Dial`, arch.Purity, 1},
		{"sub-package of net", `import "net/http"; var _ = http.Get`, arch.Purity, 1},
		{"addresses are values", `import "net/netip"; var _ netip.Addr`, arch.Purity, 0},
		{"files", `import "os"; var _ = os.Open`, arch.Purity, 1},
		{"log", `import "log/slog"; var _ = slog.Info`, arch.Purity, 1},
		{"chance", `import "math/rand/v2"; var _ = rand.Int`, arch.Purity, 1},
		{"context", `import "context"; var _ = context.Background`, arch.Purity, 1},
		{"clock called", `import "time"; func f() time.Time { return time.Now() }`, arch.Purity, 1},
		{"clock as a value", `import "time"; var now = time.Now`, arch.Purity, 1},
		{"clock renamed", `import tm "time"; var now = tm.Now`, arch.Purity, 1},
		{"times are values", `import "time"; func f(t time.Time) time.Time { return t.Add(time.Second) }`, arch.Purity, 0},
		{"goroutine in pure code", `func f() { go f() }`, arch.Purity, 1},
		{"openpgp, first version", `import "github.com/ProtonMail/go-crypto/openpgp"; var _ openpgp.Entity`, arch.OldOpenPGP, 1},
		{"openpgp v2", `import openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"; var _ openpgp.Entity`, arch.OldOpenPGP, 0},
		{"clearsign", `import "github.com/ProtonMail/go-crypto/openpgp/clearsign"; var _ clearsign.Block`, arch.OldOpenPGP, 1},
		{"ReadMessage", `import openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"; func f() { openpgp.ReadMessage(nil, nil, nil, nil) }`, arch.OldOpenPGP, 1},
		{"rename", `import "os"; func f() { os.Rename("a", "b") }`, arch.Renames, 1},
		{"durable rename", `import "github.com/patchmesh/patchmesh/internal/durable"; func f() { durable.Rename("a", "b") }`, arch.Renames, 0},
		{"shell", `import "os/exec"; func f() { exec.Command("/bin/sh", "-c", "rm -rf $x") }`, arch.Shells, 1},
		{"shell with a context", `import "os/exec"; func f() { exec.CommandContext(nil, "bash", "-ec", "true") }`, arch.Shells, 1},
		{"program", `import "os/exec"; func f() { exec.Command("gpg", "-c", "file") }`, arch.Shells, 0},
		{"bare go", `func f() { go f() }`, arch.Goroutines, 1},
		{"group", `import "sync"; func f() { var g sync.WaitGroup; g.Go(f); g.Wait() }`, arch.Goroutines, 0},
	} {
		f, err := arch.Parse("some/room", c.name+".go", []byte("package room\n"+c.src))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.rule(f); len(got) != c.broken {
			t.Errorf("%s: want %d complaints, got %q", c.name, c.broken, got)
		}
	}
}

func TestSentences(t *testing.T) {
	for doc, want := range map[string]int{
		"":                                     0,
		"Package one is small.":                1,
		"Package one, e.g. this, is small.":    1,
		"Package one is small. It is not two.": 2,
		"Package one holds 1.5 things\nand more. It is pure.\n": 2,
	} {
		if got := arch.Sentences(doc); got != want {
			t.Errorf("%q: %d sentences, want %d", doc, got, want)
		}
	}
}

// maxTracked is the largest file that belongs in the repository: what is larger was built, not written.
const maxTracked = 1 << 20

func TestTrackedFiles(t *testing.T) {
	top := root(t)
	out, err := exec.Command("git", "-C", top, "ls-files", "-z").Output()
	if err != nil {
		t.Skip("needs git and a clone: run the tests in a git checkout")
	}
	places := machinePlaces(t)
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		b, err := os.ReadFile(filepath.Join(top, name))
		if errors.Is(err, fs.ErrNotExist) { // deleted in the work tree, not yet committed
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		for _, line := range checkTracked(name, b, places) {
			t.Error(line)
		}
	}
}

// machinePlaces are the directories of this machine that no tracked file may name.
func machinePlaces(t *testing.T) (places []string) {
	t.Helper()
	places = append(places, root(t)+"/")
	if out, err := exec.Command("go", "env", "GOMODCACHE", "GOCACHE").Output(); err == nil {
		places = append(places, strings.Fields(string(out))...)
	}
	return places
}

func checkTracked(name string, content []byte, places []string) (broken []string) {
	if len(content) > maxTracked {
		broken = append(broken, name+" is larger than 1 MiB")
	}
	for _, place := range places {
		if bytes.Contains(content, []byte(place)) {
			broken = append(broken, name+" names a directory of this machine: "+place)
		}
	}
	return broken
}

func TestTrackedFilesRefused(t *testing.T) {
	places := machinePlaces(t)
	if got := checkTracked("a.go", []byte("see "+places[0]+"x"), places); len(got) != 1 {
		t.Errorf("a path of this machine is accepted: %q", got)
	}
	if got := checkTracked("bin/seeder", make([]byte, maxTracked+1), places); len(got) != 1 {
		t.Errorf("a file over 1 MiB is accepted: %q", got)
	}
	if got := checkTracked("a.go", []byte("package a"), places); len(got) != 0 {
		t.Errorf("a clean file is refused: %q", got)
	}
}
