package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/build"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/progress"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// buildFlags of "meshctl bundle build".
type buildFlags struct {
	options                          chunker.BuildOptions
	format, target, created, expires string
	unsigned                         bool
	key                              keyFlags
	out                              output
}

func newBundleBuild(env cli.Env) *cobra.Command {
	b := &buildFlags{key: keyFlags{env: env}}
	c := &cobra.Command{
		Use:   "build --name NAME --version V --sequence N --from DIR (--key FILE | --gpg ID)",
		Short: "make and sign a bundle from a directory",
		Long: `Build copies the files of a directory into a new bundle, makes the repository's
metadata for rpm and deb, cuts everything into chunks and signs the result. The
same files with the same --created give the same manifest, byte for byte.

  --format files  a plain tree, switched by symlink on the node
  --format deb    the directory holds .deb files; needs apt-ftparchive
  --format rpm    the directory holds .rpm files; needs createrepo_c

--sequence must grow with every release of a name: a node never goes back.
--target-os says which machines may install it: OS[-RELEASE][/ARCH] with the names
of /etc/os-release, or "any".`,
		Example: `  meshctl bundle build --name app --version 1.2 --sequence 12 --format files \
      --target-os any --from ./app --key release.key
  meshctl bundle build --name pos-debian --version 2026.08.25-1 --cycle 2026-08 \
      --sequence 34 --format deb --target-os debian-12/amd64 --from ./debs --gpg 0xB5A2F3C1`,
		Args: cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error { return b.run(c, env) },
	}
	f := c.Flags()
	f.StringVar(&b.options.Name, "name", "", "`name` of the bundle: the same for every release")
	f.StringVar(&b.options.Version, "version", "", "`version` of this release")
	f.StringVar(&b.options.Cycle, "cycle", "", "patch `cycle` it belongs to, e.g. 2026-08")
	f.Uint64Var(&b.options.Sequence, "sequence", 0, "`number` that grows with every release")
	f.StringVar(&b.format, "format", string(manifest.FormatFiles), "files, deb or rpm")
	f.StringVar(&b.target, "target-os", manifest.Any, "machines that may install it: `OS[-RELEASE][/ARCH]`")
	f.StringVar(&b.options.From, "from", "", "`directory` with the content")
	f.StringVar(&b.created, "created", "", "date of the bundle, RFC 3339 `time` (default now)")
	f.StringVar(&b.expires, "expires", "", "when nodes begin to warn: RFC 3339 `time` or days such as 45d (default 45d)")
	f.StringArrayVar(&b.options.Supersedes, "supersedes", nil, "`version` that this one replaces; may be given several times")
	f.StringVar(&b.options.Out, "out", "", "`directory` to make (default NAME-VERSION.bundle)")
	f.BoolVar(&b.unsigned, "unsigned", false, "sign later, with: meshctl bundle sign")
	b.key.addFlags(c)
	b.out.addFlags(c, "text", "json")
	return c
}

// built is the JSON answer of "bundle build".
type built struct {
	Dir      string          `json:"dir"`
	Checksum manifest.Digest `json:"checksum"`
	Files    int             `json:"files"`
	Bytes    int64           `json:"bytes"`
	Chunks   int             `json:"chunks"`
	Distinct int64           `json:"distinct"` // bytes of the distinct chunks
	Signed   bool            `json:"signed"`
}

func (b *buildFlags) run(c *cobra.Command, env cli.Env) error {
	if err := b.out.check(c); err != nil {
		return err
	}
	if err := b.parse(c, env.Now()); err != nil {
		return err
	}
	b.options.Progress = progress.For(env.Stderr, b.out.json)
	x, err := chunker.Build(c.Context(), b.options)
	if err != nil {
		return err
	}
	catalog := x.Catalog()
	if b.out.json {
		return cli.JSON(env.Stdout, built{x.Dir, x.Digest, x.Manifest.Files, x.Manifest.TotalBytes, len(catalog.Chunks), catalog.Bytes(), x.IsSigned()})
	}
	_, err = fmt.Fprintf(env.Stdout, "built %s   %s, %s in %d chunks\n%s\n", x.Dir, cli.Count(x.Manifest.Files, "file"),
		cli.Bytes(x.Manifest.TotalBytes), len(catalog.Chunks), x.Digest)
	return err
}

