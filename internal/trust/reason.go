package trust

import (
	"fmt"
	"strings"
)

// Reason is why a signature, or a file of signatures, is refused. errors.Is finds it in what Verify returns.
type Reason string

// The reasons.
const (
	ReasonTooLarge         Reason = "the signature file is too large"
	ReasonTooMany          Reason = "the signature file has too many packets"
	ReasonNotSignatures    Reason = "the file is not a plain list of OpenPGP signatures"
	ReasonVersion          Reason = "the signature is not of OpenPGP version 4"
	ReasonNotBinary        Reason = "the signature is not over the exact bytes (text mode, or not over a document)"
	ReasonWeakHash         Reason = "the signature uses a hash other than SHA-256, SHA-384 or SHA-512"
	ReasonNoIssuer         Reason = "the signature does not carry the fingerprint of its issuer"
	ReasonUnknownKey       Reason = "the signer is not among the keys allowed for this role"
	ReasonWeakKey          Reason = "the key is of a kind that is refused"
	ReasonRevoked          Reason = "the key is revoked"
	ReasonKeyExpired       Reason = "the key is expired"
	ReasonSignatureExpired Reason = "the signature is expired"
	ReasonBad              Reason = "the signature does not match the document"
	ReasonThreshold        Reason = "too few different keys have signed"
	ReasonCreated          Reason = "the signature was made at another time than the document says"
	ReasonKeys             Reason = "the trusted keys cannot be used"
)

// Error makes a Reason an error.
func (r Reason) Error() string { return string(r) }

// because adds a detail to a reason.
func (r Reason) because(format string, args ...any) error {
	return fmt.Errorf("%w: %w", r, fmt.Errorf(format, args...))
}

// Refusal is why a document was refused: one error for each signature that did not count, in the order of the
// file, and then ReasonThreshold where too few were left.
type Refusal struct {
	Errors []error
}

// Error joins the reasons on one line.
func (r *Refusal) Error() string {
	s := make([]string, len(r.Errors))
	for i, err := range r.Errors {
		s[i] = err.Error()
	}
	return strings.Join(s, "; ")
}

// Unwrap returns the reasons.
func (r *Refusal) Unwrap() []error { return r.Errors }
