package policy

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Document is the signed envelope: canonical JSON whose Policy field is the YAML text exactly as written. The
// revision orders documents of one policy name; a node never accepts a lower one than it has seen.
type Document struct {
	Schema   string `json:"schema"`
	Name     string `json:"name"`
	Revision uint64 `json:"revision"`
	Created  string `json:"created"` // RFC 3339, UTC, whole seconds
	Deleted  bool   `json:"deleted"` // the policy is withdrawn: no new starts, software stays; Policy is empty
	Policy   string `json:"policy"`
	Reverts  uint64 `json:"reverts,omitempty"` // the revision that this one takes back: the older bundle it names is meant

	Commit *Commit `json:"-"` // of the Git form; nil in the form that is signed by hand
}

// Schema identifies the envelope inside the signed bytes.
const Schema = "patchmesh.io/policy/v1"

// maxAhead is how far a revision may be ahead of the time, of which those of commits are: further than honest clocks differ.
const maxAhead = 400 * 24 * time.Hour

// checkNumber refuses to number a revision after one that nobody can have made. Who signs has the last one from the
// seeder, and the nodes follow nothing below the highest that a person has signed: it must not choose that number.
func checkNumber(name string, revision uint64, created time.Time) error {
	if revision <= uint64(max(created.Add(maxAhead).Unix(), 0)) {
		return nil
	}
	return problem.New(problem.InvalidPolicy, "revision %d of policy %s is years ahead of this machine's clock: the seeder says that the last one is just below", revision, name).
		WithDone("nothing was signed: nodes would never again follow a lower one, or a commit").
		WithNext("see that the clock of this machine is right; if it is, ask who signed that revision: meshctl policy history %s", name)
}

// NewDocument puts the text of a policy, which must be valid, into an envelope.
func NewDocument(text []byte, revision uint64, created time.Time) (*Document, error) {
	p, err := Parse(text)
	if err != nil {
		return nil, err
	}
	if err := checkNumber(p.Name, revision, created); err != nil {
		return nil, err
	}
	d := &Document{Schema: Schema, Name: p.Name, Revision: revision, Created: timestamp(created), Policy: string(text)}
	if _, err := d.validate(); err != nil {
		return nil, err
	}
	return d, nil
}

// NewDeletion makes the envelope that withdraws a policy.
func NewDeletion(name string, revision uint64, created time.Time) (*Document, error) {
	if err := checkNumber(name, revision, created); err != nil {
		return nil, err
	}
	d := &Document{Schema: Schema, Name: name, Revision: revision, Created: timestamp(created), Deleted: true}
	if _, err := d.validate(); err != nil {
		return nil, err
	}
	return d, nil
}

