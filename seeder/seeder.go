package seeder

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/chunker/store/encoded"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/xfer"
	"github.com/patchmesh/patchmesh/seeder/fleet"
	"github.com/patchmesh/patchmesh/seeder/lease"
)

// Intervals of writing what need not be durable at once, and of letting requests end when the seeder stops.
const (
	flushEvery = time.Second
	drainTime  = 5 * time.Second
)

// Seeder is an open seeder.
type Seeder struct {
	cfg       Config
	log       *slog.Logger
	now       func() time.Time
	ctx       context.Context // of Run
	peerID    string
	set       trust.Set
	token     string
	meshAddrs []string
	apiURLs   []string

	revocations *revocations

	db         *fleet.Store
	members    *members
	library    *library
	desired    *desired
	follower   *follower
	orders     *orders
	boards     *boards
	rollouts   *rollouts
	budget     *budget
	leases     *leases
	ledger     *ledger
	presence   *presence
	intake     *intake
	sessions   *sessions
	pace       *pace
	profiles   sync.Mutex // held while a WAN profile is changed
	yield      *yielding
	shelf      *shelf
	host       *xfer.Host
	tokens     *tokens
	audit      *audit
	once       *once
	events     *events
	post       *post
	metrics    *metrics
	quarantine *quarantine
	watchers   chan struct{}   // a place for each open stream
	planners   chan struct{}   // a place for each plan that is made
	scripts    *rate.Limiter   // of what comes without a signature
	ending     <-chan struct{} // closed when Run is to end: streams end

	unixListener, tlsListener, metricsListener net.Listener
	opened                                     []io.Closer // in the order in which they were opened
}

// New opens the state directory, making it on the first start, and all listeners. Nothing is served before Run; a seeder
// that will not run must be closed.
func New(ctx context.Context, cfg Config) (*Seeder, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	s := &Seeder{cfg: cfg, log: cfg.Logger, now: cfg.Now, sessions: newSessions(), yield: newYielding(cfg)}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Seeder) open(ctx context.Context) error {
	dir := s.cfg.State
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return problem.New(problem.InvalidFile, "the state directory %s cannot be made", dir).Because(err)
	}
	chunks, err := store.Open(filepath.Join(dir, "store"), store.Options{OnDamage: func(id chunk.ID) {
		s.log.Error("a stored chunk was damaged and dropped; push its bundle again", "chunk", id.String())
	}})
	if err != nil {
		return err
	}
	s.opened = append(s.opened, chunks)
	enc, err := encoded.Open(filepath.Join(dir, "encoded"))
	if err != nil {
		return err
	}
	identity, err := openIdentity(dir)
	if err != nil {
		return err
	}
	s.peerID = api.PeerID(identity.Public().(ed25519.PublicKey))
	rosterKey, err := openRosterKey(dir)
	if err != nil {
		return err
	}
	rosterRole, err := trust.NewRoleKeys(1, rosterKey.Public())
	if err != nil {
		return err
	}
	s.set = trust.Set{Release: s.cfg.Release, Policy: s.cfg.Policy, Roster: rosterRole}
	if err := s.set.Validate(); err != nil {
		return problem.New(problem.InvalidFile, "the trusted keys cannot be used").Because(err)
	}
	if s.token, err = openToken(dir); err != nil {
		return err
	}
	if s.db, err = fleet.Open(ctx, s.cfg.Database, signRoster(rosterKey)); err != nil {
		return err
	}
	s.opened = append(s.opened, s.db)
	if err := s.load(ctx, chunks, enc, rosterKey); err != nil {
		return err
	}
	return s.listen(identity)
}

// load fills memory from disk.
func (s *Seeder) load(ctx context.Context, chunks *store.Store, enc *encoded.Cache, rosterKey *signer.KeyFile) (err error) {
	if s.tokens, err = loadTokens(ctx, s.db, s.token, s.now); err != nil {
		return err
	}
	s.events, s.watchers, s.planners = newEvents(s.now), make(chan struct{}, maxWatchers), make(chan struct{}, maxPlanners)
	s.scripts = rate.NewLimiter(scriptRate, scriptBurst)
	s.post, s.metrics = newPost(s.db, s.log, s.now, s.events), newMetrics(s)
	if s.quarantine, err = loadQuarantine(ctx, s.db); err != nil {
		return err
	}
	s.audit, s.once = newAudit(s.db, s.log, s.now), newOnce(s.db, s.log, s.now)
	if s.members, err = loadMembers(ctx, s.db); err != nil {
		return err
	}
	if s.library, err = openLibrary(ctx, s.db, chunks, enc, &s.set, s.log); err != nil {
		return err
	}
	if s.revocations, err = loadRevocations(ctx, s.db, &s.set); err != nil {
		return err
	}
	if s.desired, err = loadDesired(ctx, s.db, &s.set, s.log); err != nil {
		return err
	}
	s.desired.revoked = s.revocations.refuse
	if s.follower, err = loadFollower(ctx, s); err != nil {
		return err
	}
	if s.orders, err = loadOrders(ctx, s.db, &s.set); err != nil {
		return err
	}
	if s.ledger, err = loadLedger(ctx, s.db, s.log); err != nil {
		return err
	}
	if s.presence, err = loadPresence(ctx, s.db); err != nil {
		return err
	}
	s.shelf, s.budget = newShelf(s.library.read), newBudget()
	s.intake = newIntake(s.db, s.members, s.log)
	if err := s.beginFollowing(ctx); err != nil {
		return err
	}
	if s.rollouts, err = loadRollouts(ctx, s, rosterKey); err != nil {
		return err
	}
	s.boards = &boards{granted: s.rollouts.grant, db: s.db, members: s.members, library: s.library, desired: s.desired, revocations: s.revocations, orders: s.orders, bySite: map[string]*board{}}
	s.pace = newPace(s.now, s.cfg.WANCapTotal, s.ledger.today)
	sites, err := s.db.Sites(ctx)
	if err != nil {
		return err
	}
	for _, x := range sites {
		zone, err := time.LoadLocation(x.Timezone)
		if err != nil {
			return fmt.Errorf("time zone of site %s: %w", x.Name, err)
		}
		s.pace.set(x.Name, x.WAN, zone)
		if err := s.boards.post(ctx, x.Name); err != nil {
			return err
		}
	}
	// Lease numbers of this run differ from those of the last: the clock gives the high bits.
	first := uint64(s.now().Unix()) << 24
	s.leases = &leases{log: s.log, now: s.now, session: s.sessions.peer, terms: s.pace.terms, split: s.ledger.split, table: lease.NewTable(s.cfg.Leases, first)}
	s.pace.changed = s.leases.announce
	return nil
}

func (s *Seeder) listen(identity ed25519.PrivateKey) error {
	key, err := crypto.UnmarshalEd25519PrivateKey(identity)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	m := mesh{s}
	toll := xfer.SeederToll()
	s.host, err = xfer.New(xfer.Config{Key: key, Name: "seeder", Software: Software(), Listen: s.cfg.ListenMesh, Limits: s.cfg.Limits,
		Congestion: s.cfg.Congestion, Allow: m.allow, Toll: func(peer.ID) xfer.Toll { return toll }, Handler: m, Logger: s.log})
	if err != nil {
		return err
	}
	s.opened = append(s.opened, s.host)
	if s.host.ID().String() != s.peerID {
		return fmt.Errorf("identity: the mesh calls it %s, the API %s", s.host.ID(), s.peerID)
	}
	if s.meshAddrs, err = advertised("mesh", s.cfg.AdvertiseMesh, s.MeshAddr()); err != nil {
		return err
	}
	if s.cfg.ListenAPI != "" {
		conf, err := api.ServerTLS(identity)
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", s.cfg.ListenAPI)
		if err != nil {
			return fmt.Errorf("api: %w", err)
		}
		s.tlsListener = tls.NewListener(bound(l, maxAPIConns, maxAddrConns), conf)
		s.opened = append(s.opened, s.tlsListener)
		addrs, err := advertised("api", s.cfg.AdvertiseAPI, unmap(l.Addr().(*net.TCPAddr).AddrPort()))
		if err != nil {
			return err
		}
		for _, a := range addrs {
			s.apiURLs = append(s.apiURLs, "https://"+a)
		}
	}
	if s.cfg.ListenMetrics != "" {
		if s.metricsListener, err = net.Listen("tcp", s.cfg.ListenMetrics); err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
		s.metricsListener = bound(s.metricsListener, maxMetricsConns, maxMetricsConns)
		s.opened = append(s.opened, s.metricsListener)
	}
	// The store's lock is ours, so a socket that is there is of a seeder that died.
	if err := os.Remove(s.cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("api socket: %w", err)
	}
	if s.unixListener, err = net.Listen("unix", s.cfg.Socket); err != nil {
		return fmt.Errorf("api socket: %w", err)
	}
	s.opened = append(s.opened, s.unixListener)
	if err := os.Chmod(s.cfg.Socket, 0o600); err != nil {
		return fmt.Errorf("api socket: %w", err)
	}
	return writeAccess(s.cfg.State, s.Access())
}

