package seeder

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// quarantine is who is under quarantine now. It follows the database: a change is committed first, then shown here.
// A node under quarantine gets no place in a rollout; a source is not the uplink of its site.
type quarantine struct {
	db       *fleet.Store
	changing sync.Mutex // held from changing the database to showing what it says

	mu   sync.RWMutex
	live map[suspect]fleet.Quarantine
}

type suspect struct {
	scope      api.QuarantineScope
	site, node string
}

func loadQuarantine(ctx context.Context, db *fleet.Store) (*quarantine, error) {
	q := &quarantine{db: db}
	return q, q.reload(ctx)
}

func (q *quarantine) reload(ctx context.Context) error {
	list, err := q.db.Quarantines(ctx, false)
	if err != nil {
		return err
	}
	live := map[suspect]fleet.Quarantine{}
	for _, x := range list {
		live[suspect{api.QuarantineScope(x.Scope), x.Site, x.Node}] = x
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.live = live
	return nil
}

func (q *quarantine) at(p suspect) (fleet.Quarantine, bool) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	x, ok := q.live[p]
	return x, ok
}

// count is how many entries of each scope are in force.
func (q *quarantine) count() map[api.QuarantineScope]int {
	q.mu.RLock()
	defer q.mu.RUnlock()
	out := map[api.QuarantineScope]int{api.QuarantineNode: 0, api.QuarantineSource: 0}
	for p := range q.live {
		out[p.scope]++
	}
	return out
}

// quarantined reports whether the node with a peer ID is under quarantine: it installs nothing new.
func (s *Seeder) quarantined(peer string) bool {
	n, ok := s.members.peer(peer)
	if !ok {
		return false
	}
	_, ok = s.quarantine.at(suspect{api.QuarantineNode, n.Site, n.Name})
	return ok
}

// putQuarantine makes an entry and says so. found: by the seeder, not by a person.
func (s *Seeder) putQuarantine(ctx context.Context, q fleet.Quarantine, found bool) (fleet.Quarantine, bool, error) {
	s.quarantine.changing.Lock()
	defer s.quarantine.changing.Unlock()
	out, added, err := s.db.PutQuarantine(ctx, q, found)
	if err != nil || !added {
		return out, added, err
	}
	if err := s.quarantine.reload(ctx); err != nil {
		return out, added, err
	}
	s.log.Error("under quarantine", "scope", out.Scope, "site", out.Site, "node", out.Node, "reason", out.Reason, "evidence", out.Evidence, "by", out.By)
	s.events.publish(api.Event{Kind: "quarantine", Name: "added", Severity: "critical", Subject: out.Site + "/" + out.Node, Site: out.Site, Node: out.Node, Code: out.Code,
		Text: fmt.Sprintf("%s %s/%s is under quarantine: %s", out.Scope, out.Site, out.Node, out.Reason)})
	return out, added, nil
}

// releaseQuarantine ends an entry, at the time at which it was over.
func (s *Seeder) releaseQuarantine(ctx context.Context, id int64, by, why string, at time.Time) (fleet.Quarantine, error) {
	s.quarantine.changing.Lock()
	defer s.quarantine.changing.Unlock()
	out, err := s.db.ReleaseQuarantine(ctx, id, by, why, at)
	if err != nil {
		return out, err
	}
	if err := s.quarantine.reload(ctx); err != nil {
		return out, err
	}
	s.log.Info("quarantine released", "scope", out.Scope, "site", out.Site, "node", out.Node, "by", out.ReleasedBy, "why", out.Why)
	s.events.publish(api.Event{Kind: "quarantine", Name: "released", Subject: out.Site + "/" + out.Node, Site: out.Site, Node: out.Node,
		Text: fmt.Sprintf("%s %s/%s is released by %s: %s", out.Scope, out.Site, out.Node, out.ReleasedBy, out.Why)})
	return out, nil
}

// finding is what a report says about quarantine where the node says nothing of its own: of a verification failure, or a
// script's. A node that holds a bundle whole again, every chunk verified, or has installed one, has shown that it can be
// trusted with bytes: what it said against itself before is over.
func finding(r fleet.Report, b status.ReportBody) (put *fleet.Quarantine, verified bool) {
	switch {
	case b.Outcome == "verification_failure" || b.Phase == status.Quarantined:
		why := "verification failed"
		if b.Reason != "" {
			why += ": " + b.Reason
		}
		return &fleet.Quarantine{Scope: string(api.QuarantineNode), Site: r.Site, Node: r.Node, Reason: status.Clip(strings.TrimSpace(why), 256), Code: status.Clip(b.Code, 16),
			By: byNode, Since: b.Occurred, Evidence: status.Clip(fmt.Sprintf("report %d: %s %s %s", r.Seq, b.Bundle, b.Version, b.Detail), 1024), Ends: "the node verifies a bundle whole, or meshctl quarantine release"}, false
	case b.Outcome == "success" || b.Phase == status.Staged && b.Outcome == "":
		return nil, true
	}
	return nil, false
}