// Encode writes the canonical bytes, which are what is signed.
func (d *Document) Encode() ([]byte, error) {
	if d.Commit != nil {
		return nil, invalid(errors.New("the Git form is made by NewGit"))
	}
	if _, err := d.validate(); err != nil {
		return nil, err
	}
	b, err := manifest.EncodeCanonical(d)
	if err == nil && len(b) > MaxBytes {
		err = fmt.Errorf("policy document of %d bytes: at most %d", len(b), MaxBytes)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Open verifies a document's signature and parses it and the policy in it, which is nil when the document is a
// deletion. at is the trusted time, as for trust.Set.Verify. That the revision is not lower than one seen before
// is for the caller to check.
func Open(set *trust.Set, s trust.Signed, at time.Time) (*Document, *Policy, error) {
	v, err := Verify(set, s, at)
	if err != nil {
		return nil, nil, err
	}
	d, err := Read(s)
	if err != nil {
		return nil, nil, err
	}
	created, err := d.Time()
	if err != nil {
		return nil, nil, invalid(err)
	}
	if err := v.CheckCreated(created); err != nil {
		return nil, nil, err
	}
	p, err := d.Parse()
	if err != nil {
		return nil, nil, err
	}
	return d, p, nil
}

// Parse is the policy in the document, nil for a deletion. What takes another revision back means the older bundle that
// it names, so such a policy allows a downgrade whatever its text says.
func (d *Document) Parse() (*Policy, error) {
	p, err := d.validate()
	if p != nil && d.Reverts != 0 {
		p.Downgrade = true
	}
	return p, err
}

// Verify checks the signature of a document of either form and nothing else of it; at is as for Open.
func Verify(set *trust.Set, s trust.Signed, at time.Time) (trust.Verdict, error) {
	limit := MaxBytes
	if isGit(s.Doc) {
		limit = MaxGitBytes
	}
	if len(s.Doc) > limit {
		return trust.Verdict{}, invalid(fmt.Errorf("%d bytes, at most %d", len(s.Doc), limit))
	}
	if isGit(s.Doc) { // what the signature is over has to be taken out of it
		d, err := Read(s)
		if err != nil {
			return trust.Verdict{}, err
		}
		s = trust.Signed{Doc: d.Commit.Payload, Sig: d.Commit.Signature}
	}
	return set.Verify(trust.RolePolicy, s, at)
}

// Read reads the envelope of a document of either form. It verifies no signature and does not parse the policy: it is for
// what has been verified before, and for showing.
func Read(s trust.Signed) (*Document, error) {
	if isGit(s.Doc) {
		d, err := readGit(s)
		if err != nil {
			return nil, invalid(err)
		}
		return d, nil
	}
	if len(s.Doc) > MaxBytes {
		return nil, invalid(fmt.Errorf("%d bytes, at most %d", len(s.Doc), MaxBytes))
	}
	d := new(Document)
	if err := manifest.DecodeCanonical("policy document", s.Doc, d); err != nil {
		return nil, invalid(err)
	}
	if d.Schema != Schema {
		return nil, invalid(fmt.Errorf("schema %q is not %q", d.Schema, Schema))
	}
	return d, nil
}

// isGit reports whether the bytes are of the Git form, which has one beginning.
func isGit(b []byte) bool { return bytes.HasPrefix(b, []byte("{\n \"schema\": \""+GitSchema+"\",\n")) }

// Time is when the document says it was made.
func (d *Document) Time() (time.Time, error) {
	t, err := time.Parse(time.RFC3339, d.Created)
	if err != nil || timestamp(t) != d.Created {
		return time.Time{}, fmt.Errorf("created %q is not a UTC time with whole seconds", d.Created)
	}
	return t, nil
}

// validate checks the envelope and parses the policy in it.
func (d *Document) validate() (*Policy, error) {
	switch {
	case d.Schema != Schema && (d.Schema != GitSchema || d.Commit == nil):
		return nil, invalid(fmt.Errorf("schema %q is not %q", d.Schema, Schema))
	case !manifest.ValidName(d.Name):
		return nil, invalid(fmt.Errorf("name %q: want lower-case letters, digits, . _ -, at most 64", d.Name))
	case d.Revision == 0:
		return nil, invalid(errors.New("revision must be at least 1"))
	case d.Deleted && d.Policy != "":
		return nil, invalid(errors.New("a deletion holds a policy"))
	case d.Reverts >= d.Revision:
		return nil, invalid(fmt.Errorf("revision %d reverts %d, which is not older", d.Revision, d.Reverts))
	}
	if _, err := d.Time(); err != nil {
		return nil, invalid(err)
	}
	if d.Deleted {
		return nil, nil
	}
	p, err := Parse([]byte(d.Policy))
	if err != nil {
		return nil, err
	}
	if p.Name != d.Name {
		if d.Commit != nil {
			return nil, invalid(fmt.Errorf("%s/%s.yaml is for policy %q: call it %s.yaml", GitDirectory, d.Name, p.Name, p.Name))
		}
		return nil, invalid(fmt.Errorf("the envelope is for %q, the policy in it for %q", d.Name, p.Name))
	}
	return p, nil
}

func invalid(err error) error {
	return problem.New(problem.InvalidPolicy, "the policy document is not valid").Because(err).
		WithDone("the policy was not applied; what was in force stays in force")
}

func timestamp(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }
