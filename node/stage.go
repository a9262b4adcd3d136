package node

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/node/swarm"
)

// heldBundle is a bundle whose manifest is verified. The index follows once its chunks are here.
type heldBundle struct {
	digest  manifest.Digest
	m       *manifest.Manifest
	s       trust.Signed
	catalog *manifest.Catalog
	added   bool           // the swarm knows it
	wants   bool           // this node is to hold all of it
	pinned  int            // how many chunks are pinned
	syncing bool           // Store.Sync is under way
	resync  time.Time      // not zero: when to try again after Sync failed
	staged  bool           // every chunk is on disk and will survive a loss of power
	noRoom  *problem.Error // why the bundle is not begun; nil: there is room, or it was begun
	bad     error          // the signed index breaks a rule: nobody can install this
}

// hold makes a verified manifest known; its index is opened if it is on disk.
func (n *Node) hold(m *manifest.Manifest, s trust.Signed) *heldBundle {
	b := &heldBundle{digest: manifest.DigestOf(s.Doc), m: m, s: s, catalog: manifest.NewCatalog(m, nil)}
	n.bundles[b.digest] = b
	n.openIndex(b)
	return b
}

// openIndex reads the index from the store if all of its chunks are here, and reports whether the catalog grew.
func (n *Node) openIndex(b *heldBundle) bool {
	if b.catalog.Complete || b.bad != nil {
		return false
	}
	var buf bytes.Buffer
	for _, r := range b.m.Index.Chunks {
		p, err := n.store.Get(r.ID, nil)
		if err != nil {
			return false
		}
		buf.Write(p)
	}
	x, err := manifest.ParseIndex(b.m, buf.Bytes())
	if err != nil {
		b.bad = err
		n.event(problem.IndexInvalid, "bundle %s %s: %v", b.m.Name, b.m.Version, err)
		return false
	}
	b.catalog.Extend(x)
	return true
}

// list returns the bundles in a fixed order.
func (n *Node) list() []*heldBundle {
	keys := slices.SortedFunc(maps.Keys(n.bundles), func(a, b manifest.Digest) int { return bytes.Compare(a[:], b[:]) })
	out := make([]*heldBundle, len(keys))
	for i, k := range keys {
		out[i] = n.bundles[k]
	}
	return out
}

// inUse are the bundles that a target or an installed release of this node needs.
func (n *Node) inUse() map[manifest.Digest]bool {
	use := map[manifest.Digest]bool{}
	for _, l := range n.rec.Lives {
		if l.Target != nil {
			use[l.Target.Checksum] = true
		}
		if l.Installed != nil {
			use[l.Installed.Checksum] = true
		}
	}
	return use
}

// reconcileBundles brings pins and the swarm in line with what is wanted.
func (n *Node) reconcileBundles() {
	wanted := map[manifest.Digest]bool{}
	for _, l := range n.rec.Lives {
		if l.Target != nil && n.revoked.known.Find(l.Target.Checksum) == nil {
			wanted[l.Target.Checksum] = true
		}
	}
	use := n.inUse()
	for _, b := range n.list() {
		wants := wanted[b.digest]
		if wants && !b.wants {
			n.room(b)
			wants = b.noRoom == nil
		} else if !wants && b.noRoom != nil {
			n.clearAlarm(b.noRoom.Code)
			b.noRoom = nil
		}
		if use[b.digest] {
			n.pin(b)
		} else if b.pinned > 0 {
			if err := n.store.Unpin(digestName(b.digest)); err != nil {
				n.log.Error("unpin", "err", err)
			}
			b.pinned = 0
		}
		if !b.added || wants != b.wants {
			// What was complete once may have been evicted while nobody wanted it.
			b.wants, b.added, b.staged = wants, true, b.staged && !b.wants
			n.addToSwarm(b)
		}
	}
}

// unpinStale lets go, at the start, of what an earlier run pinned and nobody needs any more.
func (n *Node) unpinStale() {
	use := map[string]bool{}
	for d := range n.inUse() {
		use[digestName(d)] = true
	}
	for _, owner := range n.store.Owners() {
		if !use[owner] {
			if err := n.store.Unpin(owner); err != nil {
				n.log.Error("unpin", "err", err)
			}
		}
	}
}

