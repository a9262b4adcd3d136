package main

import (
	"bytes"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
	"github.com/patchmesh/patchmesh/seeder"
	"github.com/patchmesh/patchmesh/seeder/lease"
)

// maxConfigBytes bounds the configuration file.
const maxConfigBytes = 64 << 10

// options are the configuration file; each has a flag that wins over it. examples/config/seeder.yaml shows them all.
type options struct {
	State            string   `yaml:"state"`
	ListenMesh       string   `yaml:"listenMesh"`
	ListenAPI        string   `yaml:"listenApi"`
	AdvertiseMesh    []string `yaml:"advertiseMesh"`
	AdvertiseAPI     []string `yaml:"advertiseApi"`
	ListenMetrics    string   `yaml:"listenMetrics"`
	Socket           string   `yaml:"socket"`
	ReleaseKeys      []string `yaml:"releaseKeys"`
	ReleaseThreshold int      `yaml:"releaseThreshold"`
	PolicyKeys       []string `yaml:"policyKeys"`
	PolicyThreshold  int      `yaml:"policyThreshold"`
	WANCapTotal      string   `yaml:"wanCapTotal"`
	MaxActiveSites   int      `yaml:"maxActiveSites"`
	Congestion       string   `yaml:"congestion"`
	NoYield          bool     `yaml:"noYield"`
	GitRepository    string   `yaml:"gitRepository"`
	GitBranch        string   `yaml:"gitBranch"`
	GitPoll          string   `yaml:"gitPoll"`
	GitWebhookSecret string   `yaml:"gitWebhookSecretFile"`
	Database         database `yaml:",inline"`
}

func (o *options) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.State, "state", o.State, "state `directory`")
	f.StringVar(&o.ListenMesh, "listen-mesh", o.ListenMesh, "`IP:port` of the mesh")
	f.StringVar(&o.ListenAPI, "listen-api", o.ListenAPI, "`IP:port` of the HTTPS API; empty: the unix socket only, and no node can join")
	f.StringSliceVar(&o.AdvertiseMesh, "advertise-mesh", nil, "`host:port` under which nodes reach the mesh (default --listen-mesh)")
	f.StringSliceVar(&o.AdvertiseAPI, "advertise-api", nil, "`host:port` under which nodes reach the API (default --listen-api)")
	f.StringVar(&o.ListenMetrics, "listen-metrics", "", "`IP:port` on the loopback that serves /metrics without a token; empty: by the API only")
	f.StringVar(&o.Socket, "socket", "", "`path` of the API's unix socket (default STATE/seeder.sock)")
	f.StringSliceVar(&o.ReleaseKeys, "release-key", nil, "`file` with OpenPGP public keys that may sign bundles")
	f.IntVar(&o.ReleaseThreshold, "release-threshold", o.ReleaseThreshold, "how many different release keys must sign a bundle")
	f.StringSliceVar(&o.PolicyKeys, "policy-key", nil, "`file` with OpenPGP public keys that may sign policies")
	f.IntVar(&o.PolicyThreshold, "policy-threshold", o.PolicyThreshold, "how many different policy keys must sign a policy")
	f.StringVar(&o.WANCapTotal, "wan-cap-total", o.WANCapTotal, "bits per second to all sites together, e.g. `300Mbit`; 0: no cap")
	f.IntVar(&o.MaxActiveSites, "max-active-sites", o.MaxActiveSites, "uplinks that may fetch at the same time; further ones are asked to come back")
	f.StringVar(&o.Congestion, "congestion", o.Congestion, "TCP congestion `control` towards the sites, as the kernel names it, where the kernel allows it")
	o.Database.addFlags(c)
	f.StringVar(&o.GitRepository, "git-repository", "", "`URL` of a Git repository with policies/, sites/ and keys/ to follow: https://, ssh:// or file://")
	f.StringVar(&o.GitBranch, "git-branch", o.GitBranch, "`branch` of the Git repository")
	f.StringVar(&o.GitPoll, "git-poll", o.GitPoll, "how `often` to look at the Git repository")
	f.StringVar(&o.GitWebhookSecret, "git-webhook-secret-file", "", "`file` with the secret of the webhook by which the repository's host says that something changed")
	f.BoolVar(&o.NoYield, "no-yield", o.NoYield, "fill the sites' links though others use them")
}

func defaults() options {
	return options{State: "/var/lib/seeder", ListenMesh: "0.0.0.0:7400", ReleaseThreshold: 1, PolicyThreshold: 1, WANCapTotal: "0", MaxActiveSites: 2048, Congestion: seeder.DefaultCongestion,
		GitBranch: "main", GitPoll: seeder.DefaultGitPoll.String()}
}

