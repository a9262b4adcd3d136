package seeder

import (
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/patchmesh/patchmesh/internal/build"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/xfer"
	"github.com/patchmesh/patchmesh/seeder/lease"
)

// databaseFile is the database in the state directory.
const databaseFile = "seeder.db"

// DefaultCongestion is the congestion control by which a seeder sends: random loss does not slow it down.
const DefaultCongestion = "bbr"

// Config of a seeder. State, ListenMesh, Release and Policy are required; a zero field is the default beside it.
type Config struct {
	State         string         // directory
	Database      string         // file, or postgres://USER@HOST/DATABASE; default State/seeder.db
	ListenMesh    string         // IP:port of the mesh; port 0 lets the system choose
	ListenAPI     string         // IP:port of the HTTPS API; empty: the unix socket only
	AdvertiseMesh []string       // host:port under which nodes reach the mesh; default ListenMesh
	AdvertiseAPI  []string       // host:port under which nodes reach the API; default ListenAPI
	ListenMetrics string         // IP:port on the loopback where metrics are served without a token; empty: nowhere
	Socket        string         // of the API; default State/seeder.sock
	Release       trust.RoleKeys // who may sign bundles
	Policy        trust.RoleKeys // who may sign policies
	Git           GitConfig      // the repository with policies that is followed, if any
	WANCapTotal   int64          // bytes per second to all sites together, as they leave; 0: no cap
	Congestion    string         // TCP congestion control towards the sites; see DefaultCongestion
	NoYield       bool           // fill a site's link though others use it
	Leases        lease.Config
	Limits        xfer.Limits
	SilentAfter   time.Duration // two minutes: a node that was not heard of for longer is silent
	Now           func() time.Time
	Logger        *slog.Logger
}

func (c *Config) fill() error {
	switch {
	case c.State == "":
		return problem.New(problem.Usage, "no state directory is given")
	case c.ListenMesh == "":
		return problem.New(problem.Usage, "no mesh address to listen on is given")
	case c.ListenMetrics != "" && !onLoopback(c.ListenMetrics):
		return problem.New(problem.Usage, "metrics are served without a token on the loopback only, not on %q", c.ListenMetrics).
			WithNext("scrape the API with a viewer's token: meshctl access create")
	case c.WANCapTotal < 0:
		return problem.New(problem.Usage, "a cap of %d bytes per second", c.WANCapTotal)
	}
	if err := c.Git.fill(); err != nil {
		return err
	}
	if c.Database == "" {
		c.Database = filepath.Join(c.State, databaseFile)
	}
	if c.Socket == "" {
		c.Socket = filepath.Join(c.State, "seeder.sock")
	}
	if c.Limits == (xfer.Limits{}) {
		c.Limits = xfer.SeederLimits()
	}
	if c.Congestion == "" {
		c.Congestion = DefaultCongestion
	}
	if c.SilentAfter == 0 {
		c.SilentAfter = 2 * time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	for _, a := range append(append([]string{}, c.AdvertiseMesh...), c.AdvertiseAPI...) {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" || port == "0" {
			return problem.New(problem.Usage, "advertised address %q: want host:port", a)
		}
	}
	return nil
}

// onLoopback reports whether an address is one that no other machine reaches.
func onLoopback(addr string) bool {
	ap, err := netip.ParseAddrPort(addr)
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// advertised returns the addresses to tell others: those configured, or the one listened on where that says a place.
func advertised(what string, configured []string, listen netip.AddrPort) ([]string, error) {
	if len(configured) > 0 {
		return configured, nil
	}
	if listen.Addr().IsUnspecified() {
		return nil, problem.New(problem.Usage, "listening on %s says no address under which nodes reach the %s", listen, what).
			WithNext("say it with --advertise-%s HOST:PORT", what)
	}
	return []string{listen.String()}, nil
}

// Software is what the seeder says of itself.
func Software() string { return build.Software("seeder") }

// buildTime is the least time at which signatures are judged, should the clock be wrong.
func buildTime() time.Time { return build.Time() }
