package trust

import (
	"fmt"
	"strings"
)

// ReasonError is why a signature, or a file of signatures, is refused. errors.Is finds it in what Verify returns.
type ReasonError string

// The reasons.
const (
	ErrTooLarge         ReasonError = "the signature file is too large"
	ErrTooMany          ReasonError = "the signature file has too many packets"
	ErrNotSignatures    ReasonError = "the file is not a plain list of OpenPGP signatures"
	ErrVersion          ReasonError = "the signature is not of OpenPGP version 4"
	ErrNotBinary        ReasonError = "the signature is not over the exact bytes (text mode, or not over a document)"
	ErrWeakHash         ReasonError = "the signature uses a hash other than SHA-256, SHA-384 or SHA-512"
	ErrNoIssuer         ReasonError = "the signature does not carry the fingerprint of its issuer"
	ErrUnknownKey       ReasonError = "the signer is not among the keys allowed for this role"
	ErrWeakKey          ReasonError = "the key is of a kind that is refused"
	ErrRevoked          ReasonError = "the key is revoked"
	ErrKeyExpired       ReasonError = "the key is expired"
	ErrSignatureExpired ReasonError = "the signature is expired"
	ErrBad              ReasonError = "the signature does not match the document"
	ErrThreshold        ReasonError = "too few different keys have signed"
	ErrCreated          ReasonError = "the signature was made at another time than the document says"
	ErrKeys             ReasonError = "the trusted keys cannot be used"
)

// Error makes a reason an error.
func (r ReasonError) Error() string { return string(r) }

// because adds a detail to a reason.
func (r ReasonError) because(format string, args ...any) error {
	return fmt.Errorf("%w: %w", r, fmt.Errorf(format, args...))
}

// RefusedError is why a document was refused: one error for each signature that did not count, in the order of the
// file, and then ErrThreshold where too few were left.
type RefusedError struct {
	Errors []error
}

// Error joins the reasons on one line.
func (r *RefusedError) Error() string {
	s := make([]string, len(r.Errors))
	for i, err := range r.Errors {
		s[i] = err.Error()
	}
	return strings.Join(s, "; ")
}

// Unwrap returns the reasons.
func (r *RefusedError) Unwrap() []error { return r.Errors }