// load reads the file named by --config, if any, and puts the flags that were given over it.
func (o *options) load(c *cobra.Command, file string) (seeder.Config, error) {
	if file != "" {
		given := *o
		*o = defaults()
		if err := readYAML(file, o); err != nil {
			return seeder.Config{}, err
		}
		o.override(c, given)
	}
	rate, err := wanprofile.ParseRate(o.WANCapTotal)
	if err != nil {
		return seeder.Config{}, cli.Usage(c, "--wan-cap-total %s", err)
	}
	if o.MaxActiveSites < 1 {
		return seeder.Config{}, cli.Usage(c, "--max-active-sites %d: want at least 1", o.MaxActiveSites)
	}
	cfg := seeder.Config{State: o.State, ListenMesh: o.ListenMesh, ListenAPI: o.ListenAPI, AdvertiseMesh: o.AdvertiseMesh, AdvertiseAPI: o.AdvertiseAPI,
		ListenMetrics: o.ListenMetrics, Socket: o.Socket, WANCapTotal: rate, Congestion: o.Congestion, NoYield: o.NoYield,
		Leases: lease.Config{MaxActive: o.MaxActiveSites}}
	if cfg.Database, err = o.Database.source(c); err != nil {
		return seeder.Config{}, err
	}
	if cfg.Release, err = readRole("release", o.ReleaseKeys, o.ReleaseThreshold); err != nil {
		return seeder.Config{}, err
	}
	if cfg.Policy, err = readRole("policy", o.PolicyKeys, o.PolicyThreshold); err != nil {
		return seeder.Config{}, err
	}
	cfg.Git, err = o.git(c)
	return cfg, err
}

// override copies the values whose flags were given.
func (o *options) override(c *cobra.Command, given options) {
	for name, set := range map[string]func(){
		"state":                   func() { o.State = given.State },
		"listen-mesh":             func() { o.ListenMesh = given.ListenMesh },
		"listen-api":              func() { o.ListenAPI = given.ListenAPI },
		"advertise-mesh":          func() { o.AdvertiseMesh = given.AdvertiseMesh },
		"advertise-api":           func() { o.AdvertiseAPI = given.AdvertiseAPI },
		"listen-metrics":          func() { o.ListenMetrics = given.ListenMetrics },
		"socket":                  func() { o.Socket = given.Socket },
		"release-key":             func() { o.ReleaseKeys = given.ReleaseKeys },
		"release-threshold":       func() { o.ReleaseThreshold = given.ReleaseThreshold },
		"policy-key":              func() { o.PolicyKeys = given.PolicyKeys },
		"policy-threshold":        func() { o.PolicyThreshold = given.PolicyThreshold },
		"wan-cap-total":           func() { o.WANCapTotal = given.WANCapTotal },
		"max-active-sites":        func() { o.MaxActiveSites = given.MaxActiveSites },
		"congestion":              func() { o.Congestion = given.Congestion },
		"git-repository":          func() { o.GitRepository = given.GitRepository },
		"git-branch":              func() { o.GitBranch = given.GitBranch },
		"git-poll":                func() { o.GitPoll = given.GitPoll },
		"git-webhook-secret-file": func() { o.GitWebhookSecret = given.GitWebhookSecret },
		"no-yield":                func() { o.NoYield = given.NoYield },
		"database":                func() { o.Database = given.Database },
		"database-file":           func() { o.Database = given.Database },
	} {
		if c.Flags().Changed(name) {
			set()
		}
	}
}

func readFile(name string, limit int64) ([]byte, error) {
	bad := func(err error) error { return problem.New(problem.InvalidFile, "%s cannot be read", name).Because(err) }
	f, err := os.Open(name)
	if err != nil {
		return nil, bad(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, bad(err)
	}
	if int64(len(b)) > limit {
		return nil, problem.New(problem.InvalidFile, "%s has more than %d bytes", name, limit)
	}
	return b, nil
}

func readYAML(name string, to *options) error {
	b, err := readFile(name, maxConfigBytes)
	if err != nil {
		return err
	}
	return parseYAML(name, b, to)
}

// parseYAML is strict: an unknown key, a key given twice or a second document is an error.
func parseYAML(name string, b []byte, to *options) error {
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	err := d.Decode(to)
	if errors.Is(err, io.EOF) {
		return nil // an empty file
	}
	if err == nil {
		var more yaml.Node
		if err = d.Decode(&more); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("a second document follows")
	}
	return problem.New(problem.InvalidFile, "configuration %s", name).Because(err)
}

func readRole(role string, files []string, threshold int) (trust.RoleKeys, error) {
	if len(files) == 0 {
		return trust.RoleKeys{}, problem.New(problem.Usage, "no %s key is given", role).WithNext("make one with: meshctl key generate %s", role)
	}
	var keys []trust.Key
	for _, name := range files {
		b, err := readFile(name, trust.MaxKeyringBytes*2)
		if err != nil {
			return trust.RoleKeys{}, err
		}
		more, err := trust.ReadKeys(b)
		if err != nil {
			return trust.RoleKeys{}, problem.New(problem.InvalidFile, "%s key file %s", role, name).Because(err)
		}
		keys = append(keys, more...)
	}
	k, err := trust.NewRoleKeys(threshold, keys...)
	if err != nil {
		return trust.RoleKeys{}, problem.New(problem.InvalidFile, "%s keys", role).Because(err)
	}
	return k, nil
}
