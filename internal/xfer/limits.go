package xfer

import (
	"math"
	"net/netip"
	"time"

	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
)

// Limits are the explicit resource limits of a host. libp2p's defaults allow 8 connections and 0.2 new ones a second
// for each source address (loopback is exempt, so only a test over a real interface shows it) and refused 948 of
// 1,200 sites; nothing is left to them here.
type Limits struct {
	Conns           int           // connections in total
	TransientConns  int           // connections that have not finished their handshake
	Streams         int           // streams in total
	ConnsPerPeer    int           // connections of one peer
	StreamsPerPeer  int           // streams of one peer
	FD              int           // file descriptors
	FirstWindow     int           // bytes a stream may send before the first of them is read: what fills a line at once
	FrameBytes      int           // of a stream in one frame of the muxer: at least SliceBytes
	AheadBytes      int           // of chunks may wait in the muxer for a socket, see ahead; 0: no bound
	ReadPause       time.Duration // between reads of a socket that has nothing more, see gather; 0: none
	MemoryBytes     int64         // promised by libp2p: yamux counts FirstWindow for every stream before a byte has come
	ConnsPerAddress int           // connections of one source address (a site behind one NAT is one address)
	NewPerSecond    float64       // new connections a second of one source address
	NewBurst        int
}

// SeederLimits fit 1,200 sites with some restarting at once, several of them behind one address. The four lanes of a
// session are 1 MiB of promises; what is used of them is what a site sends, which is little. Up to 64 frames wait for
// the socket of a thin line, in memory and in front of the control lane's: they are small.
func SeederLimits() Limits {
	return Limits{Conns: 4096, TransientConns: 512, Streams: 65536, ConnsPerPeer: 4, StreamsPerPeer: 32, FD: 8192,
		FirstWindow: 256 << 10, FrameBytes: SliceBytes, MemoryBytes: 4 << 30, ConnsPerAddress: 64, NewPerSecond: 16, NewBurst: 64}
}

// NodeLimits fit a site of up to 60 nodes and its seeder. The windows are promises: what is asked for at a time is
// bounded by the swarm. Frames are large, because each costs both ends a wake-up, and few.
func NodeLimits() Limits {
	return Limits{Conns: 256, TransientConns: 64, Streams: 1024, ConnsPerPeer: 4, StreamsPerPeer: 16, FD: 512,
		FirstWindow: 1 << 20, FrameBytes: 64<<10 - frameHeader, AheadBytes: 128 << 10, ReadPause: 2 * time.Millisecond, MemoryBytes: 512 << 20, ConnsPerAddress: 8, NewPerSecond: 4, NewBurst: 16}
}

// config is the whole table in rcmgr's terms: an infinite base with every level that peers can reach bounded.
func (l Limits) config() rcmgr.ConcreteLimitConfig {
	v, m := func(n int) rcmgr.LimitVal { return rcmgr.LimitVal(n) }, func(n int64) rcmgr.LimitVal64 { return rcmgr.LimitVal64(n) }
	all := rcmgr.ResourceLimits{Conns: v(l.Conns), ConnsInbound: v(l.Conns), ConnsOutbound: v(l.Conns), Streams: v(l.Streams),
		StreamsInbound: v(l.Streams), StreamsOutbound: v(l.Streams), FD: v(l.FD), Memory: m(l.MemoryBytes)}
	transient := rcmgr.ResourceLimits{Conns: v(l.TransientConns), ConnsInbound: v(l.TransientConns), ConnsOutbound: v(l.TransientConns),
		Streams: v(4 * l.TransientConns), StreamsInbound: v(4 * l.TransientConns), StreamsOutbound: v(4 * l.TransientConns),
		FD: v(l.TransientConns), Memory: m(l.MemoryBytes / 4)}
	onePeer := rcmgr.ResourceLimits{Conns: v(l.ConnsPerPeer), ConnsInbound: v(l.ConnsPerPeer), ConnsOutbound: v(l.ConnsPerPeer),
		Streams: v(l.StreamsPerPeer), StreamsInbound: v(l.StreamsPerPeer), StreamsOutbound: v(l.StreamsPerPeer),
		FD: v(l.ConnsPerPeer), Memory: m(8 * windowBytes)} // four lanes, and as much again
	perProtocol := all
	perProtocol.Streams, perProtocol.StreamsInbound, perProtocol.StreamsOutbound = v(l.Streams/2), v(l.Streams/2), v(l.Streams/2)
	return rcmgr.PartialLimitConfig{
		System: all, Transient: transient, AllowlistedSystem: all, AllowlistedTransient: transient,
		PeerDefault: onePeer, ProtocolDefault: perProtocol, ProtocolPeerDefault: onePeer,
		ServiceDefault: perProtocol, ServicePeerDefault: onePeer,
	}.Build(rcmgr.InfiniteLimits)
}

func (l Limits) options() []rcmgr.Option {
	loop4, loop6 := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")
	free := []rate.PrefixLimit{{Prefix: loop4}, {Prefix: loop6}}
	one := rate.Limit{RPS: l.NewPerSecond, Burst: l.NewBurst}
	return []rcmgr.Option{
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithNetworkPrefixLimit(
			[]rcmgr.NetworkPrefixLimit{{Network: loop4, ConnCount: math.MaxInt}},
			[]rcmgr.NetworkPrefixLimit{{Network: loop6, ConnCount: math.MaxInt}}),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: l.ConnsPerAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 64, ConnCount: l.ConnsPerAddress}}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{NetworkPrefixLimits: free, SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: one}},
			IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 64, Limit: one}},
		}}),
	}
}
