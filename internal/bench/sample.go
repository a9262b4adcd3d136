package main

import (
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/testbed"
)

// sampleEvery is how often the WAN's counter is read.
const sampleEvery = 20 * time.Millisecond

// sampler reads the bytes that go down a site's WAN, every sampleEvery until stop.
type sampler struct {
	work sync.WaitGroup
	end  chan struct{}

	mu    sync.Mutex
	ticks []tick
}

func sample(bed *testbed.Bed, site int) *sampler {
	s := &sampler{end: make(chan struct{})}
	s.work.Go(func() {
		every := time.NewTicker(sampleEvery)
		defer every.Stop()
		for {
			down, _, err := bed.Wires(site)
			if err != nil {
				return // there is no such site: stop says that nothing was seen
			}
			s.mu.Lock()
			s.ticks = append(s.ticks, tick{time.Now(), down.Bytes})
			s.mu.Unlock()
			select {
			case <-every.C:
			case <-s.end:
				return
			}
		}
	})
	return s
}

// stop ends it and returns what was read.
func (s *sampler) stop() []tick {
	close(s.end)
	s.work.Wait()
	return s.ticks
}
