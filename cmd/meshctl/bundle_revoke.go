package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/revocation"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// revoke is what "meshctl bundle revoke" is asked for.
type revoke struct {
	server
	key                   keyFlags
	out                   output
	name, version, reason string
	dryRun, yes           bool
}

func newBundleRevoke(env cli.Env) *cobra.Command {
	f := &revoke{server: server{env: env}, key: keyFlags{env: env}}
	c := &cobra.Command{
		Use:   "revoke VERSION|CHECKSUM --reason TEXT (--key FILE | --gpg ID)",
		Short: "take a bundle out of use, for good",
		Long: `Revoke adds a bundle to the list of revoked bundles, signs the list with the
operator's key, and gives it to the seeder, which hands it to every site. No node
starts to install the bundle from then on, no policy may name it, rollouts of it
stop, and nothing goes back to it, not by a reverted commit either.

A node that runs it goes on, and is shown as revoked until a policy names another
bundle. It cannot be taken back: to ship the same content again, build it under
another version and a higher sequence.

A site without WAN gets the list with the next stick: meshctl bundle export takes it
along with --policy or --revocations.

The list is signed as a whole: if another key has signed the one in force, look at it
(meshctl bundle revocations) and give --yes.

A bundle that the seeder does not have is named by its checksum, --bundle and
--version.`,
		Example: `  meshctl bundle revoke 1.2 --bundle app --reason "tills freeze, H-5021" --key operator.key
  meshctl bundle revoke sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae --reason "key stolen" --gpg 0xB5A2F3C1`,
		Args: cli.Args(1, 1, "VERSION or CHECKSUM"),
		RunE: f.run,
	}
	f.addFlags(c, 2*time.Minute) // a smart card waits for its owner
	f.key.addFlags(c)
	c.Flags().StringVar(&f.name, "bundle", "", "the bundle's `name`, where several have the version")
	c.Flags().StringVar(&f.version, "version", "", "the `version` of a bundle that the seeder does not have")
	c.Flags().StringVar(&f.reason, "reason", "", "`why`, in one line, for the people who find it refused")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be revoked, and revoke nothing")
	c.Flags().BoolVar(&f.yes, "yes", false, "sign a list again that another key has signed")
	f.out.addFlags(c, "text", "json")
	return c
}

func (f *revoke) run(c *cobra.Command, args []string) error {
	if err := f.out.check(c); err != nil {
		return err
	}
	if f.reason == "" {
		return cli.Usage(c, "no reason: give --reason TEXT")
	}
	var sign signer.Signer
	if !f.dryRun {
		var err error
		if sign, err = f.key.signer(c); err != nil {
			return err
		}
	}
	return f.do(c, func(ctx context.Context, client *api.Client) error {
		infos, err := client.Bundles(ctx)
		if err != nil {
			return err
		}
		b, err := f.pick(infos, args[0])
		if err != nil {
			return err
		}
		now, err := client.Revocations(ctx)
		if err != nil {
			return err
		}
		if was := listOf(now).Find(b.Checksum); was != nil {
			_, err := fmt.Fprintf(f.env.Stdout, "%s %s was revoked on %s: %s\n", was.Bundle, was.Version, was.Revoked, cli.Printable(was.Reason))
			return err
		}
		if f.dryRun {
			_, err := fmt.Fprintf(f.env.Stdout, "would revoke %s %s %s\n", b.Bundle, b.Version, b.Checksum)
			return err
		}
		l, err := f.base(now, sign.Public())
		if err != nil {
			return err
		}
		doc, err := l.Add(b, f.env.Now()).Encode()
		if err != nil {
			return err
		}
		sig, err := sign.Sign(ctx, doc)
		if err != nil {
			return err
		}
		if now, err = client.PutRevocations(ctx, trust.Signed{Doc: doc, Sig: sig}); err != nil {
			return err
		}
		if f.out.json {
			return cli.JSON(f.env.Stdout, now)
		}
		return f.tell(now, b.Checksum)
	})
}

// pick is the bundle that is meant.
func (f *revoke) pick(infos []api.BundleInfo, what string) (revocation.Bundle, error) {
	out := revocation.Bundle{Revoked: revocation.Timestamp(f.env.Now()), Reason: f.reason}
	sum, err := manifest.ParseDigest(what)
	byChecksum := err == nil
	var found []string
	for _, i := range infos {
		if byChecksum && i.Digest == sum || !byChecksum && i.Version == what && (f.name == "" || i.Name == f.name) {
			out.Bundle, out.Version, out.Checksum = i.Name, i.Version, i.Digest
			found = append(found, i.Name)
		}
	}
	switch {
	case len(found) == 1:
		return out, nil
	case len(found) > 1:
		return out, problem.New(problem.Usage, "version %s is there of %s", what, strings.Join(found, ", ")).WithDone("nothing was revoked").WithNext("name one: --bundle NAME")
	case byChecksum && f.name != "" && f.version != "":
		out.Bundle, out.Version, out.Checksum = f.name, f.version, sum
		return out, nil
	}
	return out, problem.New(problem.NotFound, "the seeder has no bundle %.80s", what).WithDone("nothing was revoked").
		WithNext("list them: meshctl bundle list; one that it does not have is named by its checksum, --bundle and --version")
}

