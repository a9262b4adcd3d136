package dnf

import "strings"

// compare orders "EPOCH:VERSION-RELEASE"; no epoch is 0, and no release is older than any, as rpm's rpmverCmp has it.
func compare(a, b string) int {
	ae, av, ar := split(a)
	be, bv, br := split(b)
	if c := vercmp(ae, be); c != 0 {
		return c
	}
	if c := vercmp(av, bv); c != 0 {
		return c
	}
	return vercmp(ar, br)
}

func split(s string) (epoch, version, release string) {
	epoch = "0"
	if e, rest, ok := strings.Cut(s, ":"); ok {
		epoch, s = e, rest
	}
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		return epoch, s[:i], s[i+1:]
	}
	return epoch, s, ""
}

// vercmp is rpm's rpmvercmp (rpmio/rpmvercmp.c, and "Version comparison" in rpm-version(7)): runs of digits and runs of
// letters are compared one by one, what separates them only separates; a tilde sorts before the end, a caret after the
// end but before anything else.
func vercmp(a, b string) int {
	if a == b {
		return 0
	}
	for a != "" || b != "" {
		a, b = strings.TrimLeftFunc(a, separates), strings.TrimLeftFunc(b, separates)
		at, bt := strings.HasPrefix(a, "~"), strings.HasPrefix(b, "~")
		switch {
		case at && bt:
			a, b = a[1:], b[1:]
			continue
		case at:
			return -1
		case bt:
			return 1
		}
		ac, bc := strings.HasPrefix(a, "^"), strings.HasPrefix(b, "^")
		switch {
		case ac && bc:
			a, b = a[1:], b[1:]
			continue
		case ac && b == "", bc && a != "":
			return 1
		case bc, ac:
			return -1
		}
		if a == "" || b == "" {
			break
		}
		class := letter
		if digit(rune(a[0])) {
			class = digit
		}
		as, ar := run(a, class)
		bs, br := run(b, class)
		if bs == "" { // of different kinds: digits are newer
			if digit(rune(a[0])) {
				return 1
			}
			return -1
		}
		if digit(rune(a[0])) {
			as, bs = strings.TrimLeft(as, "0"), strings.TrimLeft(bs, "0")
			if len(as) != len(bs) {
				return sign(len(as) - len(bs))
			}
		}
		if c := strings.Compare(as, bs); c != 0 {
			return c
		}
		a, b = ar, br
	}
	return sign(len(a) - len(b))
}

func run(s string, in func(rune) bool) (head, rest string) {
	rest = strings.TrimLeftFunc(s, in)
	return s[:len(s)-len(rest)], rest
}

func digit(c rune) bool     { return '0' <= c && c <= '9' }
func letter(c rune) bool    { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
func separates(c rune) bool { return !digit(c) && !letter(c) && c != '~' && c != '^' }

func sign(n int) int { return min(1, max(-1, n)) }
