package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/patchmesh/patchmesh/internal/bed/postgres"
)

func seederSays(t *testing.T, want string, args ...string) {
	t.Helper()
	out, err := command(t, args...).CombinedOutput()
	if !strings.Contains(string(out), want) || (err == nil) != !strings.HasPrefix(want, "E") {
		t.Fatalf("%s: %v, want %q\n%s", strings.Join(args, " "), err, want, out)
	}
}

// A seeder on SQLite is backed up while it runs, goes on on PostgreSQL under its old identity, and back.
func TestBackupRestore(t *testing.T) {
	server := postgres.Start(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	flags, _ := keys(t, dir)
	p := launch(t, at("one"), flags...)
	r := join(t, p, "s1")
	s := r.session(t, p)
	for seq := range uint64(50) {
		s.Send(r.report(t, seq+1))
	}
	for range 50 {
		<-r.acks
	}
	seederSays(t, "and the keys", "backup", "--state", at("one"), "--to", at("a"))
	seederSays(t, "E1205", "backup", "--state", at("one"), "--to", at("a"))
	seederSays(t, "E1204", "backup", "--state", at("nowhere"), "--to", at("b"))
	seederSays(t, "E4104", "restore", "--state", at("one"), "--from", at("a"))
	id := p.peer
	p.signal(t, os.Interrupt)
	if info, err := os.Stat(at("a")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	seederSays(t, "E1205", "restore", "--state", at("one"), "--from", at("a"))

	database := server.Fresh()
	seederSays(t, "restored", "restore", "--state", at("two"), "--database", database, "--from", at("a"))
	p = launch(t, at("two"), append(flags, "--database", database)...)
	if n := countReports(t, p); len(n) != 50 || p.peer != id {
		t.Errorf("%d reports under %s, want 50 under %s", len(n), p.peer, id)
	}
	seederSays(t, "E4104", append([]string{"serve", "--state", at("three"), "--listen-mesh", "127.0.0.1:0", "--database", database}, flags...)...)
	s = r.session(t, p) // it was enrolled by the first
	s.Send(r.report(t, 51))
	<-r.acks
	seederSays(t, "and the keys", "backup", "--state", at("two"), "--database", database, "--to", at("b"))
	p.signal(t, os.Interrupt)

	seederSays(t, "restored", "restore", "--state", at("four"), "--from", at("b"))
	p = launch(t, at("four"), flags...)
	if n := countReports(t, p); len(n) != 51 || p.peer != id {
		t.Errorf("%d reports under %s, want 51 under %s", len(n), p.peer, id)
	}
	p.signal(t, os.Interrupt)
}

// A backup that was cut or changed anywhere is refused, and nothing is left of it.
func TestDamagedBackup(t *testing.T) {
	dir := t.TempDir()
	flags, _ := keys(t, dir)
	p := launch(t, filepath.Join(dir, "st"), flags...)
	join(t, p, "s1")
	p.signal(t, os.Interrupt)
	file := filepath.Join(dir, "backup")
	seederSays(t, "and the keys", "backup", "--state", filepath.Join(dir, "st"), "--to", file)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string][]byte{"empty": nil, "no zstd": []byte("hello"), "twice": append(bytes.Clone(good), good...)}
	for i := range 4 {
		at := len(good) * (i + 1) / 5
		bad[fmt.Sprint("cut at ", at)] = good[:at]
		flipped := bytes.Clone(good)
		flipped[at] ^= 1
		bad[fmt.Sprint("flipped at ", at)] = flipped
	}
	to := filepath.Join(dir, "to")
	for what, b := range bad {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		seederSays(t, "E4103", "restore", "--state", to, "--from", file)
		if _, err := os.Stat(to); err == nil {
			t.Fatalf("%s: something was written", what)
		}
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	seederSays(t, "restored", "restore", "--state", to, "--from", file)
	for _, x := range [][]string{{"--database", "x.db"}, {"--database", "postgres://u:secret@h/d"}, {"--database", "postgres://u@h/d", "--database-file", file}} {
		seederSays(t, "E1001", append([]string{"fsck", "--state", to}, x...)...)
	}
	seederSays(t, "E1002", "fsck", "--state", to, "--database-file", file)
}
