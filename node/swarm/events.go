package swarm

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/roster"
)

// Event is something that happened.
type Event interface{ event() }

// The events.
type (
	// Tick lets time pass; send one every 50 to 250 ms.
	Tick struct{}
	// Expect lists the neighbours on the roster: until all of them are connected a fresh node waits for Settle.
	Expect struct{ Peers []Peer }
	// PeerUp and PeerDown follow the sessions with neighbours.
	PeerUp struct {
		Peer Peer
		Role roster.WAN
	}
	PeerDown struct{ Peer Peer }
	// Role says that the roster gives a neighbour, or this node itself, another part in the WAN.
	Role struct {
		Peer Peer
		Role roster.WAN
	}
	// PeerHave replaces what is known of a neighbour's chunks of a bundle.
	PeerHave struct {
		Peer   Peer
		Bundle Bundle
		Wants  bool
		Total  int
		Bitmap []byte
	}
	// PeerHaveAdd adds to it.
	PeerHaveAdd struct {
		Peer    Peer
		Bundle  Bundle
		Numbers []uint32
	}
	// PeerUplink says whom a neighbour sees as uplink: itself, or a node it is connected with; empty: nobody. The
	// first one ends its introduction: every PeerHave it has to begin with came before.
	PeerUplink struct {
		Peer, Holder Peer
		Split        bool
	}
	// BundleAdd introduces a bundle, or replaces what was said of it (Sizes may have grown, Wants may have
	// changed). Sizes are those of its catalog as far as known, the first Index of them belong to the index. Have
	// is what is on disk. Wants: this node is to hold all of it; otherwise it only fetches what neighbours want,
	// and only as uplink.
	BundleAdd struct {
		Bundle Bundle
		Sizes  []int64
		Index  int
		Have   []bool
		Wants  bool
	}
	// BundleDrop forgets a bundle.
	BundleDrop struct{ Bundle Bundle }
	// Stored: the chunk of a Fetch is verified and on disk.
	Stored struct{ Req uint32 }
	// Failed: it is not.
	Failed struct {
		Req uint32
		Why Why
	}
	// Gained: a chunk is on disk that no Fetch asked for (a stick).
	Gained struct {
		Bundle Bundle
		Number int
	}
	// Lost: a chunk on disk was damaged and dropped.
	Lost struct {
		Bundle Bundle
		Number int
	}
	// Banned says for how long a neighbour is to count for nothing, by what others saw it do (a flood, data that nobody
	// asked for) or what was noted before a restart. It makes no ban shorter.
	Banned struct {
		Peer Peer
		For  time.Duration
	}
	// Leave: this node is asked to leave the site, for a reboot or for good. It fetches nothing more, gives the lease
	// back once what it alone brought is shared, and stays as long as a neighbour wants what it alone holds; how
	// long at most is the caller's business. MayLeave answers.
	Leave struct{}
	// WANUp and WANDown follow the session with the seeder; WANDown also answers a DialWAN that failed.
	WANUp   struct{}
	WANDown struct{}
	// LeaseGranted and LeaseRefused answer AskLease and RenewLease.
	LeaseGranted struct {
		Lease      uint64
		TTL, Renew time.Duration
		Split      bool
		RTT        time.Duration // of the WAN session, 0 if unknown
		Pause      time.Duration // for so long no chunk is to be asked of the WAN; 0: at once
	}
	LeaseRefused struct {
		Holder Peer
		Retry  time.Duration
		Pause  time.Duration // as of a grant
	}
)

func (Tick) event()         {}
func (Expect) event()       {}
func (PeerUp) event()       {}
func (PeerDown) event()     {}
func (Role) event()         {}
func (PeerHave) event()     {}
func (PeerHaveAdd) event()  {}
func (PeerUplink) event()   {}
func (BundleAdd) event()    {}
func (BundleDrop) event()   {}
func (Stored) event()       {}
func (Failed) event()       {}
func (Gained) event()       {}
func (Lost) event()         {}
func (Banned) event()       {}
func (Leave) event()        {}
func (WANUp) event()        {}
func (WANDown) event()      {}
func (LeaseGranted) event() {}
func (LeaseRefused) event() {}

// Why says how a Fetch failed.
type Why int

// The ways to fail.
const (
	WhyGone    Why = iota // the session ended
	WhyNotHeld            // refused: not held
	WhyBusy               // refused: busy
	WhyNoLease            // refused by the seeder: no lease
	WhyCorrupt            // wrong bytes
	WhyLocal              // our own disk; try again later
)
