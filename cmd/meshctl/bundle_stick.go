package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/progress"
)

func newBundleExport(env cli.Env) *cobra.Command {
	s := &server{env: env}
	var file string
	var policies, sites []string
	var revocations bool
	c := &cobra.Command{
		Use:   "export BUNDLE --out FILE",
		Short: "write a bundle into one file, for a USB stick",
		Long: `Export writes the bundle, and the policies that are named, into one file. Give it
to any node of a site that has no WAN: "meshctl bundle import" there feeds the
whole site. Signatures travel along, so the stick needs no trust.

--policy takes the newest signed revision of a policy from the seeder, and with it
the list of revoked bundles, as --revocations does alone. Without a policy the site
only stages the bundle.

A policy with a rollout starts nobody without a grant. --site has the seeder make the
site's grants for its next window, and takes them along: the site then patches in
that window, in its turn, and keeps to its own budget. The stick has to be there by
its end; for a later window export again.`,
		Example: `  meshctl bundle export app-1.2.bundle --policy app --site ship-7 --out /media/stick/app-1.2.mesh`,
		Args:    cli.Args(1, 1, "BUNDLE, a directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if file == "" {
				return cli.Usage(c, "--out is required: the file to write")
			}
			b, err := chunker.Open(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := s.within(c.Context())
			defer cancel()
			with, err := s.enclose(ctx, policies, revocations)
			if err != nil {
				return err
			}
			grants, err := s.carry(ctx, sites, policies)
			if err != nil {
				return err
			}
			for _, g := range grants {
				with.Grants = append(with.Grants, g.Document)
			}
			n, err := writeStick(ctx, file, b, with, progress.For(env.Stderr, false))
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stdout, "wrote %s   %s %s, %s with %s\n", file, b.Manifest.Name, b.Manifest.Version, cli.Bytes(n), policyCount(len(with.Policies)))
			for _, g := range grants {
				line := fmt.Sprintf("%d nodes may start from %s until %s", g.Nodes, g.Opens.Format(time.RFC3339), g.Expires.Format(time.RFC3339))
				if g.Halted != "" {
					line = "nobody may start: " + g.Halted
				}
				fmt.Fprintf(env.Stdout, "grant %d of policy %s: %s\n", g.Serial, g.Policy, line)
			}
			return nil
		},
	}
	s.addFlags(c, 0)
	c.Flags().StringVar(&file, "out", "", "`file` to write; it must not exist")
	c.Flags().StringArrayVar(&policies, "policy", nil, "`name` of a policy to take along; may be given several times")
	c.Flags().StringArrayVar(&sites, "site", nil, "`name` of a site that the stick goes to: its grants are taken along; may be given several times")
	c.Flags().BoolVar(&revocations, "revocations", false, "take the seeder's list of revoked bundles along")
	return c
}

// enclose fetches from the seeder the newest revisions of the named policies and the list of revoked bundles.
func (s *server) enclose(ctx context.Context, names []string, revocations bool) (out chunker.Enclosed, err error) {
	if len(names) == 0 && !revocations {
		return out, nil
	}
	client, err := s.client()
	if err != nil {
		return out, err
	}
	infos, err := client.Policies(ctx)
	if err != nil {
		return out, err
	}
	for _, name := range names {
		info := find(infos, name)
		if info.Revision == 0 {
			return out, problem.New(problem.NotFound, "there is no policy %s", name).WithDone("nothing was written").WithNext("meshctl policy list")
		}
		out.Policies = append(out.Policies, info.Document)
	}
	l, err := client.Revocations(ctx)
	if err == nil && l.Document != nil {
		out.Revocations = *l.Document
	}
	return out, err
}

// carry has the seeder make the grants of the sites that the policies' bundles are brought to, and returns them.
func (s *server) carry(ctx context.Context, sites, policies []string) (out []api.SiteGrant, err error) {
	if len(sites) == 0 {
		return nil, nil
	}
	if len(policies) == 0 {
		return nil, problem.New(problem.Usage, "--site needs --policy: a grant is for a policy").WithDone("nothing was written")
	}
	client, err := s.client()
	if err != nil {
		return nil, err
	}
	for _, site := range sites {
		grants, err := client.CarryGrants(ctx, site, api.CarryGrants{Policies: policies})
		if err != nil {
			return nil, err
		}
		out = append(out, grants...)
	}
	return out, nil
}

// writeStick writes under a temporary name: a stick pulled out too early has no file that looks whole.
func writeStick(ctx context.Context, name string, b *chunker.Bundle, with chunker.Enclosed, report *progress.Reporter) (n int64, err error) {
	if _, err := os.Lstat(name); err == nil {
		return 0, problem.New(problem.AlreadyExists, "%s exists", name).WithDone("nothing was overwritten").WithNext("choose another name")
	}
	f, err := os.CreateTemp(filepath.Dir(name), durable.TempPrefix+"*")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := chunker.Export(ctx, b, with, w, report); err != nil {
		return 0, err
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	if err := f.Chmod(0o644); err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if err := f.Close(); err != nil {
		return 0, err
	}
	return info.Size(), durable.Rename(f.Name(), name)
}

// counted reports what is read.
type counted struct {
	r      io.Reader
	report *progress.Reporter
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.report.Add(int64(n))
	return n, err
}

func newBundleImport(env cli.Env) *cobra.Command {
	var socket string
	var out output
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "give an exported bundle to the daemon of this node",
		Long: `Import streams the file to meshd on this machine. The daemon checks the signature
first and then every chunk, keeps what is good and shares it with the whole site.
Cut it at any time and run it again.`,
		Example: `  meshctl bundle import /media/stick/app-1.2.mesh`,
		Args:    cli.Args(1, 1, "FILE, written by bundle export"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			client, err := api.NewNodeClient(socket)
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			report := progress.For(env.Stderr, out.json)
			defer report.Stop()
			report.Stage("import", info.Size(), progress.Bytes)
			r, err := client.Import(c.Context(), counted{f, report})
			if err != nil {
				return err
			}
			report.Done()
			if out.json {
				return cli.JSON(env.Stdout, r)
			}
			_, err = fmt.Fprintf(env.Stdout, "imported %s %s   %d chunks, %d new with %s; %s\n%s\n", r.Bundle, r.Version, r.Chunks, r.Added,
				cli.Bytes(r.Bytes), policyCount(r.Policies), r.Checksum)
			return err
		},
	}
	c.Flags().StringVar(&socket, "socket", nodeSocket, "`path` of the daemon's socket")
	out.addFlags(c, "text", "json")
	return c
}

func policyCount(n int) string {
	if n == 1 {
		return "1 policy"
	}
	return fmt.Sprintf("%d policies", n)
}
