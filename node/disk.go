package node

import (
	"sync"
)

// disk does the daemon's durable writes beside the loop, one after the other: an fsync may take seconds on a busy
// disk, and a loop that waits for it would lose the lease. What depends on a write is done in its then, on the loop.
type disk struct {
	mu   sync.Mutex // guards queue and shut
	wake *sync.Cond
	jobs []job
	shut bool
}

type job struct {
	write func() error
	then  func(error) // on the loop; not called once the loop has ended
}

func newDisk() *disk {
	d := &disk{}
	d.wake = sync.NewCond(&d.mu)
	return d
}

// add queues a write. It never waits.
func (d *disk) add(write func() error, then func(error)) {
	d.mu.Lock()
	d.jobs = append(d.jobs, job{write, then})
	d.mu.Unlock()
	d.wake.Signal()
}

// close lets run end once everything queued is written.
func (d *disk) close() {
	d.mu.Lock()
	d.shut = true
	d.mu.Unlock()
	d.wake.Signal()
}

// run writes until close.
func (d *disk) run(post func(func()) bool) error {
	for {
		d.mu.Lock()
		for len(d.jobs) == 0 && !d.shut {
			d.wake.Wait()
		}
		if len(d.jobs) == 0 {
			d.mu.Unlock()
			return nil
		}
		j := d.jobs[0]
		d.jobs = d.jobs[1:]
		d.mu.Unlock()
		err := j.write()
		if j.then != nil {
			post(func() { j.then(err) })
		}
	}
}
