package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/gossip"
	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/build"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/xfer"
	"github.com/patchmesh/patchmesh/node/swarm"
)

// Node is a running daemon. Build it with New, then call Run once.
type Node struct {
	cfg    Config
	log    *slog.Logger
	d      dir
	lock   *os.File
	e      *enrol.Enrolment
	key    crypto.PrivKey
	self   peer.ID
	seeder peer.ID
	facts  manifest.Facts
	nets   []netip.Prefix
	wan    atomic.Pointer[[]netip.AddrPort] // the seeder's addresses as last resolved

	store *store.Store
	host  *xfer.Host
	mesh  *gossip.Mesh
	sock  net.Listener

	do      chan func()     // what the loop is to run, in order
	done    <-chan struct{} // closed when the loop takes no more
	group   *errgroup.Group // everything Run started
	ctx     context.Context
	pend    pending
	allowed atomic.Pointer[map[peer.ID]string]    // the roster, for the gater
	shut    atomic.Pointer[map[peer.ID]time.Time] // who is shut out, until when, for the gater
	inForce atomic.Pointer[rosterInForce]         // the roster, for gossip
	seeds   atomic.Pointer[[]string]              // addresses to call, for gossip
	servedB atomic.Int64                          // chunk bytes served to neighbours
	badDisk atomic.Int64                          // chunks that were found damaged on disk
	leaving departure

	// Owned by the loop.
	rec       *record
	dirty     bool // rec has changes that may wait
	saved     time.Time
	disk      *disk
	saving    bool // a periodic write of rec is queued
	out       *outbox
	chain     *receipts
	unwritten []status.Link // receipts that are signed and not durable yet, the oldest first
	writing   int           // of those, on their way to the disk

	retryReceipts time.Time

	quarantine       quarantine
	quarantineWrites int       // on their way to the disk
	quarantineRetry  time.Time // when one that the disk refused is tried again
	quarantining     trouble   // of that

	policies   map[string]*heldPolicy
	orders     map[uint64]*heldOrder // of operators, by sequence
	backs      map[backKey]*heldOrder
	grants     map[string]*heldGrant // by policy
	revoked    revocations           // bundles that are not to be installed
	conflicts  map[string]error      // by bundle name: the policies that select this node contradict each other
	bundles    map[manifest.Digest]*heldBundle
	docs       map[manifest.Digest]heldDoc   // everything we hand on, by digest
	asked      map[manifest.Digest]time.Time // documents that some peer was asked for just now
	askedAll   time.Time
	sw         *swarm.Swarm
	steps      []swarm.Event // events that actions brought about, to be applied next
	news       map[manifest.Digest][]uint32
	nb         map[peer.ID]*neighbour
	byName     map[string]*statement
	seederS    *xfer.Session
	seederDocs shelf
	seederAt   reading
	timings    map[string]timed // by bundle name
	reportsTo  peer.ID          // where our reports were last sent
	contacts   map[peer.ID]*contact
	where      map[string]where // peers.json
	busy       bool             // the installer runs
	noticeNext time.Time        // not before: see giveNotice
	handed     *handed          // the request whose answer is waited for, if any
	results    install.Results  // what the executor last said
	strikes    strikes
	manners    map[peer.ID]*manners
	uplinkNews bool // neighbours have not heard whom we see as uplink
	uplinkTold tally
	poll       poll
	watched    time.Time // when it was last looked at how much neighbours have sent
	alarms     map[problem.Code]alarm
	saves      trouble // of state.json
	storing    trouble // of chunks
	wanSaid    wanWord
	traffic    status.Traffic
	skewSaid   time.Duration // in our last statement
	mine       status.Node
	told       time.Time // when mine was last sent to neighbours
	urgent     bool      // they have to hear at once
	began      time.Time // of the loop
	showed     reading   // what our clock showed when they last heard of it
	looked     time.Time // when it was last looked at
	flushing   bool      // chunks are being made durable
	collecting bool      // chunks that nobody needs are being removed
	collected  time.Time // when they last were
	roomed     time.Time // when it was last looked for room
	calm       time.Time // when there last began to be, or ceased to be, something to fetch; zero: memory was given back since
	unreached  time.Time // since when no node of the site has reached the seeder; zero: one does
	toldWAN    time.Time
	active     bool
}

type rosterInForce struct {
	r *roster.Roster
	s trust.Signed
}

// neighbour is a session with a node of the site.
type neighbour struct {
	s        *xfer.Session
	name     string
	docs     shelf
	relaying map[uint64]time.Time // its reports that we have handed on and that are not acknowledged
	said     uint64               // number of its last statement
	spoke    bool                 // there was one
	clock    reading

	news      map[manifest.Digest][]uint32 // chunks that it has not heard we hold
	newsSince time.Time                    // since when; zero: it waits for them
}

// statement is what a node last said of itself.
type statement struct {
	st    status.Node
	heard time.Time // while connected this is brought up to date when asked
	since time.Time // since when it says that of its turn
	fresh bool      // not yet passed on to the seeder
}

