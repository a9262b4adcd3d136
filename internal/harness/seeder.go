package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
)

// pollEvery is how often the harness looks whether something has become true.
const pollEvery = 100 * time.Millisecond

// seederHost is the seeder's first host and the administrator's.
const seederHost = "seeder"

// StandIn is the host of a second seeder, for a lab on a ground that has one.
const StandIn = "seeder-2"

// Seeder is a seeder with its two signing keys.
type Seeder struct {
	lab    *Lab
	places []place // where it may run; nodes are told of all when they join
	at     int     // the place where it runs
	proc   *Proc

	Flags []string // more flags of "seeder serve", from the next start on
	Env   []string // more of the environment of Meshctl
}

// place is a host with a state directory.
type place struct {
	host, state string
	mesh, api   string // host:port, the same after a restart
}

// NewSeeder makes the release and the operator's key, and starts a seeder that trusts them. With a stand-in it has two
// addresses, see [Seeder.Copy].
func (l *Lab) NewSeeder(ctx context.Context, standIns ...string) (*Seeder, error) {
	for _, name := range []string{"release", "operator"} {
		if _, err := l.Run(ctx, "meshctl", "key", "generate", l.Path(name)); err != nil {
			return nil, err
		}
	}
	s := &Seeder{lab: l}
	for _, host := range append([]string{seederHost}, standIns...) {
		p := place{host: host, state: l.Path(host)}
		var err error
		if p.mesh, err = l.ground.Addr(ctx, host); err != nil {
			return nil, err
		}
		if p.api, err = l.ground.Addr(ctx, host); err != nil {
			return nil, err
		}
		s.places = append(s.places, p)
	}
	return s, s.Start(ctx)
}

func (s *Seeder) here() place { return s.places[s.at] }

// Admin is the file with which meshctl reaches the seeder.
func (s *Seeder) Admin() string { return filepath.Join(s.here().state, "admin.json") }

// Start starts the seeder and waits until it answers.
func (s *Seeder) Start(ctx context.Context) error {
	if err := durable.Remove(s.Admin()); err != nil { // it appears again when the seeder is ready
		return err
	}
	p := s.here()
	args := []string{"serve", "--state", p.state, "--listen-mesh", p.mesh, "--listen-api", p.api,
		"--release-key", s.lab.Path("release.gpg"), "--policy-key", s.lab.Path("operator.gpg")}
	for _, q := range s.places {
		args = append(args, "--advertise-mesh", q.mesh, "--advertise-api", q.api)
	}
	args = append(args, s.Flags...)
	var err error
	s.proc, err = s.lab.Start(p.host, "seeder", args...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	return Await(ctx, "seeder", pollEvery, func() (bool, string, error) {
		if !s.proc.Running() {
			return false, "", s.proc.ended()
		}
		_, err := os.Stat(s.Admin())
		return err == nil, "not ready", nil
	})
}

// Copy copies the seeder's whole state, its identity included, to the stand-in's host. The seeder is stopped for that
// and started again.
func (s *Seeder) Copy(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	if _, err := CopyTree(s.places[s.at+1].state, s.here().state); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Replace starts the copy on the stand-in's host. The seeder before it must not run any more, there or ever.
func (s *Seeder) Replace(ctx context.Context) error {
	s.at++
	return s.Start(ctx)
}

// startTime is how long a daemon may take to be ready on a busy machine.
const startTime = 30 * time.Second

// Stop asks the seeder to end.
func (s *Seeder) Stop(ctx context.Context) error { return s.proc.Stop(ctx) }

// Kill ends the seeder at once.
func (s *Seeder) Kill() { s.proc.Kill() }

// Meshctl runs meshctl as the administrator of this seeder.
func (s *Seeder) Meshctl(ctx context.Context, args ...string) ([]byte, error) {
	return s.lab.run(ctx, seederHost, append([]string{"MESHCTL_CONFIG=" + s.Admin()}, s.Env...), "meshctl", args...)
}

// Build builds and signs a bundle from a directory and returns its directory and checksum. It targets any machine.
func (s *Seeder) Build(ctx context.Context, name, version string, sequence int, from string) (dir string, sum manifest.Digest, err error) {
	dir = s.lab.Path(name + "-" + version + ".bundle")
	out, err := s.lab.Run(ctx, "meshctl", "bundle", "build", "--json", "--name", name, "--version", version, "--sequence", fmt.Sprint(sequence),
		"--format", "files", "--target-os", "any", "--from", from, "--out", dir, "--key", s.lab.Path("release.key"))
	if err != nil {
		return "", sum, err
	}
	var answer struct{ Checksum manifest.Digest }
	err = answered(out, nil, &answer)
	return dir, answer.Checksum, err
}

// Push sends a bundle to the seeder.
func (s *Seeder) Push(ctx context.Context, dir string) error {
	_, err := s.Meshctl(ctx, "bundle", "push", dir)
	return err
}

// policyText is a policy for all nodes with the label that Site gives them.
const policyText = `apiVersion: patchmgmt.io/v1
kind: PatchPolicy
metadata:
  name: %s
spec:
  bundleRef:
    name: %s
    version: %q
    checksum: %s
  targets:
    selector:
      matchLabels:
        role: node
`

// Policy applies a policy, named as the bundle, that wants this version on every node of the lab.
func (s *Seeder) Policy(ctx context.Context, bundle, version string, sum manifest.Digest) error {
	return s.PolicyText(ctx, bundle+"-"+version, fmt.Sprintf(policyText, bundle, bundle, version, sum))
}

// PolicyText applies a policy of this text, from a file of this name.
func (s *Seeder) PolicyText(ctx context.Context, file, text string) error {
	name := s.lab.Path(file + ".yaml")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		return err
	}
	_, err := s.Meshctl(ctx, "apply", "-f", name, "--key", s.lab.Path("operator.key"))
	return err
}

// Release builds, pushes and applies.
func (s *Seeder) Release(ctx context.Context, name, version string, sequence int, from string) error {
	dir, sum, err := s.Build(ctx, name, version, sequence, from)
	if err != nil {
		return err
	}
	if err := s.Push(ctx, dir); err != nil {
		return err
	}
	return s.Policy(ctx, name, version, sum)
}

// Site makes a site and joins n nodes to it, named node-1 and so on. They are not started. wanCap is as for "meshctl
// site create".
func (s *Seeder) Site(ctx context.Context, name, wanCap string, n int) (*Site, error) {
	if _, err := s.Meshctl(ctx, "site", "create", name, "--wan-cap", wanCap); err != nil {
		return nil, err
	}
	site := s.At(name)
	for range n {
		if _, err := site.Join(ctx); err != nil {
			return nil, err
		}
	}
	return site, nil
}

// At is a site that exists already.
func (s *Seeder) At(name string) *Site { return &Site{Name: name, seeder: s} }

// Fleet is what the seeder says of all sites.
func (s *Seeder) Fleet(ctx context.Context) (status.Fleet, error) {
	var f status.Fleet
	out, err := s.Meshctl(ctx, "status", "--json")
	return f, answered(out, err, &f)
}

// Bundles are the bundles that the seeder has.
func (s *Seeder) Bundles(ctx context.Context) ([]api.BundleInfo, error) {
	var infos []api.BundleInfo
	out, err := s.Meshctl(ctx, "bundle", "list", "--json")
	return infos, answered(out, err, &infos)
}
