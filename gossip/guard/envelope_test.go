package guard

import (
	"bytes"
	"testing"
)

func TestPacket(t *testing.T) {
	e := testEnvelope(t)
	aPing := encode(msgPing, ping{SeqNo: 1, Node: "a"})
	damaged := packetOf(1, aPing)
	damaged[len(damaged)-1] ^= 1
	other := bytes.Repeat([]byte{8}, 32)
	for _, c := range []struct {
		name string
		in   []byte
		want Reason
	}{
		{"ping", packetOf(1, aPing), Passed},
		{"ping with checksum", packetOf(1, withCRC(aPing)), Passed},
		{"compound", packetOf(1, compound(aPing, []byte{msgAlive}, []byte{msgDead})), Passed},
		{"compound with checksum", packetOf(1, withCRC(compound(aPing))), Passed},
		{"empty", nil, Label},
		{"no label", seal(testKey, 1, aPing, nil), Label},
		{"another site's label", labelled("store-0043", seal(testKey, 1, aPing, []byte("store-0043"))), Label},
		{"our label as a prefix", labelled(testLabel+"1", seal(testKey, 1, aPing, nil)), Label},
		{"label alone", labelled(testLabel, nil), Version},
		{"plaintext", labelled(testLabel, aPing), Version},
		{"version 0", packetOf(0, append(make([]byte, 15), 0xff)), Version},
		{"version 2", packetOf(2, aPing), Version},
		{"another key", labelled(testLabel, seal(other, 1, aPing, []byte(testLabel))), Key},
		{"label not authenticated", labelled(testLabel, seal(testKey, 1, aPing, nil)), Key},
		{"damaged", damaged, Key},
		{"cut short", packetOf(1, aPing)[:len(testLabel)+2+overhead], Content},
		{"empty plaintext", packetOf(1, nil), Content},
		{"checksum of nothing", packetOf(1, withCRC(nil)), Content},
		{"compressed", packetOf(1, bomb(100)), Content},
		{"compressed in a compound", packetOf(1, compound(aPing, bomb(100))), Content},
		{"compound in a compound", packetOf(1, compound(compound(aPing))), Content},
		{"empty part", packetOf(1, compound(aPing, nil)), Content},
		{"compound that lies", packetOf(1, []byte{msgCompound, 200, 0, 1}), Content},
		{"part that lies", packetOf(1, []byte{msgCompound, 1, 0xff, 0xff, 1}), Content},
		{"user message", packetOf(1, []byte{8, 1, 2}), Content},
		{"push/pull as a packet", packetOf(1, encode(msgPushPull, header{})), Content},
		{"unknown message", packetOf(1, []byte{77}), Content},
		{"too long", packetOf(1, append(bytes.Clone(aPing), make([]byte, maxPacket)...)), Size},
	} {
		if got := e.packet(c.in); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestMessage(t *testing.T) {
	e := testEnvelope(t)
	pushPull := encode(msgPushPull, header{Nodes: 8, UserStateLen: 5000})
	aPing := encode(msgPing, ping{SeqNo: 1})
	huge := []byte{msgEncrypt, 0x7f, 0xff, 0xff, 0xff, 1}
	for _, c := range []struct {
		name  string
		in    []byte
		reply bool
		want  Reason
	}{
		{"push/pull", requestOf(1, pushPull), false, Passed},
		{"push/pull reply", replyOf(1, pushPull), true, Passed},
		{"ping", requestOf(1, aPing), false, Passed},
		{"ack reply", replyOf(1, encode(msgAck, struct{ SeqNo uint32 }{1})), true, Passed},
		{"error reply", replyOf(1, encode(msgError, struct{ Error string }{"no"})), true, Passed},
		{"request where a reply is due", requestOf(1, pushPull), true, Version},
		{"reply where a request is due", replyOf(1, append(pushPull, make([]byte, 20)...)), false, Label},
		{"ping as a reply", replyOf(1, aPing), true, Content},
		{"ack as a request", requestOf(1, encode(msgAck, struct{ SeqNo uint32 }{1})), false, Content},
		{"nothing", nil, false, Slow},
		{"cut short", requestOf(1, pushPull)[:40], false, Slow},
		{"version 0", requestOf(0, append(make([]byte, 15), 0xff)), false, Version},
		{"version 0 reply", replyOf(0, append(make([]byte, 15), 0xff)), true, Version},
		{"empty plaintext", requestOf(1, nil), false, Content},
		{"plaintext", labelled(testLabel, append([]byte{msgPushPull}, make([]byte, 40)...)), false, Version},
		{"another key", labelled(testLabel, append([]byte{msgEncrypt, 0, 0, 0, 40, 1}, make([]byte, 39)...)), false, Key},
		{"length that lies", labelled(testLabel, huge), false, Size},
		{"compressed", requestOf(1, bomb(1000)), false, Content},
		{"a million records", requestOf(1, encode(msgPushPull, header{Nodes: 1 << 20})), false, Content},
		{"negative records", requestOf(1, encode(msgPushPull, header{Nodes: -1})), false, Content},
		{"large state", requestOf(1, encode(msgPushPull, header{UserStateLen: 20 << 20})), false, Content},
		{"header of the wrong kind", requestOf(1, []byte{msgPushPull, 0xc1, 0xc1}), false, Content},
		{"user message", requestOf(1, encode(8, struct{ UserMsgLen int }{20 << 20})), false, Content},
	} {
		raw, got := e.readMessage(bytes.NewReader(c.in), c.reply)
		if got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if got == Passed && !bytes.Equal(raw, c.in) {
			t.Errorf("%s: memberlist would read other bytes than were sent", c.name)
		}
	}
}

// TestMessageHoldsWhatArrived: a length field alone makes nothing grow.
func TestMessageHoldsWhatArrived(t *testing.T) {
	e := testEnvelope(t)
	in := labelled(testLabel, []byte{msgEncrypt, 0, 6, 0, 0, 1})
	if n := testing.AllocsPerRun(50, func() { e.readMessage(bytes.NewReader(in), false) }); n > 12 {
		t.Errorf("%v allocations for a stream that never sent its message", n)
	}
	if got := e.maxStream(); got > 600<<10 {
		t.Errorf("a stream may hold %d bytes", got)
	}
}
