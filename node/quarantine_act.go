package node

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/order"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// loadQuarantine reads what the node holds against itself. A file that cannot be read is a reason of its own: a node that
// has forgotten whether it trusts itself looks first.
func (n *Node) loadQuarantine() {
	f, err := os.Open(n.d.path(quarantineName))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var b []byte
	var q quarantine
	if err == nil {
		b, err = io.ReadAll(io.LimitReader(f, maxQuarantine+1))
		f.Close()
	}
	if err == nil {
		q, err = decodeQuarantine(b)
	}
	if err != nil {
		n.log.Error("the quarantine on disk cannot be read", "err", err)
		q = quarantine{}.fail(time.Now(), failure{id: quarantineID(), at: n.cfg.now(), code: problem.StoreDamaged, reason: "StateDamaged", detail: err.Error(),
			bundle: "quarantine", version: "0", checksum: manifest.DigestOf(b)})
	}
	if n.quarantine = q; q.held() {
		n.quarantine = q.hurry() // see Life.resume
		n.showQuarantine()
	}
}

func quarantineID() string {
	b := make([]byte, order.QuarantineID/2)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// distrust puts the node under quarantine. It is called before the state that led to it is saved, so that the one is never
// on disk without the other.
func (n *Node) distrust(f failure) {
	if n.cfg.trusting {
		return
	}
	f.id, f.at = quarantineID(), n.cfg.now()
	n.quarantine = n.quarantine.fail(time.Now(), f)
	n.log.Error("this node is under quarantine", "reason", f.reason, "code", f.code, "bundle", f.bundle, "version", f.version, "detail", f.detail)
	n.showQuarantine()
	n.writeQuarantine(n.quarantine, nil)
}

// suspect looks at an answer of the executor, or at one that it gave to somebody else. What it does not say of the
// bundle, the caller knows.
func (n *Node) suspect(r install.Result, bundle, version string, sum manifest.Digest) {
	f, bad := failureOf(r)
	if !bad {
		return
	}
	if f.bundle == "" {
		f.bundle, f.version, f.checksum = bundle, version, sum
	}
	n.distrust(f)
}

// suspectTarget looks at what the node itself has found out about what it is to install.
func (n *Node) suspectTarget(l *Life) {
	if t := l.Target; t != nil && l.Phase == status.Quarantined && l.answer == nil && distrusts(l.Code) {
		n.distrust(failure{code: l.Code, reason: l.Reason, detail: l.Detail, bundle: t.Bundle, version: t.Version, checksum: t.Checksum})
	}
}

// writeQuarantine makes a quarantine durable; then, if not nil, is run on the loop once it is. When the one that is in
// force is, the seeder is told.
func (n *Node) writeQuarantine(q quarantine, then func()) {
	b, err := q.encode()
	n.quarantineWrites++
	n.disk.add(func() error {
		if err != nil {
			return err
		}
		return durable.WriteFile(n.d.path(quarantineName), b, 0o600)
	}, func(err error) {
		n.quarantineWrites--
		if err != nil {
			n.log.Error("the quarantine cannot be written", "err", err)
			n.quarantining.failed(n, err, "the quarantine cannot be written")
			n.quarantineRetry = time.Now().Add(resendAfter)
			return
		}
		n.quarantining.worked(n)
		if then != nil {
			then()
		}
		n.tellQuarantine()
	})
}

// tellQuarantine reports a quarantine, or its end, that is on disk. Killed in between, it is reported twice, under the
// same identity.
func (n *Node) tellQuarantine() {
	q := n.quarantine
	if q.ID == "" || q.Told || n.quarantineWrites > 0 {
		return
	}
	n.quarantine.Told = true
	n.rec.Report++
	body := status.ReportBody{Site: n.e.Site, Node: n.e.Node, Seq: n.rec.Report, Occurred: n.cfg.now().UTC(), Phase: status.Pending,
		Reason: ReasonQuarantined, Code: string(q.Code), Bundle: q.Bundle, Version: q.Version, Checksum: q.Checksum, Detail: q.Detail, Quarantine: q.say()}
	if l := n.rec.Lives[q.Bundle]; l != nil {
		body.Phase = l.Phase
	}
	if !q.held() {
		body.Reason, body.Code, body.Detail = reasonQuarantineEnded, "", q.By+": "+q.Why
	}
	n.file(body)
	n.save(nil)
	n.writeQuarantine(n.quarantine, nil)
}

// endQuarantine makes the end durable, and then counts on it.
func (n *Node) endQuarantine(was, over quarantine) {
	n.writeQuarantine(over, func() {
		if n.quarantine != was { // something failed meanwhile: that stands, on disk too
			n.writeQuarantine(n.quarantine, nil)
			return
		}
		n.quarantine = over
		n.clearAlarm(problem.NodeQuarantined)
		n.log.Info("quarantine ended", "id", over.ID, "by", over.By, "why", over.Why)
		if l := n.rec.Lives[over.Bundle]; over.By == byCheck && over.about(l) {
			if l.verified(time.Now()) {
				n.lifeChanged(over.Bundle, l, nil)
			}
		}
	})
}

// obeyRelease looks for a person's order that ends the quarantine.
func (n *Node) obeyRelease() {
	if !n.quarantine.held() || n.quarantineWrites > 0 || time.Now().Before(n.quarantineRetry) {
		return
	}
	labels := n.labels()
	for _, h := range n.orders {
		if h.o.Kind != order.Release || !h.o.Targets.Names(n.e.Site, n.e.Node, labels) {
			continue
		}
		if over := n.quarantine.release(n.cfg.now(), h.o); !over.held() {
			n.endQuarantine(n.quarantine, over)
			return
		}
	}
}

// watchQuarantine has the node checked when it is time to, and nothing else is under way.
func (n *Node) watchQuarantine() {
	now := time.Now()
	if n.quarantine.ID != "" && n.quarantineWrites == 0 && !now.Before(n.quarantineRetry) && !n.quarantine.Told {
		n.writeQuarantine(n.quarantine, nil) // the disk refused it, or the daemon was killed before it was told
		return
	}
	n.obeyRelease()
	if !n.quarantine.due(now) || n.busy || n.quarantineWrites > 0 {
		return
	}
	q := n.quarantine.begin(now)
	n.quarantine = q
	request := install.Request{}
	if l := n.rec.Lives[q.Bundle]; q.about(l) {
		b, p := n.bundles[q.Checksum], n.policies[l.Target.Policy]
		if b == nil || p == nil || p.p == nil {
			n.checked(q.ID, install.Result{Outcome: install.Deferred, Reason: reasonUnreadable, Detail: "the policy or the manifest is not here"})
			return
		}
		request = install.NewRequest(b.s, p.s, n.d.path("chunks"))
	}
	n.busy = true
	n.execute(install.NewAuditRequest(request, n.d.path("chunks")), func(r install.Result) {
		n.busy = false
		if r.Bundle != "" { // of something that had to be carried on first
			n.noticed(r)
			r = install.Result{Outcome: install.Deferred, Reason: r.Reason, Detail: fmt.Sprintf("%s %s comes first", r.Bundle, r.Version)}
		}
		if r.Chunk != "" {
			if b := n.bundles[q.Checksum]; b != nil {
				b.staged = false
				n.recheck(r.Chunk)
				n.complete(b.digest)
			}
		}
		n.checked(q.ID, r)
	})
}

// checked takes the answer to a check.
func (n *Node) checked(id string, r install.Result) {
	was := n.quarantine
	next := was.checked(n.cfg.now(), id, r)
	if was.held() && !next.held() {
		n.endQuarantine(was, next)
		return
	}
	n.log.Warn("this node stays under quarantine", "reason", r.Reason, "code", r.Code, "detail", r.Detail, "next", next.Next)
	n.quarantine = next
	n.showQuarantine()
	n.writeQuarantine(next, nil)
}

// showQuarantine raises the alarm, or says in it what is known now.
func (n *Node) showQuarantine() {
	q := n.quarantine
	found := ""
	if q.Found != "" {
		found = "; last found: " + clip(q.Found, maxMessage/3)
	}
	n.alarm(problem.NodeQuarantined, "%s since %s: nothing new is installed until a check finds nothing or a person releases it (quarantine %s)%s",
		q.say(), q.Since.Format(time.RFC3339), q.ID, found)
}

// quarantineHold is what keeps every new installation from starting while the quarantine is in force.
func (n *Node) quarantineHold() (text string, next time.Duration, held bool) {
	q := n.quarantine
	if !q.held() {
		return "", 0, false
	}
	return fmt.Sprintf("this node does not trust itself: %s; it checks itself again, or a person releases it", q.say()), max(time.Second, time.Until(q.Next)), true
}

// describeQuarantine says it in a statement.
func (n *Node) describeQuarantine(st *status.Node) {
	if q := n.quarantine; q.held() {
		st.Quarantined = q.say()
		st.Quarantine = st.Quarantined.String()
	}
}
