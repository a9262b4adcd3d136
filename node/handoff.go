package node

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// The daemon has no privileges and cannot start a program that has. So it leaves its request in request.json, where the
// service manager sees it and starts the executor, and finds the answer in the executor's directory, which belongs to
// root: install.Results. There it also finds what was done without it, by a person or at the start of the machine.
// request.json is there while an answer is waited for. A daemon that was started again goes on waiting for the same
// answer, and an executor that was started again gives the same one.

// How often the answer is looked for, and how long the executor may say nothing before it is taken for absent. While its
// journal is there it is at work, however long that takes.
const (
	resultsEvery = time.Second
	silentAfter  = 15 * time.Minute
	journalName  = "journal.json"
)

// reasonSilent: nobody has taken up the request.
const reasonSilent = "InstallerSilent"

// handed is a request whose answer is waited for.
type handed struct {
	id    string
	until time.Time // see silentAfter
	then  func(install.Result)
}

// handOver leaves a request for the executor; then runs on the loop with its answer. One is under way at a time.
func (n *Node) handOver(request install.Request, then func(install.Result)) {
	request = request.Fresh()
	open, same := n.handedBefore(request)
	if same {
		request.ID = open
	}
	n.handed = &handed{id: request.ID, until: time.Now().Add(silentAfter), then: then}
	if same {
		return
	}
	b, err := request.Encode()
	n.disk.add(func() error {
		if err != nil {
			return err
		}
		return durable.WriteFile(n.d.path("request.json"), b, 0o644)
	}, func(err error) {
		if h := n.handed; err != nil && h != nil && h.id == request.ID {
			n.answer(install.Cut(err))
		}
	})
}

// handedBefore reports whether the same was asked before the daemon was started again, and is not answered yet.
func (n *Node) handedBefore(request install.Request) (id string, same bool) {
	var open install.Request
	if err := readJSON(n.d.path("request.json"), &open); err != nil || n.results.Answer(open.ID) != nil {
		return "", false
	}
	id = open.ID
	open.ID, open.SkewSeconds = request.ID, request.SkewSeconds
	a, aerr := json.Marshal(open)
	b, berr := json.Marshal(request)
	return id, id != "" && aerr == nil && berr == nil && bytes.Equal(a, b)
}

// answer ends the wait. The request goes once the answer is on disk.
func (n *Node) answer(r install.Result) {
	then := n.handed.then
	n.handed = nil
	then(r)
	n.disk.add(func() error { return durable.Remove(n.d.path("request.json")) }, func(err error) {
		if err != nil {
			n.log.Warn("request cannot be withdrawn", "err", err)
		}
	})
}

// heard takes what the executor has said since it was last heard.
func (n *Node) heard(rs install.Results) {
	n.results = rs
	for _, r := range rs.After(n.rec.Heard) {
		n.rec.Heard, n.dirty = r.ID, true
		if h := n.handed; h != nil && h.id == r.ID {
			n.answer(r)
		} else {
			n.noticed(r)
		}
	}
}

// noticed takes a result that nobody waits for: of a person on this machine, of a transaction that was carried on when
// the machine was started, or of a request that was given up.
func (n *Node) noticed(r install.Result) {
	l := n.rec.Lives[r.Bundle]
	if l == nil {
		return
	}
	n.suspect(r, r.Bundle, r.Version, manifest.Digest{})
	n.log.Info("the executor did something by itself", "bundle", r.Bundle, "outcome", r.Outcome, "reason", r.Reason, "detail", r.Detail)
	l.overhear(time.Now(), r)
	n.lifeChanged(r.Bundle, l, nil)
	n.reconcileBundles()
}

// overhear moves a life on by a result that was not asked for. What is about the target counts as an answer. An order
// is asked about again by its errand.
func (l *Life) overhear(now time.Time, r install.Result) {
	switch {
	case r.Order != 0 || l.Target == nil:
		l.found(r)
		l.unmanaged()
	case r.Reason == install.ReasonForgotten:
		if Final(l.Phase) && l.Phase != status.Installed {
			l.Phase, l.Reason, l.Code, l.Detail, l.Outcome, l.Next, l.Tries = status.Pending, r.Reason, "", "", "", time.Time{}, 0
		}
	case r.Checksum != nil && *r.Checksum == l.Target.Checksum:
		l.finish(now, r)
	default:
		l.found(r)
		if r.Outcome == install.Success && l.Phase == status.Installed && !l.inForce() {
			l.Phase, l.Reason, l.Code, l.Outcome, l.Next = status.RolledBack, r.Reason, "", string(install.RolledBack), time.Time{}
			l.note(r)
		}
	}
}

// watchSilence gives up a request that nobody takes up.
func (n *Node) watchSilence(now time.Time) {
	h := n.handed
	if h == nil || now.Before(h.until) {
		return
	}
	if _, err := os.Lstat(filepath.Join(n.cfg.Handoff, journalName)); err == nil {
		h.until = now.Add(time.Minute)
		return
	}
	n.answer(install.Result{Outcome: install.Deferred, Phase: status.Deferred, Reason: reasonSilent, Code: problem.Timeout,
		Detail: "mesh-install has not answered for " + silentAfter.String() + ": is mesh-install.path enabled?"})
}

// readResults is what the executor had said when the daemon was started.
func (n *Node) readResults() {
	if n.cfg.Handoff == "" {
		return
	}
	rs, err := install.ReadResults(n.cfg.Handoff)
	if err != nil {
		n.event(problem.InvalidFile, "the executor's answers cannot be read: %v", err)
		return
	}
	n.heard(rs)
}

// watchResults looks for what the executor says until ctx ends.
func (n *Node) watchResults(ctx context.Context) error {
	t := time.NewTicker(resultsEvery)
	defer t.Stop()
	var last os.FileInfo
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		fi, err := os.Lstat(filepath.Join(n.cfg.Handoff, install.ResultsName))
		if err != nil || last != nil && os.SameFile(fi, last) && fi.ModTime().Equal(last.ModTime()) && fi.Size() == last.Size() {
			continue
		}
		last = fi
		rs, err := install.ReadResults(n.cfg.Handoff)
		n.post(func() {
			if err != nil {
				n.event(problem.InvalidFile, "the executor's answers cannot be read: %v", err)
				return
			}
			n.heard(rs)
		})
	}
}
