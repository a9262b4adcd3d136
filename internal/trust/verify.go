package trust

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/patchmesh/patchmesh/internal/problem"
)

// config returns the library's settings. Time is the zero time, which in v2 means that the library judges no date
// by a clock: signatures are checked at their own time, and everything else about dates is decided here.
func config() *packet.Config {
	return &packet.Config{
		Time:       func() time.Time { return time.Time{} },
		MinRSABits: 3072,
		RejectPublicKeyAlgorithms: map[packet.PublicKeyAlgorithm]bool{
			packet.PubKeyAlgoElGamal: true, packet.PubKeyAlgoDSA: true,
		},
		// Of the signatures that bind user IDs and subkeys to a key.
		RejectHashAlgorithms: map[crypto.Hash]bool{crypto.MD5: true, crypto.RIPEMD160: true, crypto.SHA1: true},
		RejectMessageHashAlgorithms: map[crypto.Hash]bool{
			crypto.MD5: true, crypto.RIPEMD160: true, crypto.SHA1: true, crypto.SHA224: true,
		},
		RejectCurves:   map[packet.Curve]bool{packet.CurveSecP256k1: true},
		KnownNotations: nil, // an unknown critical notation refuses the signature
	}
}

// Verify checks that the document is signed by at least Threshold different keys of the role and that every
// signature in the file is good. at is the trusted time: on a node the floor (see Floor), on a build server the
// clock. A key that had expired at that time, or when it signed, is refused, and so is a key with any revocation.
// The error is a *problem.Error with code SignatureInvalid whose cause holds every reason.
func (s *Set) Verify(role Role, d Signed, at time.Time) (Verdict, error) {
	k := s.Keys(role)
	v, err := k.verify(d, at)
	if err != nil {
		return Verdict{}, problem.New(problem.SignatureInvalid, "the signature for role %q is refused", role).
			Because(err).
			WithDone("the document was not used").
			WithNext("sign the document with the keys of the role, or get an intact copy")
	}
	return v, nil
}

func (k *RoleKeys) verify(d Signed, at time.Time) (Verdict, error) {
	sigs, err := SplitSignatures(d.Sig) // before anything costs more than the cap
	if err != nil {
		return Verdict{}, err
	}
	ring, err := k.entities()
	if err != nil {
		return Verdict{}, err
	}
	cfg := config()
	md, err := openpgp.VerifyDetachedSignatureReader(ring, bytes.NewReader(d.Doc), bytes.NewReader(slices.Concat(sigs...)), cfg)
	if err != nil {
		return Verdict{}, ErrBad.because("%w", err)
	}
	if _, err := io.Copy(io.Discard, md.UnverifiedBody); err != nil {
		return Verdict{}, ErrBad.because("%w", err)
	}
	if len(md.SignatureCandidates) != len(sigs) {
		return Verdict{}, ErrNotSignatures.because("%d packets give %d signatures", len(sigs), len(md.SignatureCandidates))
	}
	var v Verdict
	var refusal RefusedError
	for i, c := range md.SignatureCandidates {
		if err := judge(c, at); err != nil {
			refusal.Errors = append(refusal.Errors, fmt.Errorf("signature %d by %X: %w", i+1, c.IssuerFingerprint, err))
			continue
		}
		// The same key counts once, however often it signed.
		if fp := fingerprint(c.SignedByEntity.PrimaryKey); !slices.Contains(v.Signers, fp) {
			v.Signers = append(v.Signers, fp)
			v.Times = append(v.Times, c.CorrespondingSig.CreationTime.UTC())
		}
	}
	if len(v.Signers) < k.Threshold {
		refusal.Errors = append(refusal.Errors, ErrThreshold.because("%d of %d", len(v.Signers), k.Threshold))
	}
	if len(refusal.Errors) > 0 {
		return Verdict{}, &refusal
	}
	return v, nil
}

