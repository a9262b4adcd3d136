package node_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/node"
)

// A node whose disk has no room for a bundle does not begin it and says why; its neighbours go on, and so does it once
// there is room. The control: a node with room begins at once.
func TestNoRoomOnTheDisk(t *testing.T) {
	s := newSite(t, 3)
	const gib = 1 << 30
	var free atomic.Int64
	free.Store(gib/20 + 1<<20) // the floor and one MiB
	s.space = map[string]func() (node.Space, error){"n01": func() (node.Space, error) { return node.Space{Total: gib, Free: free.Load()}, nil }}
	for i := range s.members {
		s.start(i)
	}
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(41, 8<<20)})
	s.staged(b, 1, 0, 2)
	st := s.await(1, "without room", func(st status.Node) bool { return st.Reason == "NoRoom" })
	if st.Phase != status.Staging || st.Code != "E4101" || st.Transfer.FromLAN > 1<<20 {
		t.Errorf("%s %s (%s): %d bytes taken", st.Phase, st.Reason, st.Code, st.Transfer.FromLAN)
	}
	free.Store(gib / 2)
	s.awaitStaged(b, 1)
	if st = s.await(1, "without alarms", func(st status.Node) bool { return len(st.Alarms) == 0 }); st.Transfer.Wasted != 0 {
		t.Errorf("%+v", st.Transfer)
	}
}

// A node that stops stays for its neighbour as long as it is given. Without room the neighbour wants nothing, with room
// it wants everything and gets it before the node ends; and a node that may not stay says what is only there.
func TestLeave(t *testing.T) {
	s := newSite(t, 2)
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(42, 24<<20)})
	s.start(0)
	s.staged(b, 1, 0)
	s.start(1)
	s.await(1, "begun", func(st status.Node) bool { return st.Phase == status.Staging })
	c := s.client(0)
	defer c.CloseIdle()
	r, err := c.Leave(t.Context(), time.Minute)
	if err != nil || r.OnlyHere != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	s.members[0].stop()
	s.awaitStaged(b, 1) // although nobody is left to ask
}

// The control of TestLeave: a node that is given no time leaves its neighbour without, and says how much.
func TestLeaveAtOnce(t *testing.T) {
	s := newSite(t, 2)
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(43, 64<<20)})
	s.start(0)
	s.staged(b, 1, 0)
	s.start(1)
	s.await(1, "begun", func(st status.Node) bool { return st.Phase == status.Staging && st.Transfer.Chunks > 0 })
	c := s.client(0)
	defer c.CloseIdle()
	r, err := c.Leave(t.Context(), 0)
	if err != nil || r.OnlyHere == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	s.members[0].stop()
	if st := s.await(1, "alone", func(st status.Node) bool { return st.Transfer.Peers == 0 }); st.Transfer.ChunksHave == st.Transfer.Chunks {
		t.Errorf("it has all: the control shows nothing")
	}
}