// judge acts on one report. What the node says of its own quarantine counts; without a word of it, what happened does.
func (s *Seeder) judge(ctx context.Context, r fleet.Report, b status.ReportBody) error {
	if b.Quarantine != nil {
		return s.judgeWord(ctx, r, *b.Quarantine)
	}
	put, verified := finding(r, b)
	if put != nil {
		if put.Since.IsZero() || put.Since.After(r.Recorded) { // a clock that is ahead does not outlast a release
			put.Since = r.Recorded
		}
		_, _, err := s.putQuarantine(ctx, *put, true)
		return err
	}
	if x, ok := s.quarantine.at(suspect{api.QuarantineNode, r.Site, r.Node}); verified && ok && x.By == byNode && b.Occurred.After(x.Since) {
		_, err := s.releaseQuarantine(ctx, x.ID, "node", fmt.Sprintf("verified again: %s %s is %s", b.Bundle, b.Version, b.Phase), whenOf(b.Occurred, r.Recorded))
		return err
	}
	return nil
}

// judgeWord acts on what a node says of its own quarantine. It ends in the list when the node says that it is over, and
// at the time at which it was: reports come late, and there may be another one since. What a person has put there stays.
func (s *Seeder) judgeWord(ctx context.Context, r fleet.Report, w status.Quarantine) error {
	w = w.Clipped()
	since := whenOf(w.Since, r.Recorded) // a clock that is ahead does not outlast a release
	x, ok := s.quarantine.at(suspect{api.QuarantineNode, r.Site, r.Node})
	if ok = ok && x.By == byNode; w.Ended != nil {
		if !ok || x.Since.After(*w.Ended) {
			return nil
		}
		by := byNode
		if w.By != "check" {
			by = w.By
		}
		_, err := s.releaseQuarantine(ctx, x.ID, by, w.Why, whenOf(*w.Ended, r.Recorded))
		return err
	}
	if ok && since.After(x.Since) { // the end of the one before was lost, or is on its way
		if _, err := s.releaseQuarantine(ctx, x.ID, byNode, "another one has begun", since.Add(-time.Microsecond)); err != nil {
			return err
		}
	}
	_, _, err := s.putQuarantine(ctx, fleet.Quarantine{Scope: string(api.QuarantineNode), Site: r.Site, Node: r.Node, Reason: status.Clip("verification failed: "+w.String(), 256),
		Code: status.Clip(w.Code, 16), By: byNode, Since: since, Evidence: status.Clip(fmt.Sprintf("report %d: quarantine %s: %s", r.Seq, w.ID, w.Detail), 1024),
		Ends: "a clean check on the node, or meshctl quarantine release with a key"}, true)
	return err
}

// byNode is who put an entry that a node's report led to.
const byNode = "node"

// whenOf is when something happened by the clock of a node, which may be ahead, and no later than it was heard of.
func whenOf(said, heard time.Time) time.Time {
	if said.IsZero() || said.After(heard) {
		return heard
	}
	return said
}

// Of accusations: so many neighbours, within so long, of what is no weakness.
const (
	leastAccusers = 3
	accusedWithin = time.Hour
)

// accused finds the sources that several neighbours say have misbehaved of late. One accuser may be ill itself, and two
// may be the same stolen key in two places.
func accused(nodes []status.Seen, now time.Time) (out []fleet.Quarantine) {
	status.Accuse(nodes)
	for _, n := range nodes {
		by, kinds, newest, count := map[string]bool{}, map[status.StrikeKind]bool{}, time.Time{}, 0
		for _, k := range n.Struck {
			switch k.Kind {
			case status.StrikeStall, status.StrikeDrip: // slow or ill, not false
				continue
			case status.StrikeWrongBytes, status.StrikeLie, status.StrikeFlood, status.StrikeUnsolicited, status.StrikeProtocol:
			}
			if now.Sub(k.Last) > accusedWithin {
				continue
			}
			by[k.By], kinds[k.Kind] = true, true
			count += k.Count
			if k.Last.After(newest) {
				newest = k.Last
			}
		}
		if len(by) < leastAccusers {
			continue
		}
		var words []string
		for _, k := range status.StrikeKinds() {
			if kinds[k] {
				words = append(words, string(k))
			}
		}
		if newest.After(now) {
			newest = now
		}
		out = append(out, fleet.Quarantine{Scope: string(api.QuarantineSource), Site: n.Site, Node: n.Node.Node, Reason: "its neighbours accuse it: " + strings.Join(words, ", "),
			Code: string(problem.PeerMisbehaves), By: "site", Since: newest, Evidence: fmt.Sprintf("%d times, seen by %d neighbours", count, len(by)), Ends: "meshctl quarantine release"})
	}
	return out
}

