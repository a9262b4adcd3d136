package sitetest

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/testbed"
)

// tills ping the data centre over the WAN from beside the nodes, twenty times a second, until stop is called.
type tills struct {
	mu    sync.Mutex
	sent  []time.Time
	trips []time.Duration // 0: not back
	stop  func()
}

func (tr *trial) ping() *tills {
	tr.Helper()
	var far, near net.PacketConn
	tr.must(tr.bed.Inside(testbed.DC, func() (err error) { far, err = net.ListenPacket("udp4", testbed.DCAddr+":7777"); return err }))
	tr.must(tr.bed.Inside(testbed.Bystander(1), func() (err error) {
		near, err = net.ListenPacket("udp4", testbed.BystanderAddr(1)+":7777")
		return err
	}))
	p := &tills{}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 100)
		for {
			n, from, err := far.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = far.WriteTo(b[:n], from)
		}
	})
	wg.Go(func() {
		b := make([]byte, 100)
		for {
			n, _, err := near.ReadFrom(b)
			if err != nil {
				return
			}
			p.mu.Lock()
			if i := binary.BigEndian.Uint32(b[:n]); int(i) < len(p.sent) {
				p.trips[i] = time.Since(p.sent[i])
			}
			p.mu.Unlock()
		}
	})
	wg.Go(func() {
		t := time.NewTicker(50 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-done:
				return
			}
			p.mu.Lock()
			b := binary.BigEndian.AppendUint32(nil, uint32(len(p.sent)))
			p.sent, p.trips = append(p.sent, time.Now()), append(p.trips, 0)
			p.mu.Unlock()
			_, _ = near.WriteTo(append(b, make([]byte, 52)...), far.LocalAddr())
		}
	})
	p.stop = sync.OnceFunc(func() {
		close(done)
		far.Close()
		near.Close()
		wg.Wait()
	})
	tr.Cleanup(p.stop)
	return p
}

