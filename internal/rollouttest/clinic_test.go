package rollouttest

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/patchmesh/patchmesh/internal/harness"
)

// clinic answers for the applications of all nodes whether they are well. It knows who asks by who is in the middle of an
// install: the journal of its executor is there. So it sees too how many are at it at the same time.
type clinic struct {
	url string
	s   *site

	mu    sync.Mutex
	ill   []string       // NODE VERSION
	most  map[string]int // by version: nodes at it at the same time
	came  []string       // NODE VERSION, each once, in order
	asked func(node *harness.Node, version string)
}

func newClinic(s *site) *clinic {
	c := &clinic{s: s, most: map[string]int{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(c.answer))
	server.Listener.Close()
	server.Listener = l
	server.Start()
	s.Cleanup(server.Close)
	c.url = server.URL
	return c
}

// sick lets nodes be ill under a version.
func (c *clinic) sick(version string, nodes ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range nodes {
		c.ill = append(c.ill, n+" "+version)
	}
}

// first lets fn be called once, when the first node asks under a version, before it is answered.
func (c *clinic) first(fn func(node *harness.Node, version string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = fn
}

func (c *clinic) answer(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var busy []*harness.Node
	for _, n := range c.s.shop.Nodes {
		if _, err := os.Stat(filepath.Join(filepath.Dir(n.State), "install", "journal.json")); err == nil {
			busy = append(busy, n)
		}
	}
	for _, n := range busy {
		version := installed(n)
		c.most[version] = max(c.most[version], len(busy))
		key := n.Name + " " + version
		if !slices.Contains(c.came, key) {
			c.came = append(c.came, key)
			if c.asked != nil {
				c.asked(n, version)
			}
		}
		if slices.Contains(c.ill, key) {
			http.Error(w, fmt.Sprint("ill: ", key), http.StatusServiceUnavailable)
			return
		}
	}
}

// log is who came under a version, in order, and how many were at it at the same time.
func (c *clinic) log(version string) (nodes []string, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.under(version), c.most[version]
}

// under is for who holds mu.
func (c *clinic) under(version string) (nodes []string) {
	for _, key := range c.came {
		if n, v, _ := strings.Cut(key, " "); v == version {
			nodes = append(nodes, n)
		}
	}
	return nodes
}
