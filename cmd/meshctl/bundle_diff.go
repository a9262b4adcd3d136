package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/cli"
)

func newBundleDiff(env cli.Env) *cobra.Command {
	var out output
	c := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "say what a site that has one bundle needs for another",
		Long: `Diff lists the packages whose versions differ (deb and rpm), or the files that do,
and says how many bytes a site that holds OLD has to fetch for NEW. It ends with 0
whether or not there are differences.`,
		Example: `  meshctl bundle diff app-1.1.bundle app-1.2.bundle`,
		Args:    cli.Args(2, 2, "OLD NEW, two directories"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			from, err := chunker.Open(args[0])
			if err != nil {
				return err
			}
			to, err := chunker.Open(args[1])
			if err != nil {
				return err
			}
			d, err := chunker.Diff(from, to)
			if err != nil {
				return err
			}
			if out.json {
				return cli.JSON(env.Stdout, d)
			}
			return showDiff(env, from, to, d)
		},
	}
	out.addFlags(c, "text", "json")
	return c
}

func showDiff(env cli.Env, from, to *chunker.Bundle, d *chunker.Difference) error {
	fmt.Fprintf(env.Stdout, "%s %s -> %s %s\n", from.Manifest.Name, from.Manifest.Version, to.Manifest.Name, to.Manifest.Version)
	var t cli.Table
	for _, p := range d.Packages {
		mark, change := "~", p.From+" -> "+p.To
		switch {
		case p.From == "":
			mark, change = "+", p.To
		case p.To == "":
			mark, change = "-", p.From
		}
		t.Row(mark+" "+p.Name, p.Arch, change)
	}
	if len(d.Packages) == 0 { // of packages the files say nothing more
		for _, kind := range []struct {
			mark  string
			paths []string
		}{{"~", d.Changed}, {"+", d.Added}, {"-", d.Removed}} {
			for _, p := range kind.paths {
				t.Row(kind.mark + " " + p)
			}
		}
	}
	if _, err := t.WriteTo(env.Stdout); err != nil {
		return err
	}
	_, err := fmt.Fprintf(env.Stdout, "%s added, %d removed, %d changed; %s new in %s, %s reused\n", cli.Count(len(d.Added), "file"), len(d.Removed), len(d.Changed),
		cli.Bytes(d.NewBytes), cli.Count(d.NewChunks, "chunk"), cli.Bytes(d.ReusedBytes))
	return err
}
