package problem_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// declared reads the constants of type Code from the source: a list kept by hand would forget the same one.
func declared(t *testing.T, source any) map[problem.Code]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := map[problem.Code]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := v.Type.(*ast.Ident); !ok || name.Name != "Code" || len(v.Values) != 1 {
			return true
		}
		text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		if other, twice := out[problem.Code(text)]; twice {
			t.Errorf("%s and %s are both %s", other, v.Names[0].Name, text)
		}
		out[problem.Code(text)] = v.Names[0].Name
		return true
	})
	return out
}

// missing are the codes without a page and the pages without a code.
func missing(codes map[problem.Code]string) (out []string) {
	pages := map[problem.Code]bool{}
	for _, p := range problem.Pages() {
		pages[p.Code] = true
		if codes[p.Code] == "" {
			out = append(out, "page "+string(p.Code))
		}
	}
	for c, name := range codes {
		if !pages[c] {
			out = append(out, "code "+name)
		}
	}
	return out
}

func TestPages(t *testing.T) {
	codes := declared(t, nil)
	if len(codes) < 50 {
		t.Fatalf("only %d codes were found in the source", len(codes))
	}
	for _, what := range missing(codes) {
		t.Errorf("%s stands alone", what)
	}
	for _, p := range problem.Pages() {
		switch {
		case p.Title == "" || len(p.Title) > 60 || strings.HasSuffix(p.Title, "."):
			t.Errorf("%s: title %q", p.Code, p.Title)
		case len(p.Text) < 20:
			t.Errorf("%s: page %q says nothing", p.Code, p.Text)
		case strings.HasPrefix(string(p.Code), "W") != (p.Exit == problem.ExitOK):
			t.Errorf("%s: exit status %d: a warning ends well, and nothing else does", p.Code, p.Exit)
		}
	}
}

// The check finds a code without a page, and a page without a code.
func TestPagesControl(t *testing.T) {
	got := missing(declared(t, "package problem\nconst Lost Code = \"E9998\""))
	if want := len(problem.Pages()) + 1; len(got) != want {
		t.Errorf("%d of %d found", len(got), want)
	}
}
