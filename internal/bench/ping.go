package main

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/testbed"
)

// pingEvery is how often a bystander asks.
const pingEvery = 20 * time.Millisecond

// echo is one answer, or none within a second.
type echo struct {
	sent time.Time
	rtt  time.Duration // 0: lost
}

// ping has a host ask another one (ICMP, RFC 792) until ctx ends, and returns what came back. The kernel answers, and
// the kernel says when an answer arrived: a busy machine adds nothing.
func ping(ctx context.Context, bed *testbed.Bed, from, to string) ([]echo, error) {
	var conn *net.IPConn
	err := bed.Inside(from, func() error {
		c, err := net.ListenPacket("ip4:icmp", "0.0.0.0")
		if err != nil {
			return err
		}
		conn = c.(*net.IPConn)
		return nil
	})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var opt error
	if err := raw.Control(func(fd uintptr) { opt = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) }); err != nil || opt != nil {
		return nil, errors.Join(err, opt)
	}
	dst := &net.IPAddr{IP: net.ParseIP(to)}
	id := uint16(os.Getpid())
	var echoes []echo
	every := time.NewTicker(pingEvery)
	defer every.Stop()
	for seq := 0; ; seq++ {
		select {
		case <-ctx.Done():
			err := answers(conn, id, echoes, time.Second)
			return echoes, err
		case <-every.C:
		}
		echoes = append(echoes, echo{sent: time.Now()})
		if _, err := conn.WriteTo(request(id, uint16(seq)), dst); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return nil, err
		}
		if err := answers(conn, id, echoes, 0); err != nil {
			return nil, err
		}
	}
}

// answers takes what has arrived, waiting for at most wait.
func answers(conn *net.IPConn, id uint16, echoes []echo, wait time.Duration) error {
	if err := conn.SetReadDeadline(time.Now().Add(max(wait, time.Millisecond))); err != nil {
		return err
	}
	buf, oob := make([]byte, 256), make([]byte, 128)
	for {
		n, k, _, _, err := conn.ReadMsgIP(buf, oob)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		b := buf[:n]
		if len(b) > 0 && b[0]>>4 == 4 { // the IP header
			b = b[min(len(b), int(b[0]&15)*4):]
		}
		if len(b) < 8 || b[0] != 0 || binary.BigEndian.Uint16(b[4:]) != id {
			continue
		}
		seq := int(binary.BigEndian.Uint16(b[6:]))
		for seq+1<<16 < len(echoes) { // the number has 16 bits
			seq += 1 << 16
		}
		if at, ok := stamp(oob[:k]); ok && seq < len(echoes) && echoes[seq].rtt == 0 {
			echoes[seq].rtt = at.Sub(echoes[seq].sent)
		}
	}
}

// stamp is the kernel's time of arrival.
func stamp(oob []byte) (time.Time, bool) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Time{}, false
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:]))), true
		}
	}
	return time.Time{}, false
}

// request is an echo request of 64 bytes.
func request(id, seq uint16) []byte {
	b := make([]byte, 64)
	b[0] = 8
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// checksum of the Internet (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// millis are the round trips of the echoes that were sent from a time on until another, in ms. A lost one counts as a
// second: leaving it out would praise a queue that overflows.
func millis(echoes []echo, from, until time.Time) (ms []float64) {
	for _, e := range echoes {
		switch {
		case e.sent.Before(from) || !e.sent.Before(until):
		case e.rtt == 0:
			ms = append(ms, 1000)
		default:
			ms = append(ms, float64(e.rtt)/float64(time.Millisecond))
		}
	}
	return ms
}