// Access is what an administrator's client needs.
func (s *Seeder) Access() api.Access {
	socket, err := filepath.Abs(s.cfg.Socket)
	if err != nil { // only when the working directory is gone
		socket = s.cfg.Socket
	}
	return api.Access{URLs: append([]string{"unix://" + socket}, s.apiURLs...), Pin: s.peerID, Token: s.token}
}

// MeshAddr is the address of the mesh listener.
func (s *Seeder) MeshAddr() netip.AddrPort { return unmap(s.host.Addr()) }

// unmap turns an IPv4 address that came as IPv6 into what people write.
func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// PeerID is the seeder's identity.
func (s *Seeder) PeerID() string { return s.peerID }

// trustedNow is the time at which signatures are judged.
func (s *Seeder) trustedNow() time.Time { return trust.Floor(s.now(), buildTime()) }

// Run serves until ctx ends, then lets requests end, writes what is in memory and closes everything. It may be called
// once.
func (s *Seeder) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	s.ctx, s.ending = ctx, ctx.Done()
	routes := s.routes()
	s.serve(ctx, g, s.unixListener, trusted(routes))
	if s.metricsListener != nil {
		s.serve(ctx, g, s.metricsListener, s.onlyMetrics())
	}
	if s.tlsListener != nil {
		s.serve(ctx, g, s.tlsListener, guard(routes, s.tokens.who, routes.open(), s.audit.refused))
	}
	g.Go(func() error { return s.host.Run(ctx) })
	g.Go(func() error { return s.intake.run(ctx) })
	g.Go(func() error { return s.follower.run(ctx) })
	g.Go(func() error { return s.leases.run(ctx) })
	g.Go(func() error { return s.pace.run(ctx) })
	g.Go(func() error { return s.ledger.run(ctx) })
	g.Go(func() error { return s.flushLoop(ctx) })
	g.Go(func() error { return s.rollouts.run(ctx) })
	g.Go(func() error { return s.watchSites(ctx) })
	g.Go(func() error { return s.watchWindows(ctx) })
	g.Go(func() error { return s.follow(ctx) })
	g.Go(func() error { return s.pruneLoop(ctx) })
	g.Go(func() error { return s.post.run(ctx) })
	err := g.Wait()
	// After the last session and request: nothing changes any more.
	rest := context.WithoutCancel(ctx)
	return errors.Join(err, s.ledger.flush(rest, (*account).changed, true), s.presence.flush(rest, s.now(), true), s.tokens.flush(rest), s.Close())
}

// serve adds a server and its end to the group.
func (s *Seeder) serve(ctx context.Context, g *errgroup.Group, l net.Listener, h http.Handler) {
	srv := api.NewServer(h, s.log)
	srv.ConnContext = withPeer
	srv.BaseContext = func(net.Listener) context.Context { return context.WithoutCancel(ctx) }
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("api on %s: %w", l.Addr(), err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		if err := srv.Shutdown(drain); err != nil {
			return srv.Close()
		}
		return nil
	})
}

func (s *Seeder) flushLoop(ctx context.Context) error {
	return every(ctx, flushEvery, func() {
		if err := s.presence.flush(ctx, s.now(), false); err != nil && ctx.Err() == nil {
			s.log.Error("statements not written; trying again", "in", flushEvery.String(), "err", err)
		}
		if err := s.tokens.flush(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("use of tokens not written", "err", err)
		}
	})
}

// Close closes what New opened, the last first.
func (s *Seeder) Close() error {
	var errs []error
	for i := len(s.opened) - 1; i >= 0; i-- {
		if err := s.opened[i].Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	s.opened = nil
	return errors.Join(errs...)
}