// New opens the state directory, the store and all listeners. It starts nothing.
func New(cfg Config, log *slog.Logger) (_ *Node, err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: log, d: dir(cfg.State), do: make(chan func(), 256), disk: newDisk(), pend: newPending(),
		policies: map[string]*heldPolicy{}, orders: map[uint64]*heldOrder{}, backs: map[backKey]*heldOrder{}, grants: map[string]*heldGrant{}, bundles: map[manifest.Digest]*heldBundle{}, docs: map[manifest.Digest]heldDoc{},
		asked: map[manifest.Digest]time.Time{}, news: map[manifest.Digest][]uint32{}, nb: map[peer.ID]*neighbour{},
		byName: map[string]*statement{}, timings: map[string]timed{}, contacts: map[peer.ID]*contact{}, manners: map[peer.ID]*manners{}, alarms: map[problem.Code]alarm{}}
	n.leaving.may, n.leaving.end = make(chan struct{}), make(chan struct{})
	defer func() {
		if err != nil {
			n.release()
		}
	}()
	if n.lock, err = n.d.lock(); err != nil {
		return nil, err
	}
	if n.e, err = n.d.enrolment(); err != nil {
		return nil, err
	}
	if err = n.d.create(); err != nil {
		return nil, err
	}
	if err = n.d.sweep(); err != nil {
		return nil, err
	}
	if n.key, err = n.d.identity(); err != nil {
		return nil, err
	}
	if n.self, err = peer.IDFromPrivateKey(n.key); err != nil {
		return nil, err
	}
	if n.seeder, err = peer.Decode(n.e.Seeder); err != nil {
		return nil, fmt.Errorf("seeder identity: %w", err)
	}
	n.facts = machineFacts(cfg)
	if n.rec, err = n.d.record(); err != nil {
		return nil, err
	}
	n.rec.Floor = trust.Floor(n.rec.Floor, build.Time())
	var last uint64
	if n.out, last, err = openOutbox(n.d, n.key); err != nil {
		return nil, err
	}
	n.rec.Report = max(n.rec.Report, last)
	if n.chain, last, err = openReceipts(n.d, n.out.waiting); err != nil {
		return nil, err
	}
	n.rec.Report = max(n.rec.Report, last)
	if n.out.damaged > 0 {
		n.event(problem.StoreDamaged, "%d reports in the outbox could not be read; they are kept as outbox/*.damaged", n.out.damaged)
	}
	if err = n.openStore(); err != nil {
		return nil, err
	}
	if err = n.listen(); err != nil {
		return nil, err
	}
	return n, n.load()
}

func machineFacts(cfg Config) manifest.Facts {
	if cfg.Facts != nil {
		return *cfg.Facts
	}
	for _, name := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if b, err := os.ReadFile(name); err == nil {
			return install.ParseOSRelease(b)
		}
	}
	return manifest.Facts{OS: runtime.GOOS, Release: "unknown", Arch: runtime.GOARCH}
}

// listen opens mesh, gossip and the local socket.
func (n *Node) listen() error {
	ctx, cancel := context.WithTimeout(context.Background(), startResolve)
	n.resolve(ctx)
	cancel()
	listenPeer, err := n.concrete(n.cfg.ListenPeer)
	if err != nil {
		return err
	}
	listenGossip, err := n.concrete(n.cfg.ListenGossip)
	if err != nil {
		return err
	}
	if n.nets, err = networks(n.cfg.Networks, listenPeer.Addr()); err != nil {
		return err
	}
	n.adopt(nil)
	n.host, err = xfer.New(xfer.Config{Key: n.key, Site: n.e.Site, Name: n.e.Node, Software: build.Software("meshd"), Listen: listenPeer.String(),
		Limits: xfer.NodeLimits(), Now: n.cfg.now, Allow: n.admit, AllowDial: n.allowDial, Toll: n.toll, Handler: n, Logger: n.log})
	if err != nil {
		return err
	}
	n.mesh, err = gossip.New(gossip.Config{Site: n.e.Site, Node: n.e.Node, PeerID: n.self.String(), PeerPort: n.host.Addr().Port(),
		BindAddr: listenGossip.String(), Key: n.e.GossipKey, CIDRs: n.nets, MDNS: n.cfg.MDNS, Logger: n.log,
		Seeds: func() []string {
			if s := n.seeds.Load(); s != nil {
				return *s
			}
			return nil
		},
		Roster: func() (*roster.Roster, trust.Signed) {
			if f := n.inForce.Load(); f != nil {
				return f.r, f.s
			}
			return nil, trust.Signed{}
		},
		OnRoster: n.onRoster, OnPeer: n.onPeer, OnConflict: n.onConflict})
	if err != nil {
		return err
	}
	if n.cfg.Socket == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(n.cfg.Socket), 0o755); err != nil {
		return err
	}
	os.Remove(n.cfg.Socket) // the state directory's lock says that nobody else serves it
	n.sock, err = net.Listen("unix", n.cfg.Socket)
	return err
}

