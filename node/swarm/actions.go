package swarm

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/status"
)

// Action is something to do.
type Action interface{ action() }

// The actions.
type (
	// Fetch asks a neighbour, or the seeder when From is WAN, for a chunk. It is answered by Stored or Failed.
	Fetch struct {
		Req    uint32
		From   Peer
		Bundle Bundle
		Number int
	}
	// Cancel gives up a Fetch; what still comes for it is dropped.
	Cancel struct{ Req uint32 }
	// Announce tells all neighbours of chunks now held.
	Announce struct {
		Bundle  Bundle
		Numbers []uint32
	}
	// Complete: the last wanted chunk of what is known of the bundle is on disk.
	Complete struct{ Bundle Bundle }
	// Strike: a neighbour misbehaved. Ban, when not zero, is how long it is not asked for anything and counts for
	// nothing; each is twice as long as the one before. Why continues a sentence that begins with the neighbour's name.
	Strike struct {
		Peer Peer
		Kind status.StrikeKind
		Why  string
		Ban  time.Duration
	}
	// DialWAN opens the session with the seeder, within so long or not at all; HangUpWAN closes it.
	DialWAN   struct{ Within time.Duration }
	HangUpWAN struct{}
	// AskLease, RenewLease and ReleaseLease go to the seeder.
	AskLease struct {
		Active      bool
		Unreachable Peer
	}
	RenewLease struct {
		Lease  uint64
		Active bool
	}
	ReleaseLease struct{ Lease uint64 }
	// Withdraw tells all neighbours, of every bundle, that this node wants nothing any more: they need not wait for
	// it when they leave themselves. It follows Leave.
	Withdraw struct{}
	// MayLeave: nobody needs this node any more.
	MayLeave struct{}
	// TellUplink tells all neighbours whom this node sees as uplink.
	TellUplink struct {
		Holder Peer
		Split  bool
	}
)

func (Fetch) action()        {}
func (Cancel) action()       {}
func (Announce) action()     {}
func (Complete) action()     {}
func (Strike) action()       {}
func (DialWAN) action()      {}
func (HangUpWAN) action()    {}
func (AskLease) action()     {}
func (RenewLease) action()   {}
func (ReleaseLease) action() {}
func (Withdraw) action()     {}
func (MayLeave) action()     {}
func (TellUplink) action()   {}