// pin keeps a bundle's chunks from being evicted: before the first of them is fetched.
func (n *Node) pin(b *heldBundle) {
	if b.pinned == len(b.catalog.Chunks) {
		return
	}
	ids := make([]chunk.ID, len(b.catalog.Chunks))
	for i, r := range b.catalog.Chunks {
		ids[i] = r.ID
	}
	if err := n.store.Pin(digestName(b.digest), ids); err != nil {
		n.log.Error("pin", "bundle", b.m.Name, "err", err)
		return
	}
	b.pinned = len(ids)
}

// addToSwarm tells the swarm and the neighbours what we know and hold of a bundle.
func (n *Node) addToSwarm(b *heldBundle) {
	sizes, have := make([]int64, len(b.catalog.Chunks)), make([]bool, len(b.catalog.Chunks))
	for i, r := range b.catalog.Chunks {
		sizes[i], have[i] = r.Size, n.store.Has(r.ID)
	}
	n.steps = append(n.steps, swarm.BundleAdd{Bundle: b.digest, Sizes: sizes, Index: b.catalog.IndexCount, Have: have, Wants: b.wants && b.bad == nil})
	for _, nb := range n.nb {
		n.sendHave(nb, b)
	}
}

// prune forgets manifests that nothing refers to.
func (n *Node) prune() {
	use := n.inUse()
	for d := range n.bundles {
		if use[d] || n.referenced(d) {
			continue
		}
		delete(n.bundles, d)
		delete(n.rec.Transfer, d.String())
		n.steps = append(n.steps, swarm.BundleDrop{Bundle: d})
		if err := durable.Remove(n.d.path("bundles", digestName(d)+".json")); err != nil {
			n.log.Warn("manifest cannot be removed", "err", err)
		}
	}
}

// resyncAfter is the wait after a Sync that failed.
const resyncAfter = 10 * time.Second

// resync tries again to stage what a disk refused to make durable.
func (n *Node) resync(now time.Time) {
	for _, b := range n.list() {
		if !b.resync.IsZero() && !now.Before(b.resync) {
			n.complete(b.digest)
		}
	}
}

// complete: every chunk of what is known of the bundle is on disk.
func (n *Node) complete(d manifest.Digest) {
	b := n.bundles[d]
	if b == nil {
		return
	}
	if n.openIndex(b) {
		if n.inUse()[d] {
			n.pin(b)
		}
		n.addToSwarm(b)
		return
	}
	if !b.catalog.Complete || b.staged || b.syncing || !b.wants {
		return
	}
	b.syncing = true
	n.group.Go(func() error {
		err := n.store.Sync()
		n.post(func() {
			b.syncing, b.resync = false, time.Time{}
			if err != nil {
				n.event(diskCode(err), "staged chunks cannot be made durable: %v", err)
				b.resync = time.Now().Add(resyncAfter)
				return
			}
			for _, r := range b.catalog.Chunks { // Sync drops what the disk refuses
				if !n.store.Has(r.ID) {
					return
				}
			}
			b.staged = true
			if b.digest == n.quarantine.Checksum {
				n.quarantine = n.quarantine.hurry()
			}
		})
		return nil
	})
}

