package ledbat

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// model is one link in virtual time: packets wait in a drop-tail queue, take their time, may be lost, and are acknowledged a
// base round trip after they left the queue.
type model struct {
	rate   float64       // bytes per second
	base   time.Duration // round trip without a queue
	queue  time.Duration // what the queue holds
	loss   float64       // share of packets lost by chance
	jitter time.Duration // at most so much is added to a round trip
	down   bool          // packets vanish

	dice   *rand.Rand
	now    time.Duration
	freeAt time.Duration // when the queue is empty
	events events
	serial int
}

type event struct {
	at     time.Duration
	serial int
	do     func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].serial < e[j].serial
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any     { x := (*e)[len(*e)-1]; *e = (*e)[:len(*e)-1]; return x }

func newModel(mbit float64, base time.Duration) *model {
	return &model{rate: mbit * 1e6 / 8, base: base, queue: 50 * time.Millisecond, dice: rand.New(rand.NewPCG(1, 2))}
}

func (m *model) after(d time.Duration, do func()) {
	m.serial++
	heap.Push(&m.events, event{m.now + d, m.serial, do})
}

func (m *model) run(until time.Duration) {
	for len(m.events) > 0 && m.events[0].at <= until {
		e := heap.Pop(&m.events).(event)
		m.now = e.at
		e.do()
	}
	m.now = until
}

func (m *model) clock() time.Time { return time.Unix(1e9, 0).Add(m.now) }

// waiting is the delay of the queue.
func (m *model) waiting() time.Duration { return max(0, m.freeAt-m.now) }

// send puts a packet on the link and says whether it was lost, when it is acknowledged or missed.
func (m *model) send(done func(lost bool)) {
	size := time.Duration(1500 / m.rate * 1e9)
	lost := m.down || m.waiting()+size > m.queue+4*size || m.dice.Float64() < m.loss
	if !lost {
		m.freeAt = max(m.freeAt, m.now) + size
	}
	back := m.waiting() + m.base
	if m.jitter > 0 {
		back += time.Duration(m.dice.Int64N(int64(m.jitter)))
	}
	if m.down {
		back = time.Second // missed by a timer
	}
	m.after(back, func() { done(lost) })
}

// sender is a flow: it has so much in flight as its window lets it.
type sender struct {
	*model
	window  func() int
	pacing  func() int64 // nil: sends at once
	next    time.Duration
	waits   bool
	on      bool
	flight  int
	srtt    time.Duration
	sample  Sample
	arrived int64
	acked   func(rtt time.Duration)
	lost    func()
}

func (s *sender) pump() {
	for s.on && (s.flight+MSS <= s.window() || s.flight == 0) {
		if s.pacing != nil && s.pacing() > 0 {
			if s.next > s.now {
				if !s.waits {
					s.waits = true
					s.after(s.next-s.now, func() { s.waits = false; s.pump() })
				}
				return
			}
			s.next = max(s.next, s.now) + time.Duration(MSS*1e9/s.pacing())
		}
		s.flight += MSS
		s.sample.Sent += MSS
		sent := s.now
		s.send(func(lost bool) {
			s.flight -= MSS
			if lost {
				s.sample.Resent += MSS
				s.lost()
			} else {
				rtt := s.now - sent
				if s.srtt == 0 {
					s.srtt = rtt
				}
				s.srtt += (rtt - s.srtt) / 8
				s.arrived += MSS
				s.sample.Delivered++
				s.acked(rtt)
			}
			s.pump()
		})
	}
}

func (s *sender) stop()  { s.on = false }
func (s *sender) start() { s.on = true; s.pump() }

// ours sends as the controller says, unless it does not yield: then as a competitor does.
func (m *model) ours(base *Base, hint int) (*sender, *Controller) {
	c := New(base, hint)
	s := &sender{model: m, window: c.Window, pacing: c.Pacing}
	look := func() {
		x := s.sample
		x.RTT, x.Flight = s.srtt, s.flight
		c.Observe(m.clock(), x)
	}
	s.acked = func(time.Duration) { look() }
	s.lost = look
	return s, c
}

// cubic is a plain TCP flow (RFC 9438, without its fine points).
func (m *model) cubic() *sender {
	cwnd, most, slow := 10.0, 0.0, math.Inf(1)
	var epoch, cut time.Duration
	s := &sender{model: m}
	s.window = func() int { return int(cwnd) * MSS }
	s.acked = func(rtt time.Duration) {
		if cwnd < slow {
			cwnd++
			return
		}
		k := math.Cbrt(most * 0.3 / 0.4)
		t := (m.now - epoch + rtt).Seconds()
		target := 0.4*math.Pow(t-k, 3) + most
		friendly := most*0.7 + 0.53*t/max(rtt, time.Millisecond).Seconds()
		cwnd += max(0.01, min(max(target, friendly)-cwnd, cwnd/2)) / cwnd
	}
	s.lost = func() {
		if m.now-cut < s.srtt && cut > 0 {
			return
		}
		cut, epoch, most = m.now, m.now, cwnd
		cwnd = max(2, cwnd*0.7)
		slow = cwnd
	}
	return s
}

// watch runs the model on and returns how much of the link a flow had, and the queue's delay, the shortest first.
func (m *model) watch(d time.Duration, s *sender) (share float64, queue []time.Duration) {
	from, until := s.arrived, m.now+d
	for m.now < until {
		m.run(m.now + 5*time.Millisecond)
		queue = append(queue, m.waiting())
	}
	slices.Sort(queue)
	return float64(s.arrived-from) / MSS * 1500 / m.rate / d.Seconds(), queue
}

func p95(sorted []time.Duration) time.Duration { return sorted[len(sorted)*95/100] }
