package fleet

import (
	"regexp"
	"slices"
)

var tableChange = regexp.MustCompile(`(?i)\b(CREATE TABLE|DROP TABLE|ALTER TABLE) (\w+)(?:\s+RENAME TO (\w+))?`)

// tables lists the tables of a version of the database, each after those that it refers to.
func tables(version int) []string {
	var out []string
	for _, m := range migrations[:version] {
		for _, x := range tableChange.FindAllStringSubmatch(m, -1) {
			at := slices.Index(out, x[2])
			switch {
			case x[1][0] == 'C' || x[1][0] == 'c':
				out = append(out, x[2])
			case x[1][0] == 'D' || x[1][0] == 'd':
				out = slices.Delete(out, at, at+1)
			case x[3] != "":
				out[at] = x[3]
			}
		}
	}
	return out
}
