package gossip

import (
	"context"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	askPause      = 500 * time.Millisecond // before asking for a newer roster, jittered: all nodes hear of it at once
	adoptPause    = 200 * time.Millisecond // before calling those whom a new roster names, jittered
	reportPause   = time.Minute            // between reports of a conflict about one name
	resolvePause  = 2 * time.Second        // for the name of a static address
	updateTimeout = time.Second
	maxCalls      = 16 // at once
	maxFound      = 32 // addresses found by multicast DNS
	foundTTL      = 10 * time.Minute
)

// loop owns everything that is not in the table. One goroutine runs it, and all callbacks.
type loop struct {
	*Mesh
	list *memberlist.Memberlist
	rng  *rand.Rand
	wg   sync.WaitGroup
	done chan func() // what a goroutine of ours found out, run by the loop

	peers    map[string]Peer // as last reported
	reported map[string]time.Time
	found    map[netip.AddrPort]time.Time

	pace    pace
	round   *time.Timer // next round of calls
	calling bool        // one is out
	again   bool        // and another is wanted as soon as it ends
	grown   bool        // somebody appeared since the last one

	futile map[string]uint64 // roster versions that a node claimed and did not have; forgotten every round
	ask    *time.Timer       // next question for a newer roster
	asking bool              // ask is set, or a question is out

	updating, stale bool // our metadata is being told; it has changed since
}

func newLoop(m *Mesh, list *memberlist.Memberlist) *loop {
	ask := time.NewTimer(time.Hour)
	ask.Stop()
	return &loop{
		Mesh: m, list: list, rng: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), done: make(chan func()),
		peers: map[string]Peer{}, reported: map[string]time.Time{}, found: map[netip.AddrPort]time.Time{},
		pace: pace{base: m.cfg.Timing.Rejoin}, round: time.NewTimer(0), futile: map[string]uint64{}, ask: ask,
	}
}

func (l *loop) run(ctx context.Context) {
	defer l.round.Stop()
	defer l.ask.Stop()
	if l.cfg.MDNS {
		l.discover(ctx)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.table.changed:
		case <-l.refresh:
			l.adopt(ctx)
		case <-l.round.C:
			l.call(ctx)
		case <-l.ask.C:
			l.question(ctx)
		case f := <-l.done:
			f()
		}
		l.read(ctx)
		l.report()
	}
}

// spawn runs work beside the loop, and then what it returns in the loop.
func (l *loop) spawn(ctx context.Context, work func() func()) {
	l.wg.Go(func() { l.tell(ctx, work()) })
}

func (l *loop) tell(ctx context.Context, f func()) {
	select {
	case l.done <- f:
	case <-ctx.Done():
	}
}

// read shows the owner the rosters that arrived.
func (l *loop) read(ctx context.Context) {
	for _, in := range l.table.mail() {
		if in.Version <= l.table.rosterVersion() {
			continue
		}
		err := l.cfg.OnRoster(in.Roster)
		if err == nil {
			l.adopt(ctx)
		}
		if l.table.rosterVersion() < in.Version { // refused, or the claim was not true
			l.table.refuse(in.Roster)
			l.cfg.Logger.Warn("roster from a peer refused", "claims", in.Version, "have", l.table.rosterVersion(), "err", err)
		}
	}
}

// adopt takes over the owner's roster. If it is a new one, whoever it names is called at once and everybody is told.
func (l *loop) adopt(ctx context.Context) {
	if !l.table.follow(l.cfg.Roster()) {
		return
	}
	l.cfg.Logger.Info("roster adopted", "version", l.table.rosterVersion())
	l.round.Reset(jitter(adoptPause, l.rng))
	l.update(ctx)
}

// update tells the others our metadata. memberlist waits until the news is out, so it is done beside the loop.
func (l *loop) update(ctx context.Context) {
	if l.stale = l.updating; l.stale {
		return
	}
	l.updating = true
	l.spawn(ctx, func() func() {
		_ = l.list.UpdateNode(updateTimeout) // nobody may be there to hear it
		return func() {
			l.updating = false
			if l.stale {
				l.update(ctx)
			}
		}
	})
}

