package node_test

import (
	"testing"

	"github.com/patchmesh/patchmesh/internal/status"
)

// A node without room says so, does not fetch the same chunks over and over, and goes on once it has room.
func TestNoRoom(t *testing.T) {
	s := newSite(t, 2)
	s.quota = map[string]int64{"n01": 1 << 20}
	s.start(0)
	s.start(1)
	b := s.bundle("1.0", 1, map[string][]byte{"f": random(40, 8<<20)})
	s.staged(b, 1, 0)
	st := s.await(1, "out of room", func(st status.Node) bool { return st.Reason == "NoRoom" })
	if len(st.Alarms) != 1 || st.Alarms[0].Code != "E4102" || st.Phase != status.Staging {
		t.Errorf("%s (%s), alarms %+v", st.Phase, st.Reason, st.Alarms)
	}
	s.members[1].stop()
	s.quota = nil
	s.start(1)
	s.awaitStaged(b, 1)
	st = s.await(1, "settled", func(st status.Node) bool { return len(st.Alarms) == 0 })
	if limit := int64(16+4) * (256 << 10); st.Transfer.Wasted > limit { // one wave of requests
		t.Errorf("%d bytes were fetched in vain, at most %d may be", st.Transfer.Wasted, limit)
	}
}
