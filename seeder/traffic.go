package seeder

import (
	"sync"

	"github.com/patchmesh/patchmesh/internal/status"
)

// traffic adds up, site by site, what nodes say they have moved, from the start of this process.
type traffic struct {
	mu    sync.Mutex
	sites map[string]status.Traffic
}

func newTraffic() *traffic { return &traffic{sites: map[string]status.Traffic{}} }

// add counts what one node of a site has moved since its statement before. A node that says nonsense adds no more than
// mostSaid to each count of its own site at a time.
func (t *traffic) add(site string, more status.Traffic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := t.sites[site]
	for _, x := range []struct {
		sum  *int64
		more int64
	}{{&sum.FromWAN, more.FromWAN}, {&sum.WANPayload, more.WANPayload}, {&sum.FromLAN, more.FromLAN}, {&sum.Avoided, more.Avoided}, {&sum.ToLAN, more.ToLAN},
		{&sum.Twice, more.Twice}, {&sum.Spoilt, more.Spoilt}, {&sum.BadWAN, more.BadWAN}, {&sum.BadLAN, more.BadLAN}, {&sum.BadDisk, more.BadDisk}} {
		*x.sum += min(x.more, mostSaid)
	}
	t.sites[site] = sum
}

// mostSaid is beyond what a node moves between two statements, and far below what a sum holds.
const mostSaid = 1 << 42

func (t *traffic) site(name string) status.Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sites[name]
}