// live moves the phases on.
func (n *Node) live() {
	n.markRevoked()
	for _, name := range n.byPriority() {
		l := n.rec.Lives[name]
		for range 4 { // Pending, Staging, Staged, Installing in a row at most
			if l.Target == nil || l.Phase == status.Installing && n.busy || n.forbidden(l) || n.withheld(name, l) {
				l.claimed = time.Time{}
				break
			}
			watched, begun, claimed := l.Window, l.Begun, l.claimed
			w := n.timing(name, l)
			v := l.step(time.Now(), n.targetFacts(l, w), w)
			n.dirty = n.dirty || l.Window != watched
			n.urgent = n.urgent || l.claimed != claimed || v.install
			if !v.changed {
				break
			}
			if v.install && n.busy { // one transaction at a time
				l.Phase, l.Reason, l.Next, l.Tries, l.Begun = status.Staged, "Queued", time.Now().Add(time.Second), l.Tries-1, begun
				break
			}
			if !v.install {
				n.suspectTarget(l)
				n.lifeChanged(name, l, nil)
				continue
			}
			n.busy = true
			n.lifeChanged(name, l, func(err error) {
				if err != nil { // not on disk, so not done
					n.busy = false
					if l.Phase != status.Installing {
						return // the target changed meanwhile
					}
					l.finish(time.Now(), install.Result{Outcome: install.Deferred, Phase: status.Deferred, Reason: "StateNotSaved",
						Code: problem.CodeOf(err), Detail: "the installer is not started before that is on disk"})
					n.lifeChanged(name, l, nil)
					return
				}
				n.install(name)
			})
			break
		}
	}
}

func (n *Node) targetFacts(l *Life, w *timing) *targetFacts {
	b := n.bundles[l.Target.Checksum]
	if b == nil {
		return nil
	}
	f := &targetFacts{manifest: b.m, machine: n.facts, staged: b.staged, bad: b.bad, noRoom: b.noRoom}
	if p := n.policies[l.Target.Policy]; p != nil && p.p != nil {
		f.downgrade, f.early = p.p.Downgrade, p.p.Staging.RequireBeforeWindow
	}
	if f.staged && !l.Begun && l.may(w) {
		f.hold = n.holdOf(l)
	}
	return f
}

// lifeChanged persists a phase and reports it; then does something about it, if anything.
func (n *Node) lifeChanged(name string, l *Life, then func(error)) {
	n.report(name, l) // before the state: its number is in there
	n.save(then)
	n.log.Info("phase", "bundle", name, "phase", l.Phase, "reason", l.Reason, "code", l.Code, "detail", l.Detail)
}

// install starts mesh-install and waits for it beside the loop.
func (n *Node) install(name string) {
	l := n.rec.Lives[name]
	if l.Target == nil || l.Phase != status.Installing {
		n.busy = false // the target changed while the phase was being written
		return
	}
	b, p, target := n.bundles[l.Target.Checksum], n.policies[l.Target.Policy], *l.Target
	if b == nil || p == nil {
		n.installed(name, target, install.Result{Outcome: install.Deferred, Phase: status.Deferred, Reason: reasonUnreadable,
			Detail: "the policy or the manifest on disk cannot be read; it is asked for again"})
		return
	}
	request := install.NewRequest(b.s, p.s, n.d.path("chunks"))
	if f := n.inForce.Load(); f != nil && p.p != nil && p.p.Schedule.Zone == policy.ZoneSite {
		request = request.WithRoster(f.s)
	}
	if h := n.grantOf(l); h != nil && p.p != nil && p.p.Rollout != nil {
		request = request.WithGrant(h.s)
	}
	n.execute(request, func(r install.Result) { n.installed(name, target, r) })
}

// execute has the executor act on a request, beside the loop; then runs on the loop with its answer.
func (n *Node) execute(request install.Request, then func(install.Result)) {
	request.SkewSeconds = int64(n.skew() / time.Second)
	request = request.WithRevocations(n.revoked.signed)
	if n.cfg.Handoff != "" {
		n.handOver(request, then)
		return
	}
	if len(n.cfg.Installer) == 0 {
		then(install.Result{Outcome: install.Deferred, Phase: status.Deferred, Reason: install.ReasonInstallerMissing, Detail: "no installer is configured"})
		return
	}
	request = request.Fresh()
	if id, same := n.askedBefore(request); same {
		request.ID = id
	}
	argv := append(slices.Clone(n.cfg.Installer), "apply", "--json", "--request", n.d.path("request.json"))
	if n.cfg.InstallConfig != "" {
		argv = append(argv, "--config", n.cfg.InstallConfig)
	}
	b, err := request.Encode()
	n.disk.add(func() error {
		if err != nil {
			return err
		}
		return durable.WriteFile(n.d.path("request.json"), b, 0o644)
	}, func(err error) {
		n.group.Go(func() error {
			var r install.Result
			if err == nil {
				r, err = runInstaller(argv)
			}
			if err != nil {
				r = install.Cut(err)
			}
			if !n.post(func() { n.replied(request.ID, r, then) }) {
				n.log.Warn("stopped before the installer's answer could be kept: it is asked again at the next start")
			}
			return nil
		})
	})
}

