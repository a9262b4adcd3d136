package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Rule looks at one parsed file, which is no test, and says what is wrong with it.
type Rule func(f *File) []string

// File is a parsed source file and the package directory that it belongs to, relative to the module.
type File struct {
	Dir  string
	Fset *token.FileSet
	AST  *ast.File
}

// Parse reads one file's source text.
func Parse(dir, name string, src []byte) (*File, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &File{dir, fset, f}, nil
}

func (f *File) at(n ast.Node, format string, args ...any) string {
	return fmt.Sprintf("%s: %s", f.Fset.Position(n.Pos()), fmt.Sprintf(format, args...))
}

// imports maps the name under which the file knows a package to its import path.
func (f *File) imports() map[string]string {
	m := map[string]string{}
	for _, spec := range f.AST.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		name := path.Base(p)
		if len(name) == 2 && name[0] == 'v' { // math/rand/v2 is known as rand
			name = path.Base(path.Dir(p))
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		m[name] = p
	}
	return m
}

// calls yields every call of a function of an imported package as "import/path.Func".
func (f *File) calls(yield func(name string, call *ast.CallExpr)) {
	imports := f.imports()
	ast.Inspect(f.AST, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if name, ok := qualified(imports, call.Fun); ok {
				yield(name, call)
			}
		}
		return true
	})
}

func qualified(imports map[string]string, e ast.Expr) (string, bool) {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", false
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return "", false
	}
	p, ok := imports[x.Name]
	return p + "." + sel.Sel.Name, ok
}

// Purity refuses what a pure package must not do. It also catches a clock handed on as a value (Now: time.Now).
func Purity(f *File) (broken []string) {
	for _, spec := range f.AST.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil && impure(p) {
			broken = append(broken, f.at(spec, "a pure package imports %s", p))
		}
	}
	imports := f.imports()
	clock := []string{"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.AfterFunc", "time.NewTimer", "time.NewTicker", "time.Tick"}
	ast.Inspect(f.AST, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if name, ok := qualified(imports, n); ok && slices.Contains(clock, name) {
				broken = append(broken, f.at(n, "a pure package uses %s: time is handed in", name))
			}
		case *ast.GoStmt:
			broken = append(broken, f.at(n, "a pure package starts a goroutine"))
		}
		return true
	})
	return broken
}

func impure(p string) bool {
	if p == "net/netip" || p == "net/url" { // values, no sockets
		return false
	}
	for _, root := range []string{"net", "os", "log", "syscall", "context", "math/rand", "io/ioutil", "database/sql", "golang.org/x/sys"} {
		if under(p, root) {
			return true
		}
	}
	return false
}

// OldOpenPGP refuses the library's first version and everything that takes a signature from inside a message: only
// detached signatures over bytes we hold are accepted.
func OldOpenPGP(f *File) (broken []string) {
	for _, spec := range f.AST.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		if p == "github.com/ProtonMail/go-crypto/openpgp" || under(p, "golang.org/x/crypto/openpgp") || strings.HasSuffix(p, "/openpgp/clearsign") {
			broken = append(broken, f.at(spec, "import of %s: use openpgp/v2 and detached signatures", p))
		}
	}
	f.calls(func(name string, call *ast.CallExpr) {
		if strings.HasPrefix(name, "github.com/ProtonMail/go-crypto/openpgp") && strings.HasSuffix(name, ".ReadMessage") {
			broken = append(broken, f.at(call, "ReadMessage takes signatures of any form: verify detached ones"))
		}
	})
	return broken
}

// Renames refuses a rename outside internal/durable, which alone makes it survive a power cut.
func Renames(f *File) (broken []string) {
	if f.Dir == "internal/durable" {
		return nil
	}
	names := []string{"os.Rename", "syscall.Rename", "golang.org/x/sys/unix.Rename", "golang.org/x/sys/unix.Renameat", "golang.org/x/sys/unix.Renameat2"}
	f.calls(func(name string, call *ast.CallExpr) {
		if slices.Contains(names, name) {
			broken = append(broken, f.at(call, "%s: rename through internal/durable", name))
		}
	})
	return broken
}

// Shells refuses a command line given to a shell: arguments are passed as arguments.
func Shells(f *File) (broken []string) {
	f.calls(func(name string, call *ast.CallExpr) {
		if name != "os/exec.Command" && name != "os/exec.CommandContext" {
			return
		}
		for i, arg := range call.Args {
			lit, ok := arg.(*ast.BasicLit)
			if !ok || i+1 >= len(call.Args) {
				continue
			}
			shell, _ := strconv.Unquote(lit.Value)
			flag, ok := call.Args[i+1].(*ast.BasicLit)
			if !ok {
				continue
			}
			dash, _ := strconv.Unquote(flag.Value)
			if slices.Contains([]string{"sh", "bash", "dash"}, path.Base(shell)) && strings.HasPrefix(dash, "-") && strings.HasSuffix(dash, "c") {
				broken = append(broken, f.at(call, "%s -c: pass arguments as arguments", shell))
			}
		}
	})
	return broken
}

// Goroutines refuses the bare go statement: errgroup.Group.Go and sync.WaitGroup.Go come with somebody who waits.
func Goroutines(f *File) (broken []string) {
	ast.Inspect(f.AST, func(n ast.Node) bool {
		if g, ok := n.(*ast.GoStmt); ok {
			broken = append(broken, f.at(g, "bare go statement: start it with an errgroup or a WaitGroup that is waited for"))
		}
		return true
	})
	return broken
}

// Sentences counts the sentences of a package's doc comment: ends of a word followed by a blank or the end.
func Sentences(doc string) (n int) {
	for _, word := range strings.Fields(doc) {
		if len(word) > 2 && strings.ContainsAny(word[len(word)-1:], ".?!") && word != "e.g." && word != "i.e." {
			n++
		}
	}
	return n
}
