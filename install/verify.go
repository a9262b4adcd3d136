package install

import (
	"context"
	"errors"
	"time"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/install/health"
	"github.com/patchmesh/patchmesh/install/journal"
	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/install/release"
	"github.com/patchmesh/patchmesh/internal/grant"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// verified is a request that this machine may act on.
type verified struct {
	release  ledger.Release
	manifest *manifest.Manifest
	docs     trust.Signed // the manifest as signed
	policy   string
	revision uint64
	health   journal.Health
	wanted   *policy.Policy
	created  time.Time      // of the policy
	site     *time.Location // by the roster in the request; nil: not known
	grant    *grant.Grant   // of the rollout; nil: the request brings none
	grantErr error          // why that is not to be believed
	signed   time.Time      // newest time that the signatures vouch for
}

// verify checks everything that can be said from the two signed documents, what is remembered, and the machine. It
// reads no clock: what is expired is judged by the newest time that a signature has vouched for.
func verify(c Config, set *trust.Set, l *ledger.Ledger, facts manifest.Facts, built time.Time, r Request) (*verified, error) {
	at := trust.Floor(built, l.Time)
	docs := trust.Signed{Doc: r.Manifest, Sig: r.Signature}
	m, verdict, err := set.OpenManifest(docs, at)
	if err != nil {
		return nil, err
	}
	v := &verified{
		release:  ledger.ReleaseOf(m, manifest.DigestOf(r.Manifest)),
		manifest: m, docs: docs, signed: verdict.Newest(),
	}
	d, p, err := policy.Open(set, trust.Signed{Doc: r.Policy, Sig: r.PolicySignature}, at)
	if err != nil {
		return v, err
	}
	created, err := d.Time()
	if err != nil {
		return v, err
	}
	v.wanted, v.created, v.site = p, created, siteZone(c, set, at, r)
	v.grant, v.grantErr = grantOf(set, at, r)
	v.policy, v.revision, v.signed = d.Name, d.Revision, trust.Floor(v.signed, created)
	if d.Deleted {
		return v, problem.New(problem.InvalidPolicy, "policy %s is withdrawn", d.Name).WithDone("nothing was changed")
	}
	if err := l.AdmitPolicy(d.Name, d.Revision); err != nil {
		return v, err
	}
	if len(c.Labels) > 0 && !p.Matches(c.Labels) {
		return v, problem.New(problem.Denied, "policy %s does not select this machine", p.Name).
			WithDone("nothing was changed").WithNext("compare its selector with the labels in the executor's configuration")
	}
	if p.Bundle.Name != m.Name || p.Bundle.Version != m.Version || p.Bundle.Checksum != v.release.Checksum {
		return v, problem.New(problem.ChecksumMismatch, "policy %s asks for %s %s %s, the bundle is %s %s %s", p.Name,
			p.Bundle.Name, p.Bundle.Version, p.Bundle.Checksum, m.Name, m.Version, v.release.Checksum).WithDone("nothing was changed")
	}
	if !m.Target.Matches(facts) {
		return v, problem.New(problem.TargetMismatch, "bundle %s %s is for %s, this machine is %s-%s/%s",
			m.Name, m.Version, m.Target, facts.OS, facts.Release, facts.Arch).WithDone("nothing was changed")
	}
	if v.health, err = healthOf(c, p); err != nil {
		return v, err
	}
	return v, nil
}

// healthOf is what has to be asked before a release stays. Without rollback nothing would follow from the answer, so
// nothing is asked.
func healthOf(c Config, p *policy.Policy) (journal.Health, error) {
	h := journal.Health{
		Command: len(c.Health.Command) > 0, TimeoutSeconds: c.Health.TimeoutSeconds,
		IntervalSeconds: p.Rollback.IntervalSeconds, HoldSeconds: p.Rollback.HealthyForSeconds,
	}
	if !p.Rollback.Enabled {
		return journal.Health{}, nil
	}
	if p.Rollback.HealthCheckURL != "" {
		h.URL, h.TimeoutSeconds = p.Rollback.HealthCheckURL, p.Rollback.HealthTimeoutSeconds
	}
	if h.HoldSeconds >= h.TimeoutSeconds { // the machine's own limit leaves no time for what the policy asks
		h.TimeoutSeconds = p.Rollback.HealthTimeoutSeconds
	}
	h.IntervalSeconds = min(h.IntervalSeconds, h.TimeoutSeconds)
	if err := checkOf("", h).Validate(); err != nil {
		return h, problem.New(problem.UnsupportedField, "policy %s: the health check cannot be asked", p.Name).Because(err).WithDone("nothing was changed")
	}
	return h, nil
}

func checkOf(bundle string, h journal.Health) health.Check {
	seconds := func(n int) time.Duration { return time.Duration(n) * time.Second }
	return health.Check{
		Bundle: bundle, URL: h.URL, Command: h.Command,
		Timeout: seconds(h.TimeoutSeconds), Interval: seconds(h.IntervalSeconds), Hold: seconds(h.HoldSeconds),
	}
}

// readIndex reads the index from the chunk store. Its size is signed and bounded.
func readIndex(m *manifest.Manifest, src release.Source) (*manifest.Index, []byte, error) {
	b := make([]byte, 0, m.Index.Size)
	var buf []byte
	for _, r := range m.Index.Chunks {
		part, err := src.Get(r.ID, buf)
		if err != nil {
			return nil, nil, &release.ChunkError{ID: r.ID, Path: "index.json", Err: err}
		}
		if int64(len(part)) != r.Size {
			return nil, nil, problem.New(problem.IndexInvalid, "index chunk %s has %d bytes, the manifest says %d", r.ID, len(part), r.Size)
		}
		b, buf = append(b, part...), part
	}
	x, err := manifest.ParseIndex(m, b)
	if err != nil {
		return nil, nil, problem.New(problem.IndexInvalid, "the index of %s %s is not valid", m.Name, m.Version).Because(err).WithDone("nothing was changed")
	}
	return x, b, nil
}

// faultOf says what an error of a step means for the candidate.
// touched says that a transaction of packages has begun to change the machine.
func faultOf(err error, touched bool) *journal.Fault {
	f := &journal.Fault{Class: journal.Failed, Reason: "InstallFailed", Code: problem.InstallFailed, Detail: clip(err.Error())}
	var ce *release.ChunkError
	if errors.As(err, &ce) {
		f.Chunk = ce.ID.String()
	}
	var corrupt *store.CorruptError
	var file *release.FileError
	var no *health.UnhealthyError
	var p *problem.Error
	var later *deferral
	var tools *manager.Error
	var found *findingsError
	switch {
	case errors.As(err, &later):
		f.Class, f.Reason, f.Code, f.Detail = journal.Deferred, later.reason, later.code, clip(later.detail)
	case errors.As(err, &tools):
		f.Class, f.Reason, f.Code = managerFault(tools, touched)
	case errors.As(err, &found):
		f.Reason = ReasonNotAsForeseen
	case errors.As(err, &no): // first: it may wrap the end of its own time
		f.Class, f.Reason, f.Code = journal.Unhealthy, ReasonHealthCheck, problem.HealthFailed
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		f.Class, f.Reason, f.Code = journal.Deferred, ReasonInterrupted, problem.Timeout
	case diskFull(err):
		f.Class, f.Reason, f.Code = journal.Deferred, ReasonDiskFull, problem.DiskFull
		if touched { // what is tried for ever is never given up
			f.Class = journal.Failed
		}
	case errors.Is(err, store.ErrNotFound):
		f.Class, f.Reason, f.Code = journal.Deferred, ReasonNotStaged, problem.NotFound
	case errors.As(err, &corrupt) || errors.Is(err, release.ErrWrongBytes):
		f.Class, f.Reason, f.Code = journal.Damaged, "ChunkCorrupt", problem.ChunkCorrupt
	case errors.As(err, &file):
		f.Reason, f.Code = "IndexInvalid", problem.IndexInvalid
	case ce != nil: // the store cannot be read: not the bundle's fault, and maybe not for long
		f.Class, f.Reason, f.Code = journal.Deferred, ReasonNotStaged, problem.StoreDamaged
	case errors.As(err, &p):
		f.Code, f.Reason = p.Code, reasonOf(p.Code)
	}
	return f
}

func reasonOf(c problem.Code) string {
	switch c {
	case problem.ChecksumMismatch:
		return "ChecksumMismatch"
	case problem.SignatureInvalid:
		return "SignatureInvalid"
	case problem.IndexInvalid:
		return "IndexInvalid"
	case problem.ManifestInvalid:
		return "ManifestInvalid"
	case problem.SequenceTooOld:
		return "SequenceTooOld"
	case problem.TargetMismatch:
		return "TargetMismatch"
	case problem.InvalidPolicy:
		return "InvalidPolicy"
	case problem.InvalidOrder:
		return "InvalidOrder"
	case problem.OrderTooOld:
		return ReasonOrderTooOld
	case problem.BundleRevoked:
		return ReasonRevoked
	case problem.UnsupportedField:
		return "UnsupportedField"
	case problem.Denied:
		return "NotSelected"
	case problem.InvalidFile:
		return ReasonUnusable
	case problem.StoreDamaged:
		return ReasonStateDamaged
	case problem.NotFound:
		return "NotFound"
	case problem.Locked:
		return ReasonLocked
	}
	return string(c)
}