// askedBefore reports whether the same was asked before the daemon was killed, and the answer was not kept. The executor is
// not killed with it: asked by the same ID it says what it did meanwhile, not that there is nothing left to do.
func (n *Node) askedBefore(request install.Request) (id string, same bool) {
	var open install.Request
	if err := readJSON(n.d.path("request.json"), &open); err != nil {
		return "", false
	}
	return open.ID, open.ID != "" && open.Same(request)
}

// replied takes the executor's answer. The request goes once the answer is on disk; one to which the executor has written down
// no answer stays: it was killed, or another one is at work.
func (n *Node) replied(id string, r install.Result, then func(install.Result)) {
	then(r)
	if r.ID != id {
		return
	}
	n.disk.add(func() error { return durable.Remove(n.d.path("request.json")) }, func(err error) {
		if err != nil {
			n.log.Warn("request cannot be withdrawn", "err", err)
		}
	})
}

// runInstaller runs the command in a process group of its own, so that a signal to the daemon does not reach a
// transaction, and decodes its answer. It is never killed: a started transaction finishes.
func runInstaller(argv []string) (install.Result, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stderr limited
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if len(out) == 0 {
		if err == nil {
			err = errors.New("no answer")
		}
		return install.Result{}, fmt.Errorf("installer %s: %w: %s", argv[0], err, stderr.b)
	}
	return install.DecodeResult(out)
}

// limited keeps the first KiB of what is written to it.
type limited struct{ b []byte }

func (l *limited) Write(p []byte) (int, error) {
	if room := 1024 - len(l.b); room > 0 {
		l.b = append(l.b, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

// installed takes the installer's answer to what the target was when it was asked.
func (n *Node) installed(name string, target status.Desired, r install.Result) {
	n.busy = false
	l := n.rec.Lives[name]
	r = n.own(name, r)
	n.suspect(r, name, target.Version, target.Checksum)
	if l.Target == nil || l.Target.Checksum != target.Checksum {
		n.overtaken(name, l, target, r)
		return
	}
	if r.Chunk != "" {
		if b := n.bundles[target.Checksum]; b != nil {
			b.staged = false
			n.recheck(r.Chunk)
			n.complete(b.digest) // it may be whole again already
		}
	}
	l.finish(time.Now(), r)
	n.lifeChanged(name, l, nil)
	n.reconcileBundles()
}

// own is what an answer says about the bundle that was asked for. An executor that finds a transaction of another bundle
// open, and cannot end it yet, says so whatever it was asked: that is about the other one, and ours waits for it.
func (n *Node) own(name string, r install.Result) install.Result {
	if r.Bundle == "" || r.Bundle == name {
		return r
	}
	n.noticed(r)
	return install.Result{Outcome: install.Deferred, Phase: status.Deferred, Reason: r.Reason, Code: r.Code, Next: r.Next,
		Detail: fmt.Sprintf("%s %s comes first: %s", r.Bundle, r.Version, r.Detail)}
}

// overtaken: the target changed while the installer ran. What it did is reported for the target it was asked for, and
// what is in force is noted.
func (n *Node) overtaken(name string, l *Life, target status.Desired, r install.Result) {
	past := *l
	past.Target = &target
	past.finish(time.Now(), r)
	l.found(r)
	l.unmanaged()
	n.lifeChanged(name, &past, nil)
	n.reconcileBundles()
}

// recheck reads a chunk that the installer could not use; the store drops it if it is damaged.
func (n *Node) recheck(cid string) {
	id, err := chunk.Parse(cid)
	if err != nil {
		return
	}
	if _, err := n.store.Get(id, nil); err != nil {
		n.lost(id)
	}
}