// parse turns flags into options. Everything that can be wrong is found before the work begins.
func (b *buildFlags) parse(c *cobra.Command, now time.Time) (err error) {
	for flag, value := range map[string]string{"name": b.options.Name, "version": b.options.Version, "from": b.options.From} {
		if value == "" {
			return cli.Usage(c, "--%s is required", flag)
		}
	}
	if b.options.Sequence == 0 {
		return cli.Usage(c, "--sequence is required: a number that grows with every release")
	}
	if b.options.Target, err = parseTarget(b.target); err != nil {
		return cli.Usage(c, "--target-os %s", err)
	}
	b.options.Target.Format = manifest.Format(b.format)
	b.options.Created = now
	if b.created != "" {
		if b.options.Created, err = time.Parse(time.RFC3339, b.created); err != nil {
			return cli.Usage(c, "--created %q: want a time such as 2026-08-25T12:00:00Z", b.created)
		}
	}
	if b.options.Expires, err = parseExpires(b.expires, b.options.Created); err != nil {
		return cli.Usage(c, "--expires %s", err)
	}
	if b.unsigned {
		if b.key.given() {
			return cli.Usage(c, "--unsigned contradicts --key and --gpg")
		}
		return nil
	}
	if !b.key.given() {
		return cli.Usage(c, "no key to sign with: give --key FILE, --gpg ID, or --unsigned to sign later")
	}
	if off := now.Sub(b.options.Created).Abs(); off > trust.MaxSkewFromCreated {
		return cli.Usage(c, "--created is %s from now: nodes refuse a signature made more than %s from it", cli.Age(off), cli.Age(trust.MaxSkewFromCreated)).
			WithDone("nothing was built").WithNext("to check that a build can be repeated, build it with --unsigned and compare manifest.json")
	}
	s, err := b.key.signer(c)
	if err != nil {
		return err
	}
	b.options.Signers = []signer.Signer{s}
	return nil
}

// parseTarget reads OS[-RELEASE][/ARCH]. The release is what follows the last hyphen if it begins with a digit,
// because names such as opensuse-leap have hyphens too. Kernel names of architectures become Go's.
func parseTarget(s string) (manifest.Target, error) {
	t := manifest.Target{Release: manifest.Any, Arch: manifest.Any}
	system, arch, hasArch := strings.Cut(s, "/")
	if hasArch {
		t.Arch = arch
		if goName, ok := map[string]string{"x86_64": "amd64", "aarch64": "arm64", "i686": "386"}[arch]; ok {
			t.Arch = goName
		}
	}
	t.OS = system
	if i := strings.LastIndexByte(system, '-'); i >= 0 && i+1 < len(system) && '0' <= system[i+1] && system[i+1] <= '9' {
		t.OS, t.Release = system[:i], system[i+1:]
	}
	if !manifest.ValidName(t.OS) || !manifest.ValidName(t.Release) || !manifest.ValidName(t.Arch) {
		return t, fmt.Errorf("%q: want OS[-RELEASE][/ARCH] such as debian-12/amd64, rhel-9 or any", s)
	}
	return t, nil
}

// parseExpires reads an RFC 3339 time or a number of days after created; empty is the default.
func parseExpires(s string, created time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if n, ok := strings.CutSuffix(s, "d"); ok {
		if days, err := strconv.ParseUint(n, 10, 16); err == nil && days > 0 {
			return created.AddDate(0, 0, int(days)), nil
		}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || !t.After(created) {
		return t, fmt.Errorf("%q: want days such as 45d, or a time after --created such as 2026-10-01T00:00:00Z", s)
	}
	return t, nil
}

func newBundleSign(env cli.Env) *cobra.Command {
	key := &keyFlags{env: env}
	c := &cobra.Command{
		Use:   "sign BUNDLE (--key FILE | --gpg ID)",
		Short: "add a signature to a bundle",
		Long: `Sign adds a signature beside those that the bundle has. Use it after
"bundle build --unsigned", or for the second signature where two are wanted.`,
		Example: `  meshctl bundle sign app-1.2.bundle --gpg 0xB5A2F3C1`,
		Args:    cli.Args(1, 1, "BUNDLE, a directory"),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := key.signer(c)
			if err != nil {
				return err
			}
			if err := chunker.Sign(c.Context(), args[0], s); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.Stdout, "signed %s with %s\n", args[0], s.Fingerprint())
			return err
		},
	}
	key.addFlags(c)
	return c
}

func newBundleVerify(env cli.Env) *cobra.Command {
	keys := &publicKeys{}
	var out output
	c := &cobra.Command{
		Use:   "verify BUNDLE --key PUBLIC",
		Short: "check signatures, index and every byte of a bundle",
		Long: `Verify checks what a node checks: the signatures against the keys you trust, the
manifest, the index, and every chunk of every file. A file that the index does not
list is an error too.`,
		Example: `  meshctl bundle verify app-1.2.bundle --key release.gpg
  meshctl bundle verify app-1.2.bundle --key alice.gpg --key bob.gpg --threshold 2`,
		Args: cli.Args(1, 1, "BUNDLE, a directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			set, err := keys.set(c)
			if err != nil {
				return err
			}
			b, err := chunker.Open(args[0])
			if err != nil {
				return err
			}
			if err := b.Verify(c.Context(), set, trust.Floor(env.Now(), build.Time()), progress.For(env.Stderr, out.json)); err != nil {
				return err
			}
			if out.json {
				l, err := b.Packages()
				if err != nil {
					return err
				}
				return cli.JSON(env.Stdout, inspection{b.Digest, b.Manifest, b.Index, l})
			}
			_, err = fmt.Fprintf(env.Stdout, "good: %s %s   %s, %s\n%s\n", b.Manifest.Name, b.Manifest.Version, cli.Count(b.Manifest.Files, "file"),
				cli.Bytes(b.Manifest.TotalBytes), b.Digest)
			return err
		},
	}
	keys.addFlags(c)
	out.addFlags(c, "text", "json")
	return c
}
