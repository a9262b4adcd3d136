package xfer

import (
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/internal/wire"
)

// Toll is what a peer may send, by the type of its messages. A unit is a message, and each KiB of it: a flood of large
// ones costs us more. A type that is missing is free.
type Toll map[wire.Type]Due

// Due bounds one type: a token bucket of Burst units that fills with Rate units a second. The burst has to carry what
// an honest peer says at once, and what it has said while this process was not running.
type Due struct{ Rate, Burst float64 }

// A Get is charged only when it is one more than may wait (MaxWaitingGets). A Refuse is charged in both directions: one
// that we send too, since the peer asked for what we do not have.

// NodeToll is for the nodes of a site. Each line is well above what the protocol gives rise to, and low enough that
// the dearest flood within it costs a few per cent of a core; node/evil_test.go measures it.
func NodeToll() Toll {
	return Toll{
		wire.TypePing:      {20, 2000},       // honest: 1 a second
		wire.TypePong:      {20, 2000},       // one for each of our Pings
		wire.TypeDocs:      {64, 4096},       // the whole list at each change of it
		wire.TypeGetDoc:    {16, 1024},       // each document once; an answer may be 400 KiB
		wire.TypeDoc:       {512, 64 << 10},  // what we asked for, 512 KiB at most
		wire.TypeHave:      {64, 8192},       // one for each bundle at first, and when its store gave a chunk up
		wire.TypeHaveAdd:   {2048, 32 << 10}, // one for each chunk that it has stored, many in one when it is busy
		wire.TypeGet:       {16, 512},        // an honest one has a few under way
		wire.TypeRefuse:    {64, 4096},       // our store gave up what we said we hold
		wire.TypeStatus:    {32, 4096},       // honest: one of 1 to 8 KiB each half second at most
		wire.TypeReport:    {64, 8192},       // 64 at a time, again after 10 s or when the uplink changes
		wire.TypeReportAck: {64, 8192},
		wire.TypeUplink:    {8, 1024}, // when it, or whom it sees, comes or goes
	}
}

// SeederToll is for those who talk with a seeder: an uplink speaks for up to 60 nodes, all of whose reports may wait.
func SeederToll() Toll {
	return Toll{
		wire.TypePing:         {20, 2000},
		wire.TypePong:         {20, 2000},
		wire.TypeDocs:         {16, 4096}, // these five are for neighbours
		wire.TypeDoc:          {16, 4096},
		wire.TypeHave:         {16, 8192},
		wire.TypeHaveAdd:      {16, 8192},
		wire.TypeUplink:       {16, 1024},
		wire.TypeGetDoc:       {64, 4096},
		wire.TypeGet:          {256, 16 << 10}, // more than may wait: many small chunks in one window
		wire.TypeRefuse:       {256, 16 << 10}, // what was asked for when the lease ended, or a pause began
		wire.TypeStatus:       {64, 8192},
		wire.TypeReport:       {1024, 128 << 10},
		wire.TypeReportAck:    {16, 1024},
		wire.TypeLeaseAsk:     {20, 2000},
		wire.TypeLeaseRenew:   {20, 2000},
		wire.TypeLeaseRelease: {20, 2000},
		wire.TypeSiteState:    {2048, 64 << 10}, // changed statements each 2 s, all of them with a new lease
	}
}

// Fault is how a peer broke the rules of the transport.
type Fault int

// The faults.
const (
	FaultFlood    Fault = iota // more than its toll
	FaultProtocol              // something that is not of the language, or not at its place in it
)

// FaultError is the reason of a session's end that is the peer's doing, and not the network's.
type FaultError struct {
	Fault Fault
	Err   error
}

// Error implements error.
func (e *FaultError) Error() string { return e.Err.Error() }

// Unwrap implements the convention of package errors.
func (e *FaultError) Unwrap() error { return e.Err }

func misspoke(format string, args ...any) error {
	return &FaultError{FaultProtocol, fmt.Errorf(format, args...)}
}

// meter counts what one peer sends against a toll. It is pure and belongs to one goroutine.
type meter struct {
	toll Toll
	used map[wire.Type]*bucket
}

type bucket struct {
	level float64 // units used and not yet forgotten
	at    time.Duration
}

func newMeter(t Toll) *meter { return &meter{t, map[wire.Type]*bucket{}} }

// charge notes a message of so many bytes at a time on any clock that does not go back, and fails when it is too much.
func (m *meter) charge(now time.Duration, t wire.Type, bytes int) error {
	due, ok := m.toll[t]
	if !ok {
		return nil
	}
	b := m.used[t]
	if b == nil {
		b = &bucket{at: now}
		m.used[t] = b
	}
	b.level = max(0, b.level-due.Rate*(now-b.at).Seconds()) + 1 + float64(bytes)/1024
	b.at = now
	if b.level > due.Burst {
		return &FaultError{FaultFlood, fmt.Errorf("peer sends too much of type %d: more than %.0f units and %.0f a second", t, due.Burst, due.Rate)}
	}
	return nil
}
