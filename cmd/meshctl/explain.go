package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
)

func newExplain(env cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "explain [CODE]",
		Short: "say what an error code means and what to do",
		Long:  "Explain prints the page of an error code, or the list of all codes. It needs no network.",
		Example: `  meshctl explain E2103
  meshctl explain`,
		Args: cli.Args(0, 1, "CODE"),
		ValidArgsFunction: func(*cobra.Command, []string, string) (codes []string, _ cobra.ShellCompDirective) {
			for _, p := range problem.Pages() {
				codes = append(codes, string(p.Code)+"\t"+p.Title)
			}
			return codes, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				var t cli.Table
				t.Row("CODE", "EXIT", "MEANING")
				for _, p := range problem.Pages() {
					t.Row(string(p.Code), fmt.Sprintf("%4d", p.Exit), p.Title)
				}
				_, err := t.WriteTo(env.Stdout)
				return err
			}
			p, ok := problem.Lookup(problem.Code(strings.ToUpper(args[0])))
			if !ok {
				return problem.New(problem.NotFound, "there is no code %q", args[0]).WithNext("meshctl explain")
			}
			fmt.Fprintf(env.Stdout, "%s: %s (exit status %d)\n\n%s\n", p.Code, p.Title, p.Exit, fold(p.Text, 80))
			return nil
		},
	}
}

// fold breaks a text into lines of at most width characters, where no word is longer.
func fold(text string, width int) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		switch {
		case column == 0:
		case column+1+len(word) > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
