package main

import (
	"errors"
	"strings"
)

// The README's block stands between these lines.
const (
	beginMark = "<!-- make bench writes from here -->\n"
	endMark   = "<!-- to here -->\n"
)

// block is what the README says of the document.
func block(d *results) string {
	var b strings.Builder
	b.WriteString("\n" + provenance(d) + "\n")
	for _, table := range [][][]string{bounds(d), comparison(d), elsewhere(d)} {
		if len(table) > 1 {
			b.WriteString("\n" + markdown(table))
		}
	}
	b.WriteString("\n")
	return b.String()
}

// rewrite puts the block into the README's text.
func rewrite(readme string, d *results) (string, error) {
	before, rest, ok := strings.Cut(readme, beginMark)
	if !ok {
		return "", errors.New("README: no line " + strings.TrimSpace(beginMark))
	}
	_, after, ok := strings.Cut(rest, endMark)
	if !ok {
		return "", errors.New("README: no line " + strings.TrimSpace(endMark))
	}
	return before + beginMark + block(d) + endMark + after, nil
}
