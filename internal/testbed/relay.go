package testbed

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// relay is the wire of a WAN: it takes packets from one TUN interface and gives them to the other after a delay, or
// loses them. One goroutine does all of it, on a thread of its own that goes before everything else on the machine,
// so that a busy processor adds no delay.
type relay struct {
	wake int // eventfd: a setting has changed

	mu       sync.Mutex
	settings settings
	counts   [2]Wire // down, up
}

type settings struct {
	delay time.Duration // one way
	loss  float64
	cut   bool
	stop  bool
}

// Wire counts the packets of one direction of a WAN.
type Wire struct {
	Packets, Bytes int64 // put on the wire
	Lost           int64 // packets lost by chance
	Cut            int64 // packets lost because the wire was cut
}

// packet on its way.
type packet struct {
	due time.Time
	b   []byte
}

func newRelay(s settings) (*relay, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return &relay{wake: wake, settings: s}, err
}

// set changes settings at once; packets on their way keep their delay, and are lost if the wire is cut.
func (r *relay) set(change func(*settings)) {
	r.mu.Lock()
	change(&r.settings)
	r.mu.Unlock()
	// It cannot fail but when the counter is full, and then the relay is about to wake up anyway.
	_, _ = unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (r *relay) stop() { r.set(func(s *settings) { s.stop = true }) }

func (r *relay) read() (down, up Wire) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[0], r.counts[1]
}

// Bounds of one round: a packet of either direction waits for at most one round.
const (
	mtu       = 1500
	readBatch = 64
)

// run carries packets between the interfaces ends[0], at the data centre, and ends[1] until stop. It closes both.
func (r *relay) run(ends [2]int, seed uint64) {
	runtime.LockOSThread() // and never unlocked: the thread ends with its priority
	defer unix.Close(r.wake)
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -15) // without it the delay is less exact, no more
	dice := rand.New(rand.NewPCG(seed, 0x7a9e))
	var queues [2][]packet
	poll := []unix.PollFd{{Fd: int32(ends[0]), Events: unix.POLLIN}, {Fd: int32(ends[1]), Events: unix.POLLIN}, {Fd: int32(r.wake), Events: unix.POLLIN}}
	var word [8]byte
	for {
		var timeout *unix.Timespec
		for _, q := range queues {
			if len(q) > 0 {
				ts := unix.NsecToTimespec(max(0, time.Until(q[0].due).Nanoseconds()))
				if timeout == nil || ts.Nano() < timeout.Nano() {
					timeout = &ts
				}
			}
		}
		if _, err := unix.Ppoll(poll, timeout, nil); err != nil && err != unix.EINTR {
			return
		}
		if poll[2].Revents != 0 {
			_, _ = unix.Read(r.wake, word[:])
		}
		r.mu.Lock()
		s := r.settings
		if s.stop {
			r.mu.Unlock()
			return
		}
		for way := range queues {
			c := &r.counts[way]
			if s.cut {
				c.Cut += int64(len(queues[way]))
				queues[way] = nil
			}
			queues[way] = deliver(queues[way], ends[1-way])
			if poll[way].Revents == 0 {
				continue
			}
			for range readBatch {
				b := make([]byte, mtu)
				n, err := unix.Read(ends[way], b)
				if err != nil {
					break
				}
				switch {
				case s.cut:
					c.Cut++
				case s.loss > 0 && dice.Float64() < s.loss:
					c.Lost++
				default:
					c.Packets++
					c.Bytes += int64(n)
					queues[way] = append(queues[way], packet{time.Now().Add(s.delay), b[:n]})
				}
			}
		}
		r.mu.Unlock()
	}
}

// deliver writes what is due and returns the rest.
func deliver(q []packet, end int) []packet {
	now := time.Now()
	for len(q) > 0 && !q[0].due.After(now) {
		_, _ = unix.Write(end, q[0].b) // an interface that takes nothing loses packets, as it would on a real wire
		q = q[1:]
	}
	return q
}
