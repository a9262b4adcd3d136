// Package gpghome gives tests a private gpg: keys, signatures and verdicts of the real program, so that what we say
// about signatures is compared with what everybody's tool says. It is for tests only and not safe for concurrent use.
package gpghome

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// Home is a GNUPGHOME of its own, removed at the end of the test together with the agent it started.
type Home struct {
	t   testing.TB
	Dir string
}

// New makes a home, or skips the test where gpg is not installed.
func New(t testing.TB) *Home {
	t.Helper()
	for _, tool := range []string{"gpg", "gpgconf", "gpgv"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs gpg, gpgconf and gpgv: apt-get install gnupg gpgv")
		}
	}
	// Not t.TempDir: its path grows with the name of the test, and the agent's sockets must fit in 108 bytes.
	dir, err := os.MkdirTemp("", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own context has ended by now.
		if out, err := exec.CommandContext(context.Background(), "gpgconf", "--homedir", dir, "--kill", "all").CombinedOutput(); err != nil {
			t.Errorf("gpgconf --kill all: %v\n%s", err, out)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &Home{t: t, Dir: dir}
}

// Try runs gpg as if it were the time at; the zero time is now.
func (h *Home) Try(at time.Time, stdin []byte, args ...string) ([]byte, error) {
	h.t.Helper()
	base := []string{"--homedir", h.Dir, "--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""}
	if !at.IsZero() {
		base = append(base, "--faked-system-time", at.UTC().Format("20060102T150405")+"!")
	}
	cmd := exec.CommandContext(h.t.Context(), "gpg", append(base, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, errors.New(strings.Join(args, " ") + ": " + err.Error() + "\n" + stderr.String())
	}
	return stdout.Bytes(), nil
}

// Run is Try that must succeed.
func (h *Home) Run(at time.Time, stdin []byte, args ...string) []byte {
	h.t.Helper()
	out, err := h.Try(at, stdin, args...)
	if err != nil {
		h.t.Fatalf("gpg %v", err)
	}
	return out
}

var keyCreated = regexp.MustCompile(`KEY_CREATED \S ([0-9A-F]{40})`)

// Key makes a key without passphrase, for example ("ed25519", "sign", "never"), and returns its fingerprint; extra
// are more options of gpg.
func (h *Home) Key(at time.Time, algo, usage, expire string, extra ...string) string {
	h.t.Helper()
	args := append(slices.Clone(extra), "--status-fd", "1", "--quick-gen-key",
		algo+" "+usage+" "+expire+" <test@example.org>", algo, usage, expire)
	m := keyCreated.FindSubmatch(h.Run(at, nil, args...))
	if m == nil {
		h.t.Fatal("gpg made no key")
	}
	return string(m[1])
}

// Subkey adds a subkey and returns its fingerprint.
func (h *Home) Subkey(at time.Time, key, algo, usage, expire string) string {
	h.t.Helper()
	h.Run(at, nil, "--quick-add-key", key, algo, usage, expire)
	var last string
	for line := range strings.Lines(string(h.Run(time.Time{}, nil, "--with-colons", "--list-keys", "--with-subkey-fingerprint", key))) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			last = f[9]
		}
	}
	return last
}

// Revoke revokes a key with a reason code of RFC 4880: 0 none, 1 superseded, 2 compromised, 3 retired.
func (h *Home) Revoke(at time.Time, key, reason string) {
	h.t.Helper()
	base := []string{"--command-fd", "0", "--status-fd", "2", "--no-batch", "--no-tty", "--armor", "--gen-revoke", key}
	// gpg's menu swaps the codes: 1 is compromised and 2 is superseded there.
	menu := map[string]string{"0": "0", "1": "2", "2": "1", "3": "3"}[reason]
	cert := h.Run(at, []byte("y\n"+menu+"\n\ny\n"), base...)
	h.Run(at, cert, "--import")
}

// Export returns the public keys, binary.
func (h *Home) Export(keys ...string) []byte {
	h.t.Helper()
	var out []byte
	for _, k := range keys {
		out = append(out, h.Run(time.Time{}, nil, "--export", k)...)
	}
	return out
}

// Sign makes a binary detached signature; extra are more options of gpg.
func (h *Home) Sign(at time.Time, key string, doc []byte, extra ...string) []byte {
	h.t.Helper()
	args := append([]string{"--local-user", key, "--output", "-"}, extra...)
	return h.Run(at, doc, append(args, "--detach-sign")...)
}

// Outcome is what the documented check with stock gpgv sees.
type Outcome struct {
	Exit    int
	Signers []string // distinct primary fingerprints of the VALIDSIG lines, in order
	Refused bool     // one of the lines that the check refuses was there
	Status  string
}

// Accepts says what the documented check answers: at least threshold signers and none of the refused lines.
func (o Outcome) Accepts(threshold int) bool { return !o.Refused && len(o.Signers) >= threshold }

var refused = regexp.MustCompile(`(?m)^\[GNUPG:\] (EXPKEYSIG|REVKEYSIG|EXPSIG|BADSIG|ERRSIG) `)

// Verify runs gpgv --status-fd 1 --keyring KEYRING SIG DOC.
func (h *Home) Verify(keyring, sig, doc []byte) Outcome {
	h.t.Helper()
	dir := h.t.TempDir()
	paths := make([]string, 3)
	for i, b := range [][]byte{keyring, sig, doc} {
		paths[i] = filepath.Join(dir, []string{"keyring.gpg", "doc.asc", "doc"}[i])
		if err := os.WriteFile(paths[i], b, 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(h.t.Context(), "gpgv", "--homedir", h.Dir, "--status-fd", "1", "--keyring", paths[0], paths[1], paths[2])
	out, err := cmd.Output()
	var o Outcome
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		o.Exit = exit.ExitCode()
		o.Status = string(exit.Stderr)
	case err != nil:
		h.t.Fatal(err)
	}
	o.Status = string(out) + o.Status
	o.Refused = refused.Match(out)
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == "VALIDSIG" {
			if fp := f[len(f)-1]; !slices.Contains(o.Signers, fp) {
				o.Signers = append(o.Signers, fp)
			}
		}
	}
	return o
}