// base is the list in force, which is signed again with one line more. What it holds comes from the seeder, which must not
// have bundles revoked by us that nobody has revoked: it is what this key has signed before, or what a person has looked at.
func (f *revoke) base(now api.Revocations, key trust.Key) (*revocation.List, error) {
	if now.Document == nil {
		return nil, nil
	}
	own, err := trust.NewRoleKeys(1, key)
	if err != nil {
		return nil, err
	}
	if l, err := revocation.Open(&trust.Set{Policy: own}, *now.Document, f.env.Now()); err == nil {
		return l, nil
	}
	if !f.yes {
		return nil, problem.New(problem.Usage, "the list in force, of %s, was not signed with this key", cli.Count(len(now.Bundles), "bundle")).
			WithDone("nothing was revoked").WithNext("look at it: meshctl bundle revocations; if it is right, give --yes to sign all of it")
	}
	return revocation.Parse(now.Document.Doc)
}

// tell says what there is left to do.
func (f *revoke) tell(now api.Revocations, sum manifest.Digest) error {
	for _, b := range now.Bundles {
		if b.Checksum != sum {
			continue
		}
		fmt.Fprintf(f.env.Stdout, "revoked %s %s %s\n", b.Bundle.Bundle, b.Version, b.Checksum)
		if len(b.Policies) > 0 {
			fmt.Fprintf(f.env.Stdout, "it is named by policy %s, whose nodes do not start: name another bundle\n", strings.Join(b.Policies, ", "))
		}
		if b.Running > 0 {
			fmt.Fprintf(f.env.Stdout, "%s run it and go on: meshctl compliance --bundle %s shows which\n", cli.Count(b.Running, "node"), b.Bundle.Bundle)
		}
	}
	return nil
}

func newBundleRevocations(env cli.Env) *cobra.Command {
	s := &server{env: env}
	var out output
	c := &cobra.Command{
		Use:   "revocations",
		Short: "list the revoked bundles, and where they still run",
		Long: `Revocations prints the list in force. With -o json it is a file for
"meshctl lint --revocations", which needs no network.`,
		Example: `  meshctl bundle revocations
  meshctl bundle revocations -o json > revocations.json`,
		Args: cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return answer(c, s, &out, func(ctx context.Context, client *api.Client) (api.Revocations, error) { return client.Revocations(ctx) },
				func(l api.Revocations) *cli.Table {
					var t cli.Table
					t.Row("BUNDLE", "VERSION", "REVOKED", "NODES", "POLICIES", "REASON", "CHECKSUM")
					for _, b := range l.Bundles {
						t.Row(b.Bundle.Bundle, b.Version, b.Revoked, fmt.Sprintf("%5d", b.Running), dash(strings.Join(b.Policies, ",")), cli.Printable(b.Reason), b.Checksum.String())
					}
					return &t
				})
		},
	}
	s.addFlags(c, callTimeout)
	out.addFlags(c, "table", "json")
	return c
}

// listOf is the list in force, nil if there is none.
func listOf(now api.Revocations) *revocation.List {
	if now.Sequence == 0 {
		return nil
	}
	l := &revocation.List{Schema: revocation.Schema, Sequence: now.Sequence}
	for _, b := range now.Bundles {
		l.Bundles = append(l.Bundles, b.Bundle)
	}
	return l
}

// maxRevocationsFile bounds what "bundle revocations -o json" prints: the list, and the same signed, in base64.
const maxRevocationsFile = 4 * revocation.MaxBytes

// readRevocations reads a file that "meshctl bundle revocations -o json" printed; no name: no list.
func readRevocations(name string) (*revocation.List, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "the list of revoked bundles cannot be read").Because(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRevocationsFile+1))
	var l api.Revocations
	if err == nil && len(b) > maxRevocationsFile {
		err = fmt.Errorf("more than %d bytes", maxRevocationsFile)
	}
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "%s is not what \"meshctl bundle revocations -o json\" prints", name).Because(err)
	}
	return listOf(l), nil
}

// refuseRevoked refuses a bundle that is on the list.
func refuseRevoked(l *revocation.List, d manifest.Digest) error {
	if no := l.Refuse(d); no != nil {
		return no.WithDone("nothing was changed")
	}
	return nil
}
