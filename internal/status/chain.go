package status

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"

	"github.com/patchmesh/patchmesh/internal/manifest"
)

// Link is a receipt as a verifier needs it: the signed report, its name and what it says.
type Link struct {
	Hash   manifest.Digest // sha256 of the report's body
	Body   ReportBody      // with a Receipt
	Signed Report
}

// NewLink reads a signed report that is a receipt. It verifies that envelope and body say the same, and no signature.
// A newer node says more: fields that are not known are passed over.
func NewLink(r Report) (Link, error) {
	l := Link{Hash: manifest.DigestOf(r.Body), Signed: r}
	if len(r.Body) > MaxReportBody {
		return l, fmt.Errorf("receipt of %d bytes: at most %d", len(r.Body), MaxReportBody)
	}
	d := json.NewDecoder(bytes.NewReader(r.Body))
	if err := d.Decode(&l.Body); err != nil {
		return l, fmt.Errorf("receipt %s: %w", l.Hash.Short(), err)
	}
	b := l.Body
	switch {
	case d.More() || b.Site != r.Site || b.Node != r.Node || b.Seq != r.Seq:
		return l, fmt.Errorf("receipt %s: its body is of report %d of %s/%s, its envelope of report %d of %s/%s",
			l.Hash.Short(), b.Seq, b.Site, b.Node, r.Seq, r.Site, r.Node)
	case b.Receipt == nil || b.Receipt.Number == 0:
		return l, fmt.Errorf("report %d of %s/%s is no receipt", r.Seq, r.Site, r.Node)
	}
	return l, nil
}

// VerifyChain says what is wrong with receipts of one node key, in the order of their numbers: each signature, and that
// each names the one before. Nothing is wrong with none. Receipts before the first one given are not missed, unless
// whole is true: then the first has number 1.
func VerifyChain(key ed25519.PublicKey, links []Link, whole bool) (faults []error) {
	wrong := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for i, l := range links {
		r := l.Body.Receipt
		switch {
		case l.Hash != manifest.DigestOf(l.Signed.Body):
			wrong("receipt %d: its name %s is not the sha256 of its body", r.Number, l.Hash.Short())
		case len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, l.Signed.Body, l.Signed.Sig):
			wrong("receipt %d: the signature is not of this node's key", r.Number)
		}
		if (r.Number == 1) != (r.Previous == nil) {
			wrong("receipt %d: only the first has none before it", r.Number)
		}
		if i == 0 {
			if whole && r.Number != 1 {
				wrong("receipts 1 to %d are missing", r.Number-1)
			}
			continue
		}
		last := links[i-1]
		switch n := last.Body.Receipt.Number; {
		case r.Number == n && l.Hash == last.Hash:
			wrong("receipt %d is there twice", r.Number)
		case r.Number == n:
			wrong("receipt %d is there in two versions, %s and %s", r.Number, last.Hash.Short(), l.Hash.Short())
		case r.Number < n:
			wrong("receipt %d comes after receipt %d", r.Number, n)
		case r.Number > n+1:
			wrong("receipts %d to %d are missing", n+1, r.Number-1)
		case r.Previous != nil && *r.Previous != last.Hash:
			wrong("receipt %d names %s as the one before, which is %s", r.Number, r.Previous.Short(), last.Hash.Short())
		}
	}
	return faults
}
