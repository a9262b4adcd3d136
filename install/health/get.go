package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strconv"
)

// target is where to connect and what to say there.
type target struct {
	addr netip.AddrPort
	host string // Host header
	path string // with query
}

// parseURL accepts http://LOOPBACK[:PORT]/PATH. The name localhost is 127.0.0.1: no resolver is asked.
func parseURL(s string) (target, error) {
	if len(s) > 2048 {
		return target{}, fmt.Errorf("health check URL of %d bytes is too long", len(s))
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return target{}, fmt.Errorf("health check URL %q has a character that does not belong there", s)
		}
	}
	u, err := url.Parse(s)
	if err != nil {
		return target{}, fmt.Errorf("health check URL: %w", err)
	}
	if u.Scheme != "http" || u.User != nil || u.Opaque != "" || u.Fragment != "" {
		return target{}, fmt.Errorf("health check URL %q is not of the form http://127.0.0.1:PORT/PATH", s)
	}
	name := u.Hostname()
	if name == "localhost" {
		name = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(name)
	if err != nil || !ip.IsLoopback() || ip.Zone() != "" {
		return target{}, fmt.Errorf("health check URL %q is not on the loopback", s)
	}
	port := uint64(80)
	if p := u.Port(); p != "" {
		if port, err = strconv.ParseUint(p, 10, 16); err != nil || port == 0 {
			return target{}, fmt.Errorf("health check URL %q has no valid port", s)
		}
	}
	return target{netip.AddrPortFrom(ip, uint16(port)), u.Host, u.RequestURI()}, nil
}

// get asks once. It is a request of four lines and an answer of twelve bytes, which is all of HTTP that is needed
// here; the program that runs as root links no HTTP library for it. Redirects are an answer other than 2xx.
func get(ctx context.Context, rawURL string) error {
	t, err := parseURL(rawURL)
	if err != nil {
		return err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", t.addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: mesh-install\r\nConnection: close\r\n\r\n", t.path, t.host); err != nil {
		return err
	}
	line := make([]byte, len("HTTP/1.1 200"))
	if _, err := io.ReadFull(conn, line); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("no answer: %w", err)
	}
	if string(line[:7]) != "HTTP/1." || line[8] != ' ' {
		return errors.New("the answer is not HTTP/1")
	}
	code, err := strconv.ParseUint(string(line[9:]), 10, 16)
	if err != nil {
		return errors.New("the answer is not HTTP/1")
	}
	if code < 200 || code > 299 {
		return fmt.Errorf("status %d", code)
	}
	return nil
}
