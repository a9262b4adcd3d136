package xfer

import (
	"errors"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"golang.org/x/sys/unix"
)

// What the tests outside name.
var (
	ErrReplaced = errReplaced
	ErrSilent   = errSilent
	ErrSlow     = errSlow
	ErrHungUp   = errHungUp
)

// MaxControlBytes is maxControlBytes.
const MaxControlBytes = maxControlBytes

// Congestion is the congestion control that the kernel says the session's data lane is sent with.
func (s *Session) Congestion() (name string, err error) {
	e := s.path.Load().socket.Control(func(fd uintptr) {
		name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	})
	return name, errors.Join(e, err)
}

// Trims reports whether something may close connections because there are many of them.
func (x *Host) Trims() bool {
	_, never := x.h.ConnManager().(connmgr.NullConnMgr)
	return !never
}
