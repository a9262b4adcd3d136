package trust

import (
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// OpenManifest verifies a manifest's signature, parses it, and checks that it was signed when it says it was made.
// at is the trusted time, as for Verify.
func (s *Set) OpenManifest(d Signed, at time.Time) (*manifest.Manifest, Verdict, error) {
	invalid := problem.New(problem.ManifestInvalid, "the manifest is not valid").WithDone("the bundle was not used")
	if len(d.Doc) > manifest.MaxManifestBytes {
		invalid.Subject = "the manifest is too large"
		return nil, Verdict{}, invalid
	}
	v, err := s.Verify(RoleRelease, d, at)
	if err != nil {
		return nil, Verdict{}, err
	}
	m, err := manifest.Parse(d.Doc)
	if err != nil {
		return nil, Verdict{}, invalid.Because(err)
	}
	if err := v.CheckCreated(m.Created); err != nil {
		return nil, Verdict{}, err
	}
	return m, v, nil
}

// CheckCreated checks that every signature that counted was made within MaxSkewFromCreated of the time that the
// document names, so that an old key cannot sign into the past nor a wrong clock into the future.
func (v Verdict) CheckCreated(created time.Time) error {
	for i, t := range v.Times {
		if d := t.Sub(created).Abs(); d > MaxSkewFromCreated {
			return problem.New(problem.SignatureInvalid, "the document says created %s, the signature by %s was made %s",
				created.UTC().Format(time.RFC3339), v.Signers[i], t.Format(time.RFC3339)).
				Because(ErrCreated.because("%s apart, at most %s", d, MaxSkewFromCreated)).
				WithDone("the document was not used").
				WithNext("check the clock of the machine that signed, then build and sign again")
		}
	}
	return nil
}