// judge says whether one signature counts: first what the library found, then the rules that it does not have.
func judge(c *openpgp.SignatureCandidate, at time.Time) error {
	e := c.SignedByEntity
	if e == nil {
		return ErrUnknownKey
	}
	if err := usable(e); err != nil {
		return err
	}
	switch err := c.SignatureError; {
	case err == nil:
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return ErrRevoked
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return ErrKeyExpired.because("at %s, when it signed", c.CorrespondingSig.CreationTime.UTC().Format(time.RFC3339))
	default:
		return ErrBad.because("%w", err)
	}
	if c.SignedBy == nil || !bytes.Equal(c.IssuerFingerprint, c.SignedBy.PublicKey.Fingerprint) {
		return ErrUnknownKey
	}
	end := keyEnd(e)
	if !c.SignedBy.IsPrimary() {
		i := slices.IndexFunc(e.Subkeys, func(s openpgp.Subkey) bool { return s.PublicKey == c.SignedBy.PublicKey })
		if i < 0 {
			return ErrUnknownKey
		}
		if len(e.Subkeys[i].Revocations) > 0 {
			return ErrRevoked.because("subkey %s", fingerprint(e.Subkeys[i].PublicKey))
		}
		if err := strong(e.Subkeys[i].PublicKey); err != nil {
			return err
		}
		end = earlier(end, subkeyEnd(&e.Subkeys[i]))
	}
	if past(end, at) {
		return ErrKeyExpired.because("since %s", end.Format(time.RFC3339))
	}
	if end := lifetimeEnd(c.CorrespondingSig.CreationTime, c.CorrespondingSig.SigLifetimeSecs); past(end, at) {
		return ErrSignatureExpired.because("since %s", end.Format(time.RFC3339))
	}
	return nil
}

// usable refuses a key for what does not depend on a time: a revocation of any kind and age (a stolen key can be
// made to sign in the past), a weak or unusual primary key, or nothing in it that can sign.
func usable(e *openpgp.Entity) error {
	if len(e.Revocations) > 0 {
		return ErrRevoked
	}
	if err := strong(e.PrimaryKey); err != nil {
		return err
	}
	if _, err := e.PrimarySelfSignature(time.Time{}, config()); err != nil {
		return ErrWeakKey.because("it is not bound to its user ID with a strong hash")
	}
	if _, ok := e.SigningKey(time.Time{}, config()); !ok {
		return ErrWeakKey.because("it cannot sign")
	}
	return nil
}

// strong allows the kinds of key that stock gpg reads and that are strong enough: RSA of at least 3072 bits, ECDSA
// on the NIST and Brainpool curves, and version 4 Ed25519 (algorithm 22).
func strong(k *packet.PublicKey) error {
	switch k.PubKeyAlgo {
	case packet.PubKeyAlgoRSA:
		if n, err := k.BitLength(); err != nil || n < config().MinRSABits {
			return ErrWeakKey.because("RSA of %d bits, at least %d", n, config().MinRSABits)
		}
		return nil
	case packet.PubKeyAlgoEdDSA:
		if curve, err := k.Curve(); err != nil || curve != packet.Curve25519 {
			return ErrWeakKey.because("EdDSA on the curve %q", curve)
		}
		return nil
	case packet.PubKeyAlgoECDSA:
		if curve, err := k.Curve(); err != nil || config().RejectCurve(curve) {
			return ErrWeakKey.because("ECDSA on the curve %q", curve)
		}
		return nil
	}
	return ErrWeakKey.because("public-key algorithm %d", k.PubKeyAlgo)
}

// keyEnd is when the primary key expires; zero: never. Programs differ in which of several self-signatures they
// believe, so the earliest end in the newest one of each user ID, and in the newest over the key itself, counts.
func keyEnd(e *openpgp.Entity) time.Time {
	var newest []*packet.Signature
	for _, id := range e.Identities {
		if sig, err := id.LatestValidSelfCertification(time.Time{}, config()); err == nil {
			newest = append(newest, sig)
		}
	}
	if sig, err := e.LatestValidDirectSignature(time.Time{}, config()); err == nil {
		newest = append(newest, sig)
	}
	var end time.Time
	for _, sig := range newest {
		end = earlier(end, lifetimeEnd(e.PrimaryKey.CreationTime, sig.KeyLifetimeSecs))
		end = earlier(end, lifetimeEnd(sig.CreationTime, sig.SigLifetimeSecs))
	}
	return end
}

// subkeyEnd is when a subkey expires by its newest binding signature; zero: never.
func subkeyEnd(s *openpgp.Subkey) time.Time {
	sig, err := s.LatestValidBindingSignature(time.Time{}, config())
	if err != nil {
		return time.Time{}
	}
	return earlier(lifetimeEnd(s.PublicKey.CreationTime, sig.KeyLifetimeSecs), lifetimeEnd(sig.CreationTime, sig.SigLifetimeSecs))
}

// lifetimeEnd is when something with a lifetime ends; zero: never.
func lifetimeEnd(from time.Time, secs *uint32) time.Time {
	if secs == nil || *secs == 0 {
		return time.Time{}
	}
	return from.Add(time.Duration(*secs) * time.Second).UTC()
}

// earlier returns the earlier of two ends, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func past(end, at time.Time) bool { return !end.IsZero() && !at.Before(end) }
