package cli_test

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/patchmesh/patchmesh/internal/cli"
)

func TestNotify(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	for what, socket := range map[string]string{"path": name, "abstract": "@" + name} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		if err := cli.NotifyReady(cli.Env{Getenv: func(string) string { return socket }}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		b := make([]byte, 100)
		if n, err := l.Read(b); err != nil || string(b[:n]) != "READY=1" {
			t.Errorf("%s: %q, %v", what, b[:n], err)
		}
		l.Close()
	}
	if err := cli.NotifyReady(cli.Env{Getenv: func(string) string { return "" }}); err != nil {
		t.Errorf("nobody to tell: %v", err)
	}
	if err := cli.NotifyReady(cli.Env{Getenv: func(string) string { return filepath.Join(t.TempDir(), "none") }}); err == nil {
		t.Error("nobody was there")
	}
}
