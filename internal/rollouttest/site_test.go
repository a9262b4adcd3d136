package rollouttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/harness"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
)

const (
	name     = "edge-fleet" // of the policy
	bundle   = "default"    // what a policy that names none asks for
	store    = "store"
	patience = 4 * time.Minute
	often    = 100 * time.Millisecond
)

// site is a seeder and one site of real processes.
type site struct {
	*testing.T
	*harness.Lab
	ctx    context.Context
	seeder *harness.Seeder
	shop   *harness.Site
	clinic *clinic
	sums   map[string]manifest.Digest // of the versions that are published
}

// newSite starts a seeder. Nodes join later: they are told of the keys that it has then.
func newSite(t *testing.T) *site {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a minute: run without -short")
	}
	t.Parallel()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	lab, err := harness.New(bin)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	s := &site{T: t, Lab: lab, ctx: ctx, sums: map[string]manifest.Digest{}}
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			lab.Tail(os.Stderr, 40)
		}
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	s.seeder, err = lab.NewSeeder(ctx)
	s.must(err)
	s.shop = s.seeder.At(store)
	s.clinic = newClinic(s)
	return s
}

// restart starts the seeder with more flags.
func (s *site) restart(flags ...string) {
	s.Helper()
	s.seeder.Flags = append(s.seeder.Flags, flags...)
	s.must(s.seeder.Stop(s.ctx))
	s.must(s.seeder.Start(s.ctx))
}

// nodes joins nodes and starts them.
func (s *site) nodes(n int) {
	s.Helper()
	for range n {
		_, err := s.shop.Join(s.ctx, "--label", "region=us-east")
		s.must(err)
	}
	s.must(s.shop.Start(s.ctx))
}

// release publishes a version that says which it is.
func (s *site) release(version string) {
	s.Helper()
	dir := s.Path("input-" + version)
	s.must(os.MkdirAll(dir, 0o755))
	s.must(harness.RandomTree(dir, 1<<20, byte(len(s.sums))))
	s.must(os.WriteFile(filepath.Join(dir, "version"), []byte(version), 0o644))
	built, sum, err := s.seeder.Build(s.ctx, bundle, version, len(s.sums)+1, dir)
	s.must(err)
	s.must(s.seeder.Push(s.ctx, built))
	s.sums[version] = sum
}

// text is the owner's sample with another strategy. The window is open, unless a test wants one that opens later.
func (s *site) text(version, window, strategy string) string {
	return fmt.Sprintf(`apiVersion: patchmgmt.io/v1
kind: PatchPolicy
metadata: {name: %s, namespace: operations}
spec:
  bundleRef: {version: %q, checksum: "%s"}
  targets: {selector: {matchLabels: {role: node, region: us-east}}}
  schedule:
    maintenanceWindow: "Daily %s"
    timezone: "America/New_York"
    rolloutStrategy: {type: RollingUpdate, %s}
  rollback: {enabled: true, healthCheckUrl: "%s/health", healthCheckTimeoutSeconds: 2}
`, name, version, s.sums[version], window, strategy, s.clinic.url)
}

const always = "00:00-24:00"

// apply applies a policy by hand.
func (s *site) apply(text string) {
	s.Helper()
	file := s.Path("policy.yaml")
	s.must(os.WriteFile(file, []byte(text), 0o644))
	s.meshctl("apply", "-f", file, "--key", s.Path("operator.key"))
}

// meshctl runs a command as an operator does. That somebody should look at something is no error.
func (s *site) meshctl(args ...string) string {
	s.Helper()
	out, err := s.seeder.Meshctl(s.ctx, args...)
	if exit := (*harness.ExitError)(nil); errors.As(err, &exit) && exit.Status == 3 {
		err = nil
	}
	s.must(err)
	return string(out)
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) client() *api.Client {
	s.Helper()
	a, err := api.ReadAccess(s.seeder.Admin())
	s.must(err)
	c, err := api.NewClient(a)
	s.must(err)
	s.Cleanup(c.CloseIdle)
	return c
}

func (s *site) await(what string, check func() (bool, string)) {
	s.Helper()
	began := time.Now()
	s.must(harness.Await(s.ctx, what, often, func() (bool, string, error) {
		ok, state := check()
		return ok, state, nil
	}))
	s.Logf("%5.1f s until %s", time.Since(began).Seconds(), what)
}

// settled waits until the nodes have these versions in force, by the links on their disks, and say so to their own sockets:
// it needs no seeder. A version with a "!" is what a node has gone back to.
func (s *site) settled(what string, want ...string) {
	s.Helper()
	s.await(what, func() (bool, string) {
		var got []string
		for _, n := range s.shop.Nodes {
			got = append(got, s.stands(n))
		}
		return slices.Equal(got, want), strings.Join(got, " ")
	})
}

func (s *site) stands(n *harness.Node) string {
	st, err := n.Self(s.ctx)
	if err != nil {
		return "?"
	}
	version := installed(n)
	switch {
	case st.Phase == status.RolledBack:
		return version + "!"
	case st.Phase != status.Installed || len(st.Installed) != 1 || st.Installed[0].Version != version:
		return version + "..."
	}
	return version
}

// installed is the version that is in force, by the disk.
func installed(n *harness.Node) string {
	b, _ := os.ReadFile(filepath.Join(n.Current(bundle), "version")) // none: there is no release
	return string(b)
}

// outcomes are the receipts that the seeder has of each node, in their order, as BEFORE->AFTER OUTCOME, and they are a chain: none
// is missing, none is there twice.
func (s *site) outcomes() (all map[string][]string, list []api.RecordedReceipt) {
	s.Helper()
	page, err := s.client().Receipts(s.ctx, api.ReceiptQuery{Site: store, Limit: 1000})
	s.must(err)
	all = map[string][]string{}
	last := map[string]*manifest.Digest{}
	slices.SortStableFunc(page.Receipts, func(a, b api.RecordedReceipt) int { return int(a.Body.Receipt.Number) - int(b.Body.Receipt.Number) })
	for _, r := range page.Receipts {
		node := r.Body.Node
		rec := r.Body.Receipt
		if int(rec.Number) != len(all[node])+1 || (rec.Previous == nil) != (last[node] == nil) || rec.Previous != nil && *rec.Previous != *last[node] {
			s.Errorf("receipt %d of %s does not follow the %d before", rec.Number, node, len(all[node]))
		}
		all[node] = append(all[node], version(rec.From)+"->"+version(rec.Now)+" "+r.Body.Outcome)
		last[node] = &r.Hash
	}
	return all, page.Receipts
}

func version(b *status.ReceiptBundle) string {
	if b == nil {
		return ""
	}
	return b.Version
}

// receipts waits until the seeder has so many receipts of each node, and says which.
func (s *site) receipts(want ...int) map[string][]string {
	s.Helper()
	var got map[string][]string
	s.await(fmt.Sprintf("receipts %v", want), func() (bool, string) {
		got, _ = s.outcomes()
		var have []int
		for _, n := range s.shop.Nodes {
			have = append(have, len(got[n.Name]))
		}
		return slices.Equal(have, want), fmt.Sprint(got)
	})
	return got
}
