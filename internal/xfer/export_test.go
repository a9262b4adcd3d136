package xfer

// What the tests outside name.
var (
	ErrReplaced = errReplaced
	ErrSilent   = errSilent
	ErrSlow     = errSlow
	ErrHungUp   = errHungUp
)

// MaxControlBytes is maxControlBytes.
const MaxControlBytes = maxControlBytes