// lookAtAccused puts accused sources under quarantine.
func (s *Seeder) lookAtAccused(ctx context.Context) error {
	sites := map[string][]status.Seen{}
	for _, n := range s.members.all() {
		sites[n.Site] = append(sites[n.Site], s.seen(n, false))
	}
	for _, nodes := range sites {
		for _, q := range accused(nodes, s.now()) {
			if _, _, err := s.putQuarantine(ctx, q, true); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Seeder) quarantineRoutes(handle func(string, string, route)) {
	handle("GET", api.PathQuarantine, func(_ http.ResponseWriter, r *http.Request) (any, error) {
		list, err := s.db.Quarantines(r.Context(), r.URL.Query().Get("all") == "1")
		out := make([]api.QuarantineEntry, len(list))
		for i, q := range list {
			out[i] = quarantineEntry(q)
		}
		return out, err
	})
	handle("GET", api.PathQuarantineEntry, func(_ http.ResponseWriter, r *http.Request) (any, error) {
		id, err := idIn(r)
		if err != nil {
			return nil, err
		}
		q, err := s.db.Quarantine(r.Context(), id)
		return quarantineEntry(q), err
	})
	handle("POST", api.PathQuarantine, s.postQuarantine)
	handle("DELETE", api.PathQuarantineEntry, s.deleteQuarantine)
}

func (s *Seeder) postQuarantine(w http.ResponseWriter, r *http.Request) (any, error) {
	var q api.QuarantineSpec
	if err := api.ReadJSON(w, r, api.MaxBody, &q); err != nil {
		return nil, err
	}
	about(r, q.Site+"/"+q.Node)
	why, err := reasonOf(q.Reason)
	if err != nil {
		return nil, err
	}
	if q.Scope != api.QuarantineNode && q.Scope != api.QuarantineSource {
		return nil, problem.New(problem.Usage, "scope %.20q: want node or source", q.Scope)
	}
	if _, ok := s.members.named(q.Site, q.Node); !ok {
		return nil, problem.New(problem.NotFound, "site %.80q has no node %.80q", q.Site, q.Node)
	}
	x, added, err := s.putQuarantine(r.Context(), fleet.Quarantine{Scope: string(q.Scope), Site: q.Site, Node: q.Node, Reason: why, By: callerOf(r.Context()).Name, Since: s.now(),
		Ends: "meshctl quarantine release"}, false)
	if err == nil && !added {
		err = problem.New(problem.NameTaken, "%s %s/%s is under quarantine already", q.Scope, q.Site, q.Node).WithNext("meshctl quarantine show %d", x.ID)
	}
	return quarantineEntry(x), err
}

func (s *Seeder) deleteQuarantine(_ http.ResponseWriter, r *http.Request) (any, error) {
	id, err := idIn(r)
	if err != nil {
		return nil, err
	}
	why, err := reasonOf(r.URL.Query().Get("reason"))
	if err != nil {
		return nil, err
	}
	q, err := s.db.Quarantine(r.Context(), id)
	if err != nil {
		return nil, err
	}
	about(r, q.Site+"/"+q.Node)
	if !q.Released.IsZero() {
		return quarantineEntry(q), nil
	}
	if word := s.ownWord(q); word != nil {
		return nil, problem.New(problem.NodeQuarantined, "%s/%s holds itself under quarantine %s: ended here it would go on there", q.Site, q.Node, word.ID).
			WithDone("nothing was released").WithNext("give it an operator's order: meshctl quarantine release %s/%s --reason TEXT --key FILE", q.Site, q.Node)
	}
	q, err = s.releaseQuarantine(r.Context(), id, callerOf(r.Context()).Name, why, s.now())
	return quarantineEntry(q), err
}

// ownWord is what the node of an entry last said of its own quarantine; nil: it has none, or the entry is a person's or of
// a source.
func (s *Seeder) ownWord(q fleet.Quarantine) *status.Quarantine {
	n, ok := s.members.named(q.Site, q.Node)
	if !ok || q.By != byNode || q.Scope != string(api.QuarantineNode) {
		return nil
	}
	x, _ := s.presence.get(n.PeerID)
	return x.Node.Quarantined
}

// reasonOf checks a person's reason.
func reasonOf(text string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" || len(text) > 512 {
		return "", problem.New(problem.Usage, "a reason of 1 to 512 bytes is needed: it is kept")
	}
	return status.Clip(text, 512), nil
}

func idIn(r *http.Request) (int64, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id < 1 {
		return 0, problem.New(problem.Usage, "number %.40q: want one above 0", r.PathValue("id"))
	}
	return id, nil
}

func quarantineEntry(q fleet.Quarantine) api.QuarantineEntry {
	return api.QuarantineEntry{ID: q.ID, QuarantineSpec: api.QuarantineSpec{Scope: api.QuarantineScope(q.Scope), Site: q.Site, Node: q.Node, Reason: q.Reason}, Code: q.Code,
		Since: q.Since, By: q.By, Evidence: q.Evidence, Release: q.Ends, Released: perhaps(q.Released), ReleasedBy: q.ReleasedBy, Why: q.Why}
}
