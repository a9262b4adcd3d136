package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/roster"
	"github.com/patchmesh/patchmesh/internal/trust"
)

var (
	siteKey  = bytes.Repeat([]byte{9}, 32)
	siteNets = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
)

const siteName = "store-0042"

func nodeName(i int) string { return fmt.Sprintf("node-%03d", i) }
func peerID(i int) string   { return fmt.Sprintf("12D3KooW%044d", i) }
func nodeAddr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(i%250 + 1)}), 7946)
}

// rosterOf names nodes 0 to n-1. Its signature here is its version in clear: verifying is the owner's work.
func rosterOf(version uint64, n int) (*roster.Roster, trust.Signed) {
	r := &roster.Roster{Schema: roster.Schema, Site: siteName, Version: version, Created: time.Unix(1, 0).UTC(), Timezone: "UTC", Nodes: []roster.Node{}}
	for i := range n {
		r.Nodes = append(r.Nodes, roster.Node{Name: nodeName(i), PeerID: peerID(i), WAN: roster.WANAllow, Addrs: []string{nodeAddr(i).String()}})
	}
	doc, err := r.Encode()
	if err != nil {
		panic(err)
	}
	return r, trust.Signed{Doc: doc, Sig: []byte(fmt.Sprintf("v%d n%d", version, n))}
}

// member is one node of a simulated site: the owner of a mesh, and what the mesh told it.
type member struct {
	i    int
	mesh *Mesh
	stop func() // ends Run and waits

	mu        sync.Mutex
	roster    *roster.Roster
	signed    trust.Signed
	seeds     []string
	peers     map[string]Peer
	gone      []string
	conflicts []Conflict
	offered   int // times OnRoster was called
}

// owner makes the configuration of node i with a roster, as package node does.
func (m *member) config() Config {
	return Config{
		Site: siteName, Node: nodeName(m.i), PeerID: peerID(m.i), PeerPort: 4001, BindAddr: nodeAddr(m.i).String(),
		Key: siteKey, CIDRs: siteNets,
		Seeds:  func() []string { m.mu.Lock(); defer m.mu.Unlock(); return m.seeds },
		Roster: func() (*roster.Roster, trust.Signed) { m.mu.Lock(); defer m.mu.Unlock(); return m.roster, m.signed },
		OnRoster: func(s trust.Signed) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.offered++
			var version uint64
			var n int
			if _, err := fmt.Sscanf(string(s.Sig), "v%d n%d", &version, &n); err != nil {
				return errors.New("signature is not acceptable")
			}
			m.roster, m.signed = rosterOf(version, n)
			return nil
		},
		OnPeer: func(p Peer) { m.mu.Lock(); defer m.mu.Unlock(); m.peers[p.Name] = p },
		OnGone: func(name string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			delete(m.peers, name)
			m.gone = append(m.gone, name)
		},
		OnConflict: func(c Conflict) { m.mu.Lock(); defer m.mu.Unlock(); m.conflicts = append(m.conflicts, c) },
	}
}

func newMember(i int, version uint64, n int, seeds ...string) *member {
	m := &member{i: i, peers: map[string]Peer{}, seeds: seeds}
	m.roster, m.signed = rosterOf(version, n)
	return m
}

// start runs the member on a network in memory, or on sockets if net is nil; change may alter the configuration.
func (m *member) start(t testing.TB, lan *memnet, change func(*Config)) *member {
	t.Helper()
	c := m.config()
	if change != nil {
		change(&c)
	}
	if lan != nil {
		c.transport = lan.host(netip.MustParseAddrPort(c.BindAddr))
	}
	mesh, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	m.mesh = mesh
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mesh.Run(ctx) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", c.Node, err)
		}
	})
	return m
}

// sees returns the names of the peers that the member was told of, in order.
func (m *member) sees() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for name := range m.peers {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// told returns what the mesh told the member of one peer; the other fields are read through locked.
func (m *member) told(name string) Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peers[name]
}

func locked[T any](m *member, field *T) T {
	m.mu.Lock()
	defer m.mu.Unlock()
	return *field
}

func (m *member) rosterVersion() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.roster.Version
}

// site is nodes 0 to n-1, all on roster 1; newSite's know all its addresses.
type site struct {
	t   testing.TB
	lan *memnet
	all []*member
}

func newSite(t testing.TB, n int) *site { return newSiteOf(t, n, allSeeds(n)) }

func newSiteOf(t testing.TB, n int, seeds []string) *site {
	s := &site{t: t, lan: newMemnet()}
	for i := range n {
		s.all = append(s.all, newMember(i, 1, n, seeds...).start(t, s.lan, nil))
	}
	return s
}

func allSeeds(n int) []string {
	var out []string
	for i := range n {
		out = append(out, nodeAddr(i).String())
	}
	return out
}

// stop ends all members and lets memberlist's timers run out, as a bubble of synctest requires.
func (s *site) stop() {
	var wg sync.WaitGroup
	for _, m := range s.all {
		wg.Go(m.stop)
	}
	wg.Wait()
	time.Sleep(time.Minute)
}

// until waits in steps of virtual time and returns how long it took.
func until(t testing.TB, what string, limit time.Duration, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			t.Errorf("%s: not within %v", what, limit)
			return limit
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(start)
}

// groups reports whether every member sees exactly the members for which side is the same.
func (s *site) groups(side func(i int) int) bool {
	for _, m := range s.all {
		var want []string
		for _, o := range s.all {
			if o != m && side(o.i) == side(m.i) {
				want = append(want, nodeName(o.i))
			}
		}
		if !slices.Equal(m.sees(), want) {
			return false
		}
	}
	return true
}

func together(int) int { return 0 }
