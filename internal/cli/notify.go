package cli

import (
	"fmt"
	"net"
)

// NotifyReady tells the service manager that started the program, if one did, that it serves now: one datagram on the
// socket that NOTIFY_SOCKET names, see sd_notify(3).
func NotifyReady(env Env) error {
	name := env.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"}) // "@" begins an abstract one there too
	if err == nil {
		_, err = conn.Write([]byte("READY=1"))
		conn.Close()
	}
	if err != nil {
		return fmt.Errorf("the service manager cannot be told: %w", err)
	}
	return nil
}
