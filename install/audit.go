package install

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/install/ledger"
	"github.com/patchmesh/patchmesh/install/release"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// Audit reads what is installed and kept, and says whether it is what was signed. It changes nothing.
func (in *Installer) Audit(ctx context.Context) Result {
	return in.with("", func(s *session) Result {
		s.silent = s.open == nil
		if r, ok := s.recover(ctx); !ok {
			return r
		}
		return s.audit(ctx, Request{})
	})
}

// audit is the executor's side of a node that has come to distrust itself. It reads every release that is in force or
// kept for going back, against the index that was signed for it, and then the bundle of the request, if it names one, as
// an install would: signatures, policy, sequence, index, every chunk in the store, every file. Nothing is started and
// nothing is remembered of it. The result is about the machine and so names no bundle: what could not be read for
// another reason is a deferral, which says neither yes nor no.
func (s *session) audit(ctx context.Context, r Request) Result {
	var read []string
	for _, name := range slices.Sorted(maps.Keys(s.ledger.Bundles)) {
		b := s.ledger.Bundle(name)
		if b.Current != nil {
			err := s.auditRelease(ctx, *b.Current)
			if errors.Is(err, errGone) {
				err = problem.New(problem.ChecksumMismatch, "release %s of %s is in force: %v", b.Current.Dir, name, err).WithDone("nothing was changed")
			}
			if err != nil {
				return s.refuse(err)
			}
			read = append(read, name+" "+b.Current.Version)
		}
		for _, p := range b.Previous {
			switch err := s.auditRelease(ctx, p); {
			case errors.Is(err, errGone): // there is nothing to go back to, and nothing that is false
			case err != nil:
				return s.refuse(err)
			default:
				read = append(read, name+" "+p.Version+" (kept)")
			}
		}
	}
	if len(r.Manifest) > 0 {
		v, err := s.auditBundle(ctx, r)
		var no *untrustedError
		if errors.As(err, &no) {
			return held(no.trial)
		}
		if err != nil {
			return s.refuse(err)
		}
		read = append(read, v.release.Bundle+" "+v.release.Version+" (staged)")
	}
	res := newResult(Success, ExitDone, status.Installed, ReasonVerified)
	res.Detail = clip("read whole: " + strings.Join(read, ", "))
	return res
}

var errGone = errors.New("the release is not on the disk any more")

// auditRelease checks a release on the disk, byte for byte, against the index that was kept when it was laid out.
func (s *session) auditRelease(ctx context.Context, r ledger.Release) error {
	damaged := func(err error) error { // in words: its cause would say that the index is wrong
		return problem.New(problem.ChecksumMismatch, "release %s of %s is damaged: %v", r.Dir, r.Bundle, err).WithDone("nothing was changed")
	}
	d, err := release.Open(s.Config.Root, r.Bundle)
	if err != nil {
		return err
	}
	has, err := d.Has(r.Dir)
	if err != nil {
		return err
	}
	if !has {
		return errGone
	}
	x, err := s.state.evidenceIndex(r)
	if err != nil {
		return damaged(err)
	}
	err = d.Verify(ctx, x, r.Dir)
	var differs *release.FileError
	if errors.As(err, &differs) {
		return damaged(err)
	}
	return err
}

// untrustedError: a package of the bundle was found to be signed by nobody who may.
type untrustedError struct{ trial ledger.Trial }

func (e *untrustedError) Error() string { return e.trial.Detail }

// auditBundle verifies the bundle of a request as it lies in the store.
func (s *session) auditBundle(ctx context.Context, r Request) (*verified, error) {
	set, err := readTrust(s.Config.Trust)
	if err != nil {
		return nil, err
	}
	facts, err := s.Config.facts()
	if err != nil {
		return nil, err
	}
	v, err := verify(s.Config, set, s.ledger, facts, s.Built, r)
	if err != nil {
		return nil, err
	}
	if err := s.ledger.Admit(v.release, v.wanted.Downgrade); err != nil {
		return nil, err
	}
	if t := s.ledger.Held(v.release.Bundle, v.release.Checksum); t != nil && t.Reason == ReasonUntrusted {
		return nil, &untrustedError{*t}
	}
	s.request = r
	src, err := s.source()
	if err != nil {
		return nil, err
	}
	defer src.Close()
	x, _, err := readIndex(v.manifest, src)
	if err != nil {
		return nil, err
	}
	if err := release.Check(ctx, x, src); err != nil {
		return nil, fmt.Errorf("bundle %s %s: %w", v.manifest.Name, v.manifest.Version, err)
	}
	return v, nil
}
