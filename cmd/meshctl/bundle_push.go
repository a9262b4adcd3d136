package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/patchmesh/patchmesh/chunker"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/progress"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// maxParallel bounds the uploads in flight, and with them the memory: one chunk each.
const maxParallel = 64

func newBundlePush(env cli.Env) *cobra.Command {
	s := &server{env: env}
	var parallel int
	var out output
	c := &cobra.Command{
		Use:   "push BUNDLE",
		Short: "send a bundle to the seeder",
		Long: `Push sends the chunks that the seeder does not have and then publishes the bundle.
Cut it at any time and run it again: it goes on where it was. The seeder checks
the signature before it takes anything.`,
		Example: `  meshctl bundle push app-1.2.bundle`,
		Args:    cli.Args(1, 1, "BUNDLE, a directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			if parallel < 1 || parallel > maxParallel {
				return cli.Usage(c, "--parallel %d: want 1 to %d", parallel, maxParallel)
			}
			b, err := chunker.Open(args[0])
			if err != nil {
				return err
			}
			client, err := s.client()
			if err != nil {
				return err
			}
			ctx, cancel := s.within(c.Context())
			defer cancel()
			report := progress.For(env.Stderr, out.json)
			defer report.Stop()
			info, err := push(ctx, client, b, parallel, report)
			if err != nil {
				return err
			}
			if out.json {
				return cli.JSON(env.Stdout, info)
			}
			_, err = fmt.Fprintf(env.Stdout, "pushed %s %s   %s in %d chunks, %s new\n%s\n", info.Name, info.Version, cli.Bytes(info.Distinct), info.Chunks,
				cli.Bytes(info.Sent), info.Digest)
			return err
		},
	}
	s.addFlags(c, 0)
	c.Flags().IntVar(&parallel, "parallel", 4, "uploads in flight")
	out.addFlags(c, "text", "json")
	return c
}

// pushed is what the seeder has, and how much of it was sent now.
type pushed struct {
	api.BundleInfo
	Sent int64 `json:"sent"`
}

func push(ctx context.Context, client *api.Client, b *chunker.Bundle, parallel int, report *progress.Reporter) (pushed, error) {
	sums, err := signedSums(b)
	if err != nil {
		return pushed{}, err
	}
	begun, err := client.BeginBundle(ctx, api.BundleUpload{Manifest: b.Signed, Index: b.IndexBytes(), Sums: sums})
	if err != nil {
		return pushed{}, err
	}
	catalog := b.Catalog()
	var missing []manifest.ChunkRef
	var total int64
	for _, id := range begun.Missing {
		i, ok := catalog.Position(id)
		if !ok {
			return pushed{}, fmt.Errorf("the seeder asks for chunk %s, which is not part of the bundle", id)
		}
		missing = append(missing, catalog.Chunks[i])
		total += catalog.Chunks[i].Size
	}

	report.Stage("push", total, progress.Bytes)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, ref := range missing {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			plain, err := b.ReadChunk(ref)
			if err != nil {
				return err
			}
			if err := client.PutChunk(gctx, ref.ID, plain); err != nil {
				return err
			}
			report.Add(ref.Size)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return pushed{}, err
	}
	if err := ctx.Err(); err != nil {
		return pushed{}, err
	}
	report.Done()
	info, err := client.CommitBundle(ctx, begun.Digest)
	return pushed{info, total}, err
}

// signedSums reads SHA256SUMS and its signature. The seeder verifies them.
func signedSums(b *chunker.Bundle) (s trust.Signed, err error) {
	if !b.IsSigned() {
		return s, problem.New(problem.SignatureInvalid, "bundle %s is not signed", b.Dir).WithDone("nothing was sent").WithNext("meshctl bundle sign %s", b.Dir)
	}
	name := filepath.Join(b.Dir, chunker.SumsName)
	if s.Doc, err = os.ReadFile(name); err != nil {
		return s, err
	}
	s.Sig, err = os.ReadFile(name + chunker.SignatureSuffix)
	return s, err
}
