package policy

import (
	"net/netip"
	"net/url"
	"strconv"
)

// healthURL reads the URL that a node asks whether it is healthy. It names the node itself: a policy must not be
// able to make ten thousand machines call somebody else.
func (r *reader) healthURL(path string) string {
	n := r.values[path]
	if n == nil {
		return ""
	}
	v, ok := r.text(n, path)
	if !ok {
		return ""
	}
	u, err := url.Parse(v)
	switch {
	case err != nil || u.Opaque != "" || u.User != nil || u.Host == "" || u.Scheme != "http":
		// The probe stays on the loopback, where a certificate would prove nothing.
		r.invalid(n, "%s %q is not an http URL", path, v)
	case !loopback(u.Hostname()):
		r.invalid(n, "%s %q does not name the node itself: the host must be localhost, 127.0.0.0/8 or [::1]", path, v)
	case u.Port() != "" && !validPort(u.Port()):
		r.invalid(n, "%s %q has no valid port", path, v)
	}
	return v
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Zone() == "" && a.IsLoopback()
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}
