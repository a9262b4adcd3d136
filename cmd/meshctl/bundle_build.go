package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/build"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/closure"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/progress"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// buildFlags of "meshctl bundle build".
type buildFlags struct {
	options                          chunker.BuildOptions
	format, target, created, expires string
	conffiles, repoKey               string
	bases                            closure.Bases
	noProof                          bool
	proofs                           []closure.Proof
	unproved                         []string
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
  --format rpm    the directory holds .rpm files, signed, and the public keys of
                  those who signed them in keys/; needs createrepo_c and rpm

--sequence must grow with every release of a name: a node never goes back.
--target-os says which machines may install it: OS[-RELEASE][/ARCH] with the names
of /etc/os-release, or "any".

Packages. Each has a role: "update", to be upgraded where it is installed; "install",
to be there on every node; "dependency", to come in where another needs it. "bundle
collect" leaves the roles in the directory; without them every package is an update
but those named by --install.

A node has no other source, so the build proves that nothing is missing, or fails and
names it. --base FILE holds the bundle against a machine's database (dpkg's status file;
rpm's rpmdb.sqlite), with the real apt or dnf simulating as on the node. --base-root DIR
installs it for real into a copy of a root, with its scripts, and compares every version;
that takes root. Give one base for each kind of machine. A list of names
(dpkg-query -W) proves less: what is needed by the name of something else is not known.
--no-closure-proof builds without, and says so.

A deb repository is signed with a key that is made for this bundle and thrown away, so
two builds differ; with --repo-key, a key that does not expire, they do not.`,
		Example: `  meshctl bundle build --name app --version 1.2 --sequence 12 --format files \
      --target-os any --from ./app --key release.key
  meshctl bundle build --name pos-debian --version 2026.08.25-1 --cycle 2026-08 \
      --sequence 34 --format deb --target-os debian-12/amd64 --from ./debs \
      --base till-1.status --base-root /srv/images/till-2 --gpg 0xB5A2F3C1`,
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
	f.StringSliceVar(&b.options.Packages.Install, "install", nil, "`names` of packages that every node is to have")
	f.StringSliceVar(&b.options.Packages.Remove, "remove", nil, "`names` of packages that may be removed; no other goes")
	f.StringVar(&b.conffiles, "conffiles", "", "an edited configuration file that differs in the package: keep or replace (default keep)")
	f.BoolVar(&b.options.Packages.Reboot, "reboot", false, "it takes a reboot to be in force")
	f.StringVar(&b.repoKey, "repo-key", "", "`file` of the secret key that signs a deb repository (default one made for this bundle)")
	f.StringArrayVar(&b.bases.Lists, "base", nil, "`file` of a machine's database, to prove closure on; may be given several times")
	f.StringArrayVar(&b.bases.Roots, "base-root", nil, "`directory` of a root, to install into a copy of; may be given several times")
	f.BoolVar(&b.noProof, "no-closure-proof", false, "build although nothing shows that the bundle can be installed")
	f.SetNormalizeFunc(targetByShortName)
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
	Proofs   []closure.Proof `json:"proofs,omitempty"`   // of rpm and deb; none: closure is not proved
	Unproved []string        `json:"unproved,omitempty"` // packages that no base has a use for
}

func (b *buildFlags) run(c *cobra.Command, env cli.Env) error {
	if err := b.out.check(c); err != nil {
		return err
	}
	if err := b.parse(c, env.Now()); err != nil {
		return err
	}
	b.options.Progress = progress.For(env.Stderr, b.out.json)
	if len(b.bases.Lists)+len(b.bases.Roots) > 0 {
		b.options.Packages.Prove = b.prove
	}
	x, err := chunker.Build(c.Context(), b.options)
	if err != nil {
		return err
	}
	catalog := x.Catalog()
	if b.noProof {
		fmt.Fprintf(env.Stderr, "warning: closure is not proved: if %s lacks anything, every node defers it\n", x.Dir)
	}
	if b.out.json {
		return cli.JSON(env.Stdout, built{x.Dir, x.Digest, x.Manifest.Files, x.Manifest.TotalBytes, len(catalog.Chunks), catalog.Bytes(), x.IsSigned(), b.proofs, b.unproved})
	}
	showProofs(env, b.proofs, b.unproved)
	_, err = fmt.Fprintf(env.Stdout, "built %s   %s, %s in %d chunks\n%s\n", x.Dir, cli.Count(x.Manifest.Files, "file"),
		cli.Bytes(x.Manifest.TotalBytes), len(catalog.Chunks), x.Digest)
	return err
}

// prove is what "bundle build" does before a bundle gets its name.
func (b *buildFlags) prove(ctx context.Context, x *chunker.Bundle) (err error) {
	b.options.Progress.Stage("prove", 0, progress.Files)
	if b.proofs, err = closure.Prove(ctx, x, b.bases); err != nil {
		return err
	}
	l, err := x.Packages()
	if err != nil {
		return err
	}
	b.unproved = closure.Unproved(l, b.proofs)
	b.options.Progress.Done()
	return nil
}

func showProofs(env cli.Env, proofs []closure.Proof, unproved []string) {
	for _, p := range proofs {
		how := "simulated"
		if p.Installed {
			how = "installed"
		}
		fmt.Fprintf(env.Stdout, "closed on %s   %s, %s\n", p.Base, cli.Count(len(p.Changes), "change"), how)
		for _, k := range p.Kept {
			fmt.Fprintf(env.Stderr, "warning: on %s %s %s stays as it is: %s\n", p.Base, k.ID(), k.Version, k.Why)
		}
	}
	if len(proofs) > 0 && len(unproved) > 0 {
		fmt.Fprintf(env.Stderr, "warning: no base has a use for %s: nothing is proved of them\n", strings.Join(unproved, ", "))
	}
}

// parsePackages reads the flags of rpm and deb.
func (b *buildFlags) parsePackages(c *cobra.Command) error {
	p := &b.options.Packages
	p.Conffiles = packages.Conffiles(b.conffiles)
	given := len(b.bases.Lists)+len(b.bases.Roots) > 0
	if f := b.options.Target.Format; f != manifest.FormatDeb && f != manifest.FormatRPM {
		if given || b.noProof || p.Reboot || b.conffiles+b.repoKey != "" || len(p.Install)+len(p.Remove) > 0 {
			return cli.Usage(c, "--install, --remove, --conffiles, --reboot, --repo-key and the bases are for deb and rpm")
		}
		return nil
	}
	if b.conffiles != "" && p.Conffiles != packages.Keep && p.Conffiles != packages.Replace {
		return cli.Usage(c, "--conffiles %q: want keep or replace", b.conffiles)
	}
	if given == b.noProof {
		return cli.Usage(c, "give --base FILE or --base-root DIR, so that the build can prove that nothing is missing, or else --no-closure-proof")
	}
	if b.repoKey == "" {
		return nil
	}
	if b.options.Target.Format != manifest.FormatDeb {
		return cli.Usage(c, "--repo-key is for deb: of rpm the packages are signed")
	}
	var err error
	p.RepoKey, err = signer.FromKeyFile(b.repoKey, nil)
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
	if err := b.parsePackages(c); err != nil {
		return err
	}
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
	var revocations string
	c := &cobra.Command{
		Use:   "verify BUNDLE --key PUBLIC",
		Short: "check signatures, index and every byte of a bundle",
		Long: `Verify checks what a node checks: the signatures against the keys you trust, the
manifest, the index, and every chunk of every file. A file that the index does not
list is an error too, and so is a bundle on the list that --revocations gives, which
"meshctl bundle revocations -o json" has printed.`,
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
			revoked, err := readRevocations(revocations)
			if err != nil {
				return err
			}
			if err := refuseRevoked(revoked, b.Digest); err != nil {
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
	c.Flags().StringVar(&revocations, "revocations", "", "`file` with the list of revoked bundles")
	out.addFlags(c, "text", "json")
	return c
}
