package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
)

func newBundle(env cli.Env) *cobra.Command {
	c := &cobra.Command{
		Use:   "bundle",
		Short: "build, sign, check and ship bundles",
		Long: `A bundle is a directory NAME-VERSION.bundle that holds a ready tree or package
repository under content/, a signed manifest, an index of files and chunks, and a
SHA256SUMS. Stock tools can check it:

  gpgv --keyring release.gpg manifest.json.asc manifest.json
  sha256sum --check SHA256SUMS`,
	}
	c.AddCommand(newBundleCollect(env), newBundleBuild(env), newBundleSign(env), newBundleVerify(env), newBundleInspect(env), newBundleDiff(env),
		newBundlePush(env), newBundleList(env), newBundleExport(env), newBundleImport(env),
		newBundleRevoke(env), newBundleRevocations(env))
	return c
}

func newBundleInspect(env cli.Env) *cobra.Command {
	var out output
	var files bool
	c := &cobra.Command{
		Use:   "inspect BUNDLE",
		Short: "show what a bundle says about itself",
		Long: `Inspect prints the manifest, and of rpm and deb what each package is for, without checking signatures or content: for that
there is "meshctl bundle verify".`,
		Example: `  meshctl bundle inspect app-1.2.bundle --files`,
		Args:    cli.Args(1, 1, "BUNDLE, a directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			b, err := chunker.Open(args[0])
			if err != nil {
				return err
			}
			if out.json {
				l, err := b.Packages()
				if err != nil {
					return err
				}
				return cli.JSON(env.Stdout, inspection{b.Digest, b.Manifest, b.Index, l})
			}
			return inspect(env, b, files)
		},
	}
	c.Flags().BoolVar(&files, "files", false, "list the files")
	out.addFlags(c, "text", "json")
	return c
}

// inspection is the JSON form of "bundle inspect".
type inspection struct {
	Checksum manifest.Digest    `json:"checksum"`
	Manifest *manifest.Manifest `json:"manifest"`
	Index    *manifest.Index    `json:"index"`
	Packages *packages.List     `json:"packages,omitempty"` // of rpm and deb
}

func inspect(env cli.Env, b *chunker.Bundle, files bool) error {
	m := b.Manifest
	catalog := b.Catalog()
	var t cli.Table
	t.Row("name", m.Name)
	t.Row("version", m.Version)
	if m.Cycle != "" {
		t.Row("cycle", m.Cycle)
	}
	t.Row("sequence", fmt.Sprint(m.Sequence))
	t.Row("target", m.Target.String())
	t.Row("created", m.Created.Format(time.RFC3339))
	t.Row("expires", m.Expires.Format(time.RFC3339))
	for _, v := range m.Supersedes {
		t.Row("supersedes", v)
	}
	t.Row("content", fmt.Sprintf("%s, %s", cli.Count(m.Files, "file"), cli.Bytes(m.TotalBytes)))
	l, err := b.Packages()
	if err != nil {
		return err
	}
	rowsOfPackages(&t, l)
	t.Row("chunks", fmt.Sprintf("%d, %s", len(catalog.Chunks), cli.Bytes(catalog.Bytes())))
	t.Row("checksum", b.Digest.String())
	if files {
		t.Row()
		for _, f := range b.Index.Files {
			t.Row(fmt.Sprintf("%04o", f.Mode), size(f.Size)+"  "+f.Path)
		}
	}
	_, err = t.WriteTo(env.Stdout)
	return err
}

// rowsOfPackages shows what a list says; nil: nothing.
func rowsOfPackages(t *cli.Table, l *packages.List) {
	if l == nil {
		return
	}
	for _, p := range l.Packages {
		t.Row(string(p.Role), fmt.Sprintf("%s %s %s", p.Name, p.Version, p.Arch))
	}
	for _, n := range l.Remove {
		t.Row("may remove", n)
	}
	t.Row("conffiles", string(l.Conffiles))
	if l.Reboot {
		t.Row("reboot", "needed")
	}
	for _, k := range l.Keys {
		t.Row("key", k)
	}
}

func newBundleList(env cli.Env) *cobra.Command {
	s := &server{env: env}
	var out output
	c := &cobra.Command{
		Use:   "list",
		Short: "list the seeder's bundles",
		Args:  cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return answer(c, s, &out, func(ctx context.Context, client *api.Client) ([]api.BundleInfo, error) { return client.Bundles(ctx) },
				func(infos []api.BundleInfo) *cli.Table {
					var t cli.Table
					t.Row("BUNDLE", "VERSION", "SEQUENCE", "TARGET", "STATE", "   BYTES", "CHUNKS", "CREATED", "CHECKSUM")
					for _, i := range infos {
						state := string(i.State)
						if i.Revoked != "" {
							state = "revoked"
						}
						t.Row(i.Name, i.Version, fmt.Sprintf("%8d", i.Sequence), i.Target.String(), state, size(i.Bytes),
							fmt.Sprintf("%6d", i.Chunks), i.Created.UTC().Format(time.RFC3339), i.Digest.String())
					}
					return &t
				})
		},
	}
	s.addFlags(c, callTimeout)
	out.addFlags(c, "table", "json")
	return c
}
