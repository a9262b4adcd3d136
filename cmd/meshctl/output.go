package main

import (
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
)

// output is the form of an answer: -o, and --json as its short form.
type output struct {
	format string
	json   bool
	known  []string
}

func (o *output) addFlags(c *cobra.Command, known ...string) {
	o.known = known
	c.Flags().StringVarP(&o.format, "output", "o", known[0], strings.Join(known, ", "))
	fixed(c, "output", known...)
	c.Flags().BoolVar(&o.json, "json", false, "the same as -o json; errors are JSON as well")
}

// check refuses a form that the command does not have.
func (o *output) check(c *cobra.Command) error {
	if o.json {
		o.format = "json"
	}
	if !slices.Contains(o.known, o.format) {
		return cli.Usage(c, "-o %s: want %s", o.format, strings.Join(o.known, ", "))
	}
	o.json = o.format == "json"
	return nil
}

// forPeople reports whether the answer is a screen.
func (o *output) forPeople() bool {
	return slices.Contains([]string{"table", "wide", "text"}, o.format)
}

// wide reports whether the screen is to say all there is.
func (o *output) wide() bool { return o.format == "wide" }

// structured prints a document in one of the forms for programs. each gives the rows of jsonl, one document a line.
func (o *output) structured(w io.Writer, document any, each func(emit func(any) error) error) error {
	switch o.format {
	case "yaml":
		return cli.YAML(w, document)
	case "jsonl":
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return each(e.Encode)
	}
	return cli.JSON(w, document)
}

// screen prints a document: as a screen, or in one of the forms for programs.
func (o *output) screen(w io.Writer, document any, draw func(io.Writer) error) error {
	if o.forPeople() {
		return draw(w)
	}
	return o.structured(w, document, nil)
}
