package signer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// GPG signs through the gpg program. The secret key stays with gpg-agent or on the card, which may ask its owner.
type GPG struct {
	Now     func() time.Time // when the new signature is checked; defaults to time.Now
	program string
	homedir string // empty: gpg's own
	keyID   string // as given: a trailing ! picks a subkey
	key     trust.Key
}

var _ Signer = (*GPG)(nil)

// FromGPG finds a secret key by fingerprint, key ID or user ID. An empty homedir means gpg's own default.
func FromGPG(keyID, homedir string) (*GPG, error) {
	program, err := exec.LookPath("gpg")
	if err != nil {
		return nil, problem.New(problem.MissingTool, "the program gpg is not installed").Because(err).
			WithNext("install it: apt-get install gnupg, or dnf install gnupg2; or sign with a key file")
	}
	if keyID == "" || strings.HasPrefix(keyID, "-") {
		return nil, problem.New(problem.Usage, "%q is not a key ID", keyID)
	}
	g := &GPG{program: program, homedir: homedir, keyID: keyID}
	if g.key, err = g.find(context.Background()); err != nil {
		return nil, problem.New(problem.InvalidFile, "the gpg key %q cannot be used", keyID).Because(err).
			WithNext("list the keys with: gpg --list-secret-keys")
	}
	return g, nil
}

// find exports the public part of the only secret key that the key ID matches.
func (g *GPG) find(ctx context.Context) (trust.Key, error) {
	listing, err := g.run(ctx, nil, "--with-colons", "--list-secret-keys", "--", g.keyID)
	if err != nil {
		return trust.Key{}, err
	}
	fps := primaryFingerprints(string(listing))
	if len(fps) != 1 {
		return trust.Key{}, fmt.Errorf("%d secret keys match, one is wanted", len(fps))
	}
	public, err := g.run(ctx, nil, "--export", "--export-options", "export-minimal", "--", fps[0])
	if err != nil {
		return trust.Key{}, err
	}
	return onlyKey(public)
}

// primaryFingerprints picks the fingerprint that follows each primary secret key in a colon listing.
func primaryFingerprints(listing string) (fps []string) {
	var primary bool
	for line := range strings.Lines(listing) {
		switch f := strings.Split(strings.TrimSpace(line), ":"); {
		case f[0] == "sec":
			primary = true
		case f[0] == "fpr" && primary && len(f) > 9:
			fps, primary = append(fps, f[9]), false
		}
	}
	return fps
}

// Fingerprint is that of the primary key.
func (g *GPG) Fingerprint() string { return g.key.Fingerprint }

// Public is the public part of the key.
func (g *GPG) Public() trust.Key { return g.key }

// Sign runs gpg. It waits for as long as the owner of the key takes to unlock it, or until ctx ends.
func (g *GPG) Sign(ctx context.Context, doc []byte) ([]byte, error) {
	sig, err := g.run(ctx, doc, "--detach-sign", "--armor", "--digest-algo", "SHA256", "--default-sig-expire", "0",
		"--local-user", g.keyID, "--output", "-")
	if err != nil {
		return nil, fmt.Errorf("sign with gpg key %s: %w", g.key.Fingerprint, err)
	}
	now := time.Now()
	if g.Now != nil {
		now = g.Now()
	}
	if err := check(g.key, doc, sig, now); err != nil {
		return nil, fmt.Errorf("sign with gpg key %s: %w", g.key.Fingerprint, err)
	}
	return sig, nil
}

// run runs gpg with the document on its standard input and returns what it writes to its standard output.
func (g *GPG) run(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	base := []string{"--batch", "--yes"}
	if g.homedir != "" {
		base = append(base, "--homedir", g.homedir)
	}
	cmd := exec.CommandContext(ctx, g.program, append(base, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if msg := strings.TrimSpace(stderr.String()); msg != "" {
			err = errors.New(strings.ReplaceAll(msg, "\n", "; "))
		}
		return nil, fmt.Errorf("gpg: %w", err)
	}
	return stdout.Bytes(), nil
}
