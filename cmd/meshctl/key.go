package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

func newKey(env cli.Env) *cobra.Command {
	c := &cobra.Command{Use: "key", Short: "make signing keys"}
	c.AddCommand(newKeyGenerate(env))
	return c
}

func newKeyGenerate(env cli.Env) *cobra.Command {
	var user, email, passphraseFile string
	var days int
	var out output
	c := &cobra.Command{
		Use:   "generate NAME",
		Short: "make an OpenPGP signing key",
		Long: `Generate makes an Ed25519 signing key and writes two files:

  NAME.key  the secret key, mode 0600. Keep it on the build server, or import it
            into gpg and delete it: gpg --import NAME.key
  NAME.gpg  the public key as a keyring. Give it to the seeder; gpgv reads it.

Make one key for releases and another for policies: a stolen one then cannot do
what the other may. For keys on a smart card use gpg itself, and sign with --gpg.`,
		Example: `  meshctl key generate release --email release@example.com
  meshctl key generate operator --passphrase-file pass --days 730`,
		Args: cli.Args(1, 1, "NAME, the files' name without .key"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			base := args[0]
			if user == "" {
				user = filepath.Base(base)
			}
			if days < 0 {
				return cli.Usage(c, "--days %d: want 0 or more", days)
			}
			options := signer.KeyOptions{Name: user, Email: email, Created: env.Now(), Lifetime: time.Duration(days) * 24 * time.Hour}
			if passphraseFile != "" {
				var err error
				if options.Passphrase, err = readPassphrase(passphraseFile); err != nil {
					return err
				}
			}
			priv, pub, fp, err := signer.GenerateKey(options)
			if err != nil {
				return fmt.Errorf("key %s: %w", base, err)
			}
			keys, err := trust.ReadKeys(pub)
			if err != nil {
				return fmt.Errorf("key %s: %w", base, err)
			}
			var ring []byte
			for _, k := range keys {
				ring = append(ring, k.Raw...)
			}
			for _, f := range []struct {
				name string
				data []byte
				mode os.FileMode
			}{{base + ".key", priv, 0o600}, {base + ".gpg", ring, 0o644}} {
				if err := writeNew(f.name, f.data, f.mode); err != nil {
					return err
				}
			}
			if out.json {
				return cli.JSON(env.Stdout, map[string]string{"fingerprint": fp, "secret": base + ".key", "public": base + ".gpg"})
			}
			_, err = fmt.Fprintf(env.Stdout, "%s\nsecret key  %s.key\npublic key  %s.gpg\n", fp, base, base)
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&user, "user", "", "`name` in the key's user ID (default NAME)")
	f.StringVar(&email, "email", "", "`address` in the key's user ID")
	f.IntVar(&days, "days", 0, "the key expires after this many days; 0: never")
	f.StringVar(&passphraseFile, "passphrase-file", "", "encrypt the secret key with the first line of `file`")
	out.addFlags(c, "text", "json")
	return c
}

// writeNew writes a file that must not exist: a key is never overwritten.
func writeNew(name string, data []byte, mode os.FileMode) error {
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return problem.New(problem.AlreadyExists, "%s exists", name).WithDone("nothing was overwritten").WithNext("choose another name")
	}
	return durable.WriteFile(name, data, mode)
}

// keyFlags choose the signer of a document.
type keyFlags struct {
	env                                cli.Env
	file, passphraseFile, gpg, gpgHome string
}

func (k *keyFlags) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&k.file, "key", "", "sign with this secret key `file`")
	f.StringVar(&k.passphraseFile, "passphrase-file", "", "`file` with the passphrase of --key in its first line (default: ask on the terminal)")
	f.StringVar(&k.gpg, "gpg", "", "sign through gpg (agent, smart card) with this key `ID`")
	f.StringVar(&k.gpgHome, "gpg-home", "", "gpg's home `directory`")
}

// given reports whether a key was named.
func (k *keyFlags) given() bool { return k.file != "" || k.gpg != "" }

func (k *keyFlags) signer(c *cobra.Command) (signer.Signer, error) {
	switch {
	case k.file != "" && k.gpg != "":
		return nil, cli.Usage(c, "--key and --gpg are two ways to sign: give one")
	case k.gpg != "":
		return signer.FromGPG(k.gpg, k.gpgHome)
	case k.file != "":
		s, err := signer.FromKeyFile(k.file, k.passphrase)
		if err != nil {
			return nil, err
		}
		s.Now = k.env.Now
		return s, nil
	}
	return nil, cli.Usage(c, "no key to sign with: give --key FILE or --gpg ID")
}

func (k *keyFlags) passphrase() ([]byte, error) {
	if k.passphraseFile != "" {
		return readPassphrase(k.passphraseFile)
	}
	f, ok := k.env.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, errors.New("the key is encrypted: give --passphrase-file, or run on a terminal")
	}
	fmt.Fprintf(k.env.Stderr, "passphrase of %s: ", k.file)
	defer fmt.Fprintln(k.env.Stderr)
	return term.ReadPassword(int(f.Fd()))
}

// maxPassphrase bounds the passphrase file, in bytes.
const maxPassphrase = 4096

// readPassphrase returns the first line of a file.
func readPassphrase(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "passphrase file %s", name).Because(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPassphrase))
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "passphrase file %s", name).Because(err)
	}
	for i, c := range b {
		if c == '\n' || c == '\r' {
			b = b[:i]
			break
		}
	}
	if len(b) == 0 {
		return nil, problem.New(problem.InvalidFile, "passphrase file %s: the first line is empty", name)
	}
	return b, nil
}

// publicKeys are the keys that a verification accepts.
type publicKeys struct {
	files     []string
	threshold int
}

func (p *publicKeys) addFlags(c *cobra.Command) {
	c.Flags().StringArrayVar(&p.files, "key", nil, "public release key `file`; may be given several times")
	c.Flags().IntVar(&p.threshold, "threshold", 1, "how many different keys must have signed")
}

// set is a trust set with release keys only: every other role refuses.
func (p *publicKeys) set(c *cobra.Command) (*trust.Set, error) {
	if len(p.files) == 0 {
		return nil, cli.Usage(c, "no key to trust: give --key FILE, the public release key")
	}
	var keys []trust.Key
	for _, name := range p.files {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, problem.New(problem.InvalidFile, "key file %s", name).Because(err)
		}
		more, err := trust.ReadKeys(b)
		if err != nil {
			return nil, problem.New(problem.InvalidFile, "key file %s", name).Because(err)
		}
		keys = append(keys, more...)
	}
	role, err := trust.NewRoleKeys(p.threshold, keys...)
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "the release keys cannot be used").Because(err)
	}
	return &trust.Set{Release: role}, nil
}
