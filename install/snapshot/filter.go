package snapshot

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// filter is a list of patterns of rsync's --exclude-from, see "FILTER RULES" and "PATTERN MATCHING RULES" in rsync(1). The
// first that matches decides.
type filter []rule

type rule struct {
	include bool
	base    bool // matches the last part of a path only
	pattern *regexp.Regexp
}

// maxRules bounds a filter.
const maxRules = 10_000

// parseFilter reads one pattern a line. A pattern for directories only is taken for all: what is passed over by mistake
// stays as it is, what is not passed over by mistake would be deleted.
func parseFilter(text string) (filter, error) {
	var f filter
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if len(f) == maxRules {
			return nil, fmt.Errorf("exclude list: more than %d patterns", maxRules)
		}
		var r rule
		if rest, ok := strings.CutPrefix(line, "+ "); ok {
			r.include, line = true, rest
		} else if rest, ok := strings.CutPrefix(line, "- "); ok {
			line = rest
		}
		expr, base := translate(line)
		re, err := regexp.Compile(expr)
		if err != nil {
			return nil, fmt.Errorf("exclude list: pattern %q: %w", line, err)
		}
		r.pattern, r.base = re, base
		f = append(f, r)
	}
	return f, nil
}

// translate turns a pattern into a regular expression over an absolute path, or over a name if base is set.
func translate(p string) (expr string, base bool) {
	all := strings.HasSuffix(p, "/***")
	if all {
		p = strings.TrimSuffix(p, "/***")
	}
	p = strings.TrimSuffix(p, "/")
	anchored := strings.HasPrefix(p, "/")
	base = !strings.Contains(p, "/") && !strings.Contains(p, "**") && !all
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	if !anchored && !base {
		b.WriteString(`(?:.*/)?`)
	}
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case strings.HasPrefix(p[i:], "**"):
			b.WriteString(`.*`)
			for i+1 < len(p) && p[i+1] == '*' {
				i++
			}
		case c == '*':
			b.WriteString(`[^/]*`)
		case c == '?':
			b.WriteString(`[^/]`)
		case c == '[':
			end := strings.IndexByte(p[min(i+2, len(p)):], ']') // a bracket right after the opening one is a member
			if end < 0 {
				b.WriteString(`\[`)
				continue
			}
			class := p[i+1 : i+2+end]
			if class[0] == '!' {
				class = "^" + class[1:]
			}
			b.WriteString("[" + strings.ReplaceAll(class, `[`, `\[`) + "]")
			i += 2 + end
		case c == '\\' && i+1 < len(p):
			i++
			b.WriteString(regexp.QuoteMeta(p[i : i+1]))
		default:
			b.WriteString(regexp.QuoteMeta(string([]byte{c})))
		}
	}
	if all {
		b.WriteString(`(?:/.*)?`)
	}
	b.WriteString(`\z`)
	return b.String(), base
}

// skips says whether a path, absolute, is left out. What is below a path that is left out must not be asked for.
func (f filter) skips(p string) bool {
	for _, r := range f {
		at := p
		if r.base {
			at = path.Base(p)
		}
		if r.pattern.MatchString(at) {
			return !r.include
		}
	}
	return false
}
