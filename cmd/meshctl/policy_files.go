package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// policyFlags are the files that a command reads policies from.
type policyFlags []string

func (f *policyFlags) addFlags(c *cobra.Command) {
	c.Flags().StringArrayVarP((*[]string)(f), "file", "f", nil, "policy `file`, directory of them, or - for standard input; may be given several times")
}

func (f *policyFlags) check(c *cobra.Command) error {
	if len(*f) == 0 {
		return cli.Usage(c, "no policy: give -f FILE")
	}
	return nil
}

// policyText is a valid policy as written.
type policyText struct {
	name string
	file string
	text []byte
}

// maxPolicies bounds what one command reads.
const maxPolicies = 10_000

// readPolicies reads the policies in files and directories. What is wrong in any of them is said at once.
func readPolicies(env cli.Env, args []string) (texts []policyText, err error) {
	files, err := policyFiles(args)
	if err != nil {
		return nil, err
	}
	var wrong []error
	from := map[string]string{}
	for _, name := range files {
		b, err := readLimited(env, name, policy.MaxBytes)
		if err != nil {
			return nil, problem.New(problem.InvalidFile, "policy file %s", name).Because(err)
		}
		p, err := policy.ParseFile(name, b)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		if other, ok := from[p.Name]; ok {
			wrong = append(wrong, problem.New(problem.InvalidPolicy, "policy %s stands in %s and in %s", p.Name, other, name).
				WithDone("nothing was applied").WithNext("give each policy a name of its own"))
			continue
		}
		from[p.Name] = name
		texts = append(texts, policyText{p.Name, name, b})
	}
	return texts, together(wrong)
}

// together is the first of several problems, with the others as its cause.
func together(wrong []error) error {
	if len(wrong) < 2 {
		return errors.Join(wrong...)
	}
	var first *problem.Error
	if !errors.As(wrong[0], &first) {
		return errors.Join(wrong...)
	}
	all := *first
	if first.Cause != nil {
		wrong[0] = first.Cause
	} else {
		wrong = wrong[1:]
	}
	const shown = 20
	if more := len(wrong) - shown; more > 0 {
		wrong = append(wrong[:shown], fmt.Errorf("and %d more files", more))
	}
	all.Cause = errors.Join(wrong...)
	return &all
}

// policyFiles puts the .yaml and .yml files in and below a directory in its place, in order. What is hidden is left
// out. A directory without any is an error: to apply nothing is hardly what was meant.
func policyFiles(args []string) (files []string, err error) {
	for _, arg := range args {
		info, err := os.Stat(arg)
		if arg == "-" || err != nil || !info.IsDir() {
			files = append(files, arg) // reading says what is wrong with it
			continue
		}
		found, err := below(arg)
		if err != nil {
			return nil, problem.New(problem.InvalidFile, "policy directory %s", arg).Because(err)
		}
		files = append(files, found...)
	}
	return files, nil
}

func below(dir string) (files []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		switch name := filepath.Base(path); {
		case err != nil:
			return err
		case strings.HasPrefix(name, ".") && path != dir:
			if d.IsDir() {
				return filepath.SkipDir
			}
		case d.Type().IsRegular() && slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(name)):
			if files = append(files, path); len(files) > maxPolicies {
				return fmt.Errorf("more than %d policies", maxPolicies)
			}
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = errors.New("it holds no .yaml or .yml file")
	}
	return files, err
}

func readLimited(env cli.Env, name string, limit int64) ([]byte, error) {
	r := env.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return b, err
}
