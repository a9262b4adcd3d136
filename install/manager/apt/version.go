package apt

import "strings"

// compare orders two versions as dpkg does: epoch, then upstream version, then revision. The algorithm is that of
// deb-version(7): parts without digits by a character order in which ~ is before the end and letters before the rest,
// and parts of digits by their value.
func compare(a, b string) int {
	ea, va, ra := split(a)
	eb, vb, rb := split(b)
	if c := verrevcmp(ea, eb); c != 0 {
		return c
	}
	if c := verrevcmp(va, vb); c != 0 {
		return c
	}
	return verrevcmp(ra, rb)
}

func split(v string) (epoch, upstream, revision string) {
	if e, rest, ok := strings.Cut(v, ":"); ok {
		epoch, v = e, rest
	}
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		v, revision = v[:i], v[i+1:]
	}
	return epoch, v, revision
}

func verrevcmp(a, b string) int {
	for a != "" || b != "" {
		for a != "" && !digit(a[0]) || b != "" && !digit(b[0]) {
			x, y := weight(a), weight(b)
			if x != y {
				return sign(x - y)
			}
			a, b = a[1:], b[1:]
		}
		var x, y string
		x, a = number(a)
		y, b = number(b)
		if len(x) != len(y) {
			return sign(len(x) - len(y))
		}
		if c := strings.Compare(x, y); c != 0 {
			return c
		}
	}
	return 0
}

// weight orders the first character; the end and a digit weigh nothing.
func weight(s string) int {
	switch {
	case s == "" || digit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case 'a' <= s[0]|0x20 && s[0]|0x20 <= 'z':
		return int(s[0])
	}
	return int(s[0]) + 256
}

// number takes the digits at the front, without the zeros that lead them.
func number(s string) (digits, rest string) {
	i := 0
	for i < len(s) && digit(s[i]) {
		i++
	}
	return strings.TrimLeft(s[:i], "0"), s[i:]
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func sign(n int) int { return min(1, max(-1, n)) }
