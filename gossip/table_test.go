package gossip

import (
	"errors"
	"testing"
	"time"
)

// A node says farewell and comes back at another address. Old news of the first address is refused for a while; a machine
// that goes on being there is believed after it.
func TestEcho(t *testing.T) {
	r, s := rosterOf(1, 3)
	now := time.Unix(1_800_000_000, 0)
	tab := newTable(nodeName(0), peerID(0), siteNets, func() time.Time { return now })
	tab.follow(r, s)
	news := meta{4001, 1, peerID(1)}.encode()
	hear := func(host int) error {
		if err := tab.admit(nodeName(1), nodeAddr(host), news); err != nil {
			return err
		}
		tab.alive(nodeName(1), nodeAddr(host), news)
		return nil
	}
	if err := errors.Join(hear(1), hear(41)); err != nil {
		t.Fatal(err)
	}
	tab.dead(nodeName(1))
	if err := hear(1); !errors.Is(err, errEcho) {
		t.Errorf("news of the first address: %v", err)
	}
	if err := hear(42); err != nil {
		t.Errorf("it moves once more: %v", err)
	}
	now = now.Add(echoTTL)
	if err := hear(41); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}

// Who hears of the new address before the farewell sees two nodes of one name, until the farewell comes.
func TestMoveIsNoConflict(t *testing.T) {
	r, s := rosterOf(1, 3)
	tab := newTable(nodeName(0), peerID(0), siteNets, time.Now)
	tab.follow(r, s)
	news := meta{4001, 1, peerID(1)}.encode()
	tab.alive(nodeName(1), nodeAddr(1), news)
	tab.clash(nodeName(1), nodeAddr(41), news)
	if len(tab.conflictList()) != 1 {
		t.Fatal("memberlist's conflict is not one")
	}
	tab.dead(nodeName(1))
	tab.alive(nodeName(1), nodeAddr(41), news)
	if got := tab.conflictList(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	tab.clash(nodeName(1), nodeAddr(42), news)
	tab.alive(nodeName(1), nodeAddr(41), news)
	if got := tab.conflictList(); len(got) != 1 {
		t.Errorf("a third machine: %+v", got)
	}
}