// report tells the owner what has changed, and plans a question if somebody knows a newer roster.
func (l *loop) report() {
	var came []Peer
	var gone []string
	l.peers, came, gone = diff(l.peers, l.table.snapshot())
	l.grown = l.grown || len(came) > 0
	for _, p := range came {
		l.cfg.Logger.Info("peer alive", "peer", p.Name, "addr", p.Addr)
		l.cfg.OnPeer(p)
	}
	for _, name := range gone {
		l.cfg.Logger.Info("peer gone", "peer", name)
		l.cfg.OnGone(name)
	}
	now := l.cfg.Now()
	for _, c := range l.table.conflictList() {
		if last := l.reported[c.Name]; c.Last.After(last) && now.Sub(last) >= reportPause {
			l.reported[c.Name] = now
			l.cfg.Logger.Warn("two nodes use one name", "peer", c.Name, "addr", c.Addr, "count", c.Count)
			l.cfg.OnConflict(c)
		}
	}
	if !l.asking {
		if _, _, l.asking = source(l.table.callers(), l.futile, l.rng); l.asking {
			l.ask.Reset(jitter(askPause, l.rng))
		}
	}
}

// question asks one node that claims a newer roster for it.
func (l *loop) question(ctx context.Context) {
	name, c, ok := source(l.table.callers(), l.futile, l.rng)
	if !ok {
		l.asking = false
		return
	}
	l.spawn(ctx, func() func() {
		l.join(c.addr)
		return func() {
			l.read(ctx)
			if l.table.rosterVersion() < c.roster {
				l.futile[name] = c.roster
			}
			l.asking = false
		}
	})
}

// call is one round: it calls addresses where a node may be that is not connected.
func (l *loop) call(ctx context.Context) {
	if l.again = l.calling; l.again {
		return
	}
	l.adopt(ctx)
	clear(l.futile)
	alive := len(l.peers)
	if alive > 0 && !l.table.missing() {
		l.round.Reset(l.pace.next(alive, false, l.rng))
		return
	}
	l.calling = true
	seeds, hints := l.cfg.Seeds(), l.table.strangerAddrs()
	for a, at := range l.found {
		if l.cfg.Now().Sub(at) > foundTTL {
			delete(l.found, a)
		}
		hints = append(hints, a)
	}
	var friend []netip.AddrPort // has met others just now too, and its news may have been lost on the way
	if l.grown {
		friend = l.anyone()
	}
	l.grown = false
	connected, rng := l.connected(), rand.New(rand.NewPCG(l.rng.Uint64(), l.rng.Uint64()))
	l.spawn(ctx, func() func() {
		targets := pick(append(resolve(ctx, seeds), hints...), connected, l.cfg.CIDRs, alive, rng)
		reached := l.joinAll(append(targets, friend...))
		return func() {
			l.calling = false
			connected, near := l.connected(), l.grown
			for _, a := range reached {
				near = near || !connected[a]
			}
			pause := l.pace.next(len(l.peers), near, l.rng)
			if l.again {
				l.again, pause = false, jitter(adoptPause, l.rng)
			}
			l.round.Reset(pause)
		}
	})
}

// anyone returns the address of one peer that is alive, if there is one.
func (l *loop) anyone() []netip.AddrPort {
	names := slices.Sorted(maps.Keys(l.peers))
	if len(names) == 0 {
		return nil
	}
	return []netip.AddrPort{l.peers[names[l.rng.IntN(len(names))]].GossipAddr}
}

// connected are our own address and those of everybody alive.
func (l *loop) connected() map[netip.AddrPort]bool {
	out := map[netip.AddrPort]bool{l.addr: true}
	for _, m := range l.table.snapshot() {
		if m.Alive {
			out[m.GossipAddr] = true
		}
	}
	return out
}

// joinAll calls some at a time and returns those who answered.
func (l *loop) joinAll(targets []netip.AddrPort) []netip.AddrPort {
	var (
		mu      sync.Mutex
		wg      sync.WaitGroup
		reached []netip.AddrPort
		slots   = make(chan struct{}, maxCalls)
	)
	for _, a := range targets {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if l.join(a) {
				mu.Lock()
				defer mu.Unlock()
				reached = append(reached, a)
			}
		})
	}
	wg.Wait()
	return reached
}

// join exchanges everything with whoever is at an address. memberlist wants a name with it and ignores which.
func (l *loop) join(a netip.AddrPort) bool {
	n, _ := l.list.Join([]string{"peer/" + a.String()})
	l.table.joined(n > 0)
	return n > 0
}

// resolve turns host:port into addresses. Names are for static addresses; they cost a look-up each time.
func resolve(ctx context.Context, seeds []string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range seeds {
		if a, err := netip.ParseAddrPort(s); err == nil {
			out = append(out, a)
			continue
		}
		host, service, err := net.SplitHostPort(s)
		if err != nil {
			continue
		}
		port, err := strconv.ParseUint(service, 10, 16)
		if err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, resolvePause)
		ips, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		cancel()
		for _, ip := range ips {
			out = append(out, netip.AddrPortFrom(ip, uint16(port)))
		}
	}
	return out
}