// between returns the trips of that time, the shortest first, and how many never came back.
func (p *tills) between(from, to time.Time) (trips []time.Duration, lost int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, at := range p.sent {
		if at.Before(from) || at.After(to) {
			continue
		}
		if p.trips[i] == 0 {
			lost++
		} else {
			trips = append(trips, p.trips[i])
		}
	}
	slices.Sort(trips)
	return trips, lost
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// bulk is a plain TCP download from the data centre to the bystander, as much as the link gives.
type bulk struct {
	got  atomic.Int64
	stop func()
}

func (tr *trial) bulk() *bulk {
	tr.Helper()
	var l net.Listener
	tr.must(tr.bed.Inside(testbed.DC, func() (err error) { l, err = net.Listen("tcp4", testbed.DCAddr+":0"); return err }))
	var in net.Conn
	tr.must(tr.bed.Inside(testbed.Bystander(1), func() (err error) { in, err = net.Dial("tcp4", l.Addr().String()); return err }))
	out, err := l.Accept()
	tr.must(err)
	b := &bulk{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for x := make([]byte, 64<<10); ; {
			if _, err := out.Write(x); err != nil {
				return
			}
		}
	})
	wg.Go(func() {
		for x := make([]byte, 64<<10); ; {
			n, err := in.Read(x)
			b.got.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	b.stop = sync.OnceFunc(func() {
		l.Close()
		out.(*net.TCPConn).SetLinger(0)
		out.Close()
		in.Close()
		wg.Wait()
	})
	tr.Cleanup(b.stop)
	return b
}

// serve starts the seeder again with other flags.
func (tr *trial) serve(flags ...string) {
	tr.Helper()
	if len(flags) > 0 {
		tr.seeder.Flags = flags
		tr.must(tr.seeder.Stop(tr.ctx))
		tr.must(tr.seeder.Start(tr.ctx))
	}
}

// passed waits until that share of the bundle has crossed the WAN and says when, and how much had.
func (tr *trial) passed(share float64) (time.Time, int64) {
	tr.Helper()
	for {
		at, n := time.Now(), tr.carried()
		if float64(n) >= share*float64(tr.bytes) {
			return at, n
		}
		select {
		case <-tr.ctx.Done():
			tr.Fatalf("%d of %d bytes have crossed the WAN", n, tr.bytes)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// shares are parts of the link's rate in a time.
type shares struct{ ours, theirs float64 }

func (s shares) String() string { return fmt.Sprintf("%.0f/%.0f", 100*s.ours, 100*s.theirs) }

// watch measures how the link is shared, twice a second.
func (tr *trial) watch(b *bulk, halves int) (out []shares) {
	tr.Helper()
	for range halves {
		all, their, at := tr.carried(), b.got.Load(), time.Now()
		<-time.After(500 * time.Millisecond)
		could := float64(tr.wan.WAN.Bytes(time.Since(at)))
		theirs := 1.036 * float64(b.got.Load()-their) / could // with the headers of TCP and IP
		out = append(out, shares{float64(tr.carried()-all)/could - theirs, theirs})
	}
	return out
}

func mean(s []shares) (ours float64) {
	for _, x := range s {
		ours += x.ours / float64(len(s))
	}
	return ours
}

// noticed is what a bystander notices of a fill.
type noticed struct {
	before, during []time.Duration
	lost           int
	use            float64 // of the link
}

func (n noticed) String() string {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/1e6) }
	return fmt.Sprintf("ping before %s / %s ms (median / p95), during %s / %s ms, lost %d of %d; %.1f %% of the link used",
		ms(quantile(n.before, .5)), ms(quantile(n.before, .95)), ms(quantile(n.during, .5)), ms(quantile(n.during, .95)), n.lost, len(n.during)+n.lost, 100*n.use)
}

// longer is how much longer the median trip took.
func (n noticed) longer() time.Duration { return quantile(n.during, .5) - quantile(n.before, .5) }

// alone starts the nodes and looks on, until that share of the bundle has crossed the WAN.
func (tr *trial) alone(until float64) (n noticed) {
	tr.Helper()
	p, begin := tr.ping(), time.Now()
	<-time.After(time.Second)
	tr.run()
	first, _ := tr.passed(0.01)
	from, a := tr.passed(0.05)
	to, b := tr.passed(until)
	<-time.After(100 * time.Millisecond) // for the last of them
	n.before, _ = p.between(begin, tr.began)
	n.during, n.lost = p.between(first, to)
	n.use = float64(b-a) / float64(tr.wan.WAN.Bytes(to.Sub(from)))
	return n
}

// manners: the link is full and its queue is not; a bulk flow that comes has the link soon; when it has gone we have it.
func manners(tr *trial) {
	n := tr.alone(0.4)
	b := tr.bulk()
	beside := tr.watch(b, 10)
	b.stop()
	after := tr.watch(b, 6)
	tr.Logf("%s; ours/theirs in per cent of the link each half second beside a bulk flow %v, after it %v", n, beside, after)
	if n.use < 0.9 || n.longer() > 25*time.Millisecond {
		tr.Errorf("alone: %s", n)
	}
	if mean(beside[6:]) > 0.2 || mean(after[4:]) < 0.5 {
		tr.Error("the link is not shared as it is to be")
	}
	f := tr.finish() // its interface counted the bulk flow too
	tr.accounted(f)
	if f.wan.Needed != tr.bytes || f.twice() > 0 {
		tr.Errorf("%d of %d bytes were sent, %d twice", f.wan.Needed, tr.bytes, f.twice())
	}
}

// impact is what a bystander notices of a whole fill.
func impact(polite bool, flags ...string) func(*trial) {
	return func(tr *trial) {
		tr.serve(flags...)
		n := tr.alone(0.98)
		tr.Log(n)
		if n.use < 0.9 || polite != (n.longer() < 20*time.Millisecond) {
			tr.Errorf("median %s longer", n.longer())
		}
		tr.once(tr.finish())
	}
}

// besideBulk is how the link is shared with a bulk flow that comes and goes.
func besideBulk(polite bool, flags ...string) func(*trial) {
	return func(tr *trial) {
		tr.serve(flags...)
		tr.run()
		tr.awaitWAN(0.1)
		b := tr.bulk()
		beside := tr.watch(b, 30)
		b.stop()
		after := tr.watch(b, 6)
		tr.Logf("ours/theirs in per cent of the link each half second beside a bulk flow %v, after it %v", beside, after)
		if polite != (mean(beside[10:]) < 0.1) || mean(after[4:]) < 0.8 {
			tr.Errorf("%.3f of the link beside a bulk flow, %.3f after it", mean(beside[10:]), mean(after[2:]))
		}
	}
}

// badLine is how long a line that loses packets takes.
func badLine(flags ...string) func(*trial) {
	return func(tr *trial) {
		tr.serve(flags...)
		tr.run()
		first, _ := tr.passed(0.002)
		last, _ := tr.passed(1)
		tr.awaitInstalled(tr.site.Nodes...)
		whole, least := time.Since(tr.began), time.Duration(float64(tr.bytes)*8/float64(tr.wan.WAN)*1e9)
		tr.Logf("%.0f %% loss: over the WAN in %.2f x size/rate, last node installed after %.2f x size/rate",
			100*tr.wan.Loss, last.Sub(first).Seconds()/least.Seconds(), whole.Seconds()/least.Seconds())
	}
}

// What a fill does to others on the same link, and they to it. Control: a seeder that does not yield. Nothing runs beside
// these.
func TestPolite(t *testing.T) {
	if testing.Short() {
		t.Skip("needs minutes: run without -short")
	}
	of := func(rate testbed.Rate) testbed.Config {
		return testbed.Config{WAN: rate, RTT: link.RTT, Queue: 50 * time.Millisecond}
	}
	slow, fast := of(20*testbed.Mbit), of(50*testbed.Mbit)
	for _, c := range []sitecase{
		{name: "manners", stand: true, setup: setup{wan: slow, nodes: 2, size: 20 << 20}, play: manners},
		{name: "ping, 20 Mbit", setup: setup{wan: slow, nodes: 2, size: 32 << 20}, play: impact(true)},
		{name: "ping, 20 Mbit, no yield", setup: setup{wan: slow, nodes: 2, size: 32 << 20}, play: impact(false, "--no-yield")},
		{name: "ping, 50 Mbit", setup: setup{wan: fast, nodes: 2}, play: impact(true)},
		{name: "ping, 50 Mbit, no yield", setup: setup{wan: fast, nodes: 2}, play: impact(false, "--no-yield", "--congestion", "cubic")},
		{name: "bulk, 20 Mbit", setup: setup{wan: slow, nodes: 2}, play: besideBulk(true)},
		{name: "bulk, 20 Mbit, no yield", setup: setup{wan: slow, nodes: 2}, play: besideBulk(false, "--no-yield")},
		{name: "bulk, 50 Mbit", setup: setup{wan: fast, nodes: 2, size: 128 << 20}, play: besideBulk(true)},
		{name: "loss 1 %", setup: setup{wan: lossy(0.01), nodes: 2}, play: badLine()},
		{name: "loss 1 %, cubic", setup: setup{wan: lossy(0.01), nodes: 2, size: 8 << 20}, play: badLine("--congestion", "cubic")},
		{name: "loss 5 %", setup: setup{wan: lossy(0.05), nodes: 2}, play: badLine()},
	} {
		if full() || c.stand {
			t.Run(c.name, func(t *testing.T) { c.play(newTrial(t, c.setup)) })
		}
	}
}