// concrete replaces an unspecified host by the address this machine would use towards the seeder, so that the
// listener is on the site's network and nowhere else.
func (n *Node) concrete(s string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil || !a.Addr().IsUnspecified() {
		return a, err
	}
	for _, w := range *n.wan.Load() {
		c, err := net.Dial("udp", w.String()) // sends nothing
		if err != nil {
			continue
		}
		local, ok := c.LocalAddr().(*net.UDPAddr)
		c.Close()
		if ok {
			return netip.AddrPortFrom(local.AddrPort().Addr().Unmap(), a.Port()), nil
		}
	}
	ifs, err := net.InterfaceAddrs()
	if err != nil {
		return a, err
	}
	for _, i := range ifs {
		if p, err := netip.ParsePrefix(i.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return netip.AddrPortFrom(p.Addr(), a.Port()), nil
		}
	}
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), a.Port()), nil
}

func networks(given []string, self netip.Addr) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range given {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, err
		}
		out = append(out, p.Masked())
	}
	if len(out) > 0 {
		return out, nil
	}
	if self.IsLoopback() {
		return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}, nil
	}
	ifs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, i := range ifs {
		if p, err := netip.ParsePrefix(i.String()); err == nil && p.Addr() == self {
			out = append(out, p.Masked())
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no network of this machine has the address %s: set networks in the configuration", self)
	}
	return out, nil
}

// Addr is the address of the chunk exchange, GossipAddr that of gossip, ID the node's peer ID.
func (n *Node) Addr() netip.AddrPort       { return n.host.Addr() }
func (n *Node) GossipAddr() netip.AddrPort { return n.mesh.Addr() }
func (n *Node) ID() string                 { return n.self.String() }

// Name returns site and node name.
func (n *Node) Name() (site, node string) { return n.e.Site, n.e.Node }

// release gives back what New took.
func (n *Node) release() {
	if n.sock != nil {
		n.sock.Close()
	}
	if n.mesh != nil {
		n.mesh.Close()
	}
	if n.host != nil {
		n.host.Close()
	}
	if n.store != nil {
		n.store.Close()
	}
	if n.lock != nil {
		n.lock.Close()
	}
}

// Run works until ctx ends or somebody asks the node to leave, leaves the site (see Config.LeaveTimeout), then stops
// everything in order and waits for it. An installer under way is waited for, never killed.
func (n *Node) Run(ctx context.Context) error {
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	g, gctx := errgroup.WithContext(run)
	n.group, n.ctx, n.done = g, gctx, gctx.Done()
	g.Go(func() error {
		n.depart(ctx, gctx)
		cancel()
		return nil
	})
	g.Go(func() error { return n.host.Run(gctx) })
	g.Go(func() error { return n.mesh.Run(gctx) })
	g.Go(func() error {
		defer n.disk.close() // after the last save is queued
		return n.loop(gctx)
	})
	g.Go(func() error { return n.disk.run(n.post) })
	if n.cfg.Handoff != "" {
		g.Go(func() error { return n.watchResults(gctx) })
	}
	if n.sock != nil {
		answering := waited{h: n.localAPI()}
		srv := api.NewServer(&answering, n.log)
		g.Go(func() error {
			if err := srv.Serve(n.sock); !errors.Is(err, net.ErrClosed) && gctx.Err() == nil {
				return err
			}
			return nil
		})
		g.Go(func() error {
			<-gctx.Done()
			sctx, stop := context.WithTimeout(context.WithoutCancel(gctx), 2*time.Second)
			defer stop()
			if srv.Shutdown(sctx) != nil {
				srv.Close()
			}
			answering.wait()
			return nil
		})
	}
	err := g.Wait()
	err = errors.Join(err, n.store.Close())
	n.lock.Close()
	if run.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// post hands the loop a function. It waits while the loop is behind, which is the back-pressure on sessions, and
// reports false once the loop has ended.
func (n *Node) post(f func()) bool {
	select {
	case n.do <- f:
		return true
	case <-n.done:
		return false
	}
}

// call runs f on the loop and waits for it.
func (n *Node) call(ctx context.Context, f func()) error {
	ran := make(chan struct{})
	if !n.post(func() { f(); close(ran) }) {
		return context.Canceled
	}
	select {
	case <-ran:
		return nil
	case <-n.done:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *Node) allow(p peer.ID) bool {
	if p == n.seeder {
		return true
	}
	m := n.allowed.Load()
	if m == nil {
		return false
	}
	_, ok := (*m)[p]
	return ok
}

func (n *Node) allowDial(a netip.AddrPort) bool {
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	for _, w := range *n.wan.Load() {
		if a == w {
			return true
		}
	}
	for _, p := range n.nets {
		if p.Contains(a.Addr()) {
			return true
		}
	}
	return false
}

// damaged is called by the store, from any goroutine, for a chunk that went bad on disk.
func (n *Node) damaged(id chunk.ID) {
	n.log.Warn("chunk damaged on disk: dropped, to be fetched again", "chunk", id.String())
	n.badDisk.Add(1)
	if n.done == nil {
		return
	}
	// The loop itself may be the reader: never wait for it here.
	n.group.Go(func() error {
		n.post(func() { n.lost(id) })
		return nil
	})
}
