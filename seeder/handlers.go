package seeder

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
)

// route is one operation. It answers with a value for JSON, nil for an empty answer, or an error.
type route func(w http.ResponseWriter, r *http.Request) (any, error)

// routes is the management API behind its guard: requests come with a caller.
func (s *Seeder) routes() *router {
	x := newRouter(s)
	handle := x.handle
	handle("GET", api.PathHealth, func(http.ResponseWriter, *http.Request) (any, error) { return map[string]bool{"ok": true}, nil })
	handle("GET", api.PathStatus, func(_ http.ResponseWriter, r *http.Request) (any, error) { return s.fleetStatus(r.Context()) })
	handle("GET", api.PathSites, s.getSites)
	handle("POST", api.PathSites, s.postSite)
	handle("GET", api.PathSite, s.getSite)
	handle("GET", api.PathSiteWAN, s.getSiteWAN)
	handle("PUT", api.PathSiteWAN, s.putSiteWAN)
	handle("GET", api.PathSiteZone, s.getSiteZone)
	handle("PUT", api.PathSiteZone, s.putSiteZone)
	handle("POST", api.PathTokens, s.postToken)
	handle("DELETE", api.PathNode, func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, s.removeNode(r.Context(), r.PathValue("site"), r.PathValue("node"))
	})
	handle("POST", api.PathEnrol, s.postEnrol)
	handle("GET", api.PathBundles, s.getBundles)
	handle("POST", api.PathBundles, s.postBundle)
	handle("GET", api.PathBundle, s.getBundle)
	handle("POST", api.PathBundleCommit, s.postCommit)
	handle("PUT", api.PathChunk, s.putChunk)
	handle("GET", api.PathPolicies, s.getPolicies)
	handle("POST", api.PathPolicies, s.postPolicy)
	handle("GET", api.PathOrders, s.getOrders)
	handle("POST", api.PathOrders, s.postOrder)
	handle("GET", api.PathReports, s.getReports)
	s.summaryRoutes(handle)
	s.planRoutes(handle)
	s.revocationRoutes(handle)
	s.rolloutRoutes(handle)
	s.accessRoutes(handle)
	x.openAPIRoutes()
	s.complianceRoutes(handle)
	s.syncRoutes(handle)
	s.historyRoutes(handle)
	s.quarantineRoutes(handle)
	s.webhookRoutes(handle)
	handle("GET", api.PathWatch, s.getWatch)
	handle("GET", api.PathMetrics, s.getMetrics)
	gateway := api.Gateway(s.library.plain)
	handle("GET", api.PathGateway, func(w http.ResponseWriter, r *http.Request) (any, error) {
		gateway.ServeHTTP(w, r)
		return written{}, nil
	})
	return x
}

// fail answers with an error; the cause of an internal one stays in the log.
func (s *Seeder) fail(w http.ResponseWriter, r *http.Request, err error) {
	var p *problem.Error
	if !errors.As(err, &p) && r.Context().Err() == nil {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	api.WriteError(w, err)
}

// getSites answers with all sites, or with a page of them and where it goes on.
func (s *Seeder) getSites(w http.ResponseWriter, r *http.Request) (any, error) {
	list, err := s.siteList(r.Context())
	if err != nil {
		return nil, err
	}
	v := r.URL.Query()
	if after := v.Get("after"); after != "" {
		i, found := slices.BinarySearchFunc(list, after, func(x api.SiteInfo, name string) int { return strings.Compare(x.Name, name) })
		if found {
			i++
		}
		list = list[i:]
	}
	if t := v.Get("limit"); t != "" {
		n, err := strconv.Atoi(t)
		if err != nil || n < 1 {
			return nil, problem.New(problem.Usage, "limit %.20q: want a number above 0", t)
		}
		if len(list) > n {
			list = list[:n]
			nextPage(w, r, list[n-1].Name)
		}
	}
	return list, nil
}

func (s *Seeder) postSite(w http.ResponseWriter, r *http.Request) (any, error) {
	var q api.SiteSpec
	if err := api.ReadJSON(w, r, api.MaxBody, &q); err != nil {
		return nil, err
	}
	about(r, q.Name)
	return s.createSite(r.Context(), q)
}

func (s *Seeder) getSite(_ http.ResponseWriter, r *http.Request) (any, error) {
	site, err := s.db.Site(r.Context(), r.PathValue("site"))
	if err != nil {
		return nil, err
	}
	return s.siteStatus(site), nil
}

func (s *Seeder) getSiteWAN(_ http.ResponseWriter, r *http.Request) (any, error) {
	site, err := s.db.Site(r.Context(), r.PathValue("site"))
	if err != nil {
		return nil, err
	}
	return site.WAN.Document(), nil
}

func (s *Seeder) putSiteWAN(w http.ResponseWriter, r *http.Request) (any, error) {
	var q wanprofile.Document
	if err := api.ReadJSON(w, r, wanprofile.MaxBytes, &q); err != nil {
		return nil, err
	}
	name := r.PathValue("site")
	return s.setWAN(r.Context(), name, q, func(d wanprofile.Document) error { return unchanged(r, "the WAN profile of site "+name, d) })
}

func (s *Seeder) getSiteZone(_ http.ResponseWriter, r *http.Request) (any, error) {
	site, err := s.db.Site(r.Context(), r.PathValue("site"))
	if err != nil {
		return nil, err
	}
	return api.SiteZone{Timezone: site.Timezone}, nil
}

func (s *Seeder) putSiteZone(w http.ResponseWriter, r *http.Request) (any, error) {
	var q api.SiteZone
	if err := api.ReadJSON(w, r, api.MaxBody, &q); err != nil {
		return nil, err
	}
	name := r.PathValue("site")
	return s.setTimezone(r.Context(), name, q, func(z api.SiteZone) error { return unchanged(r, "the time zone of site "+name, z) })
}

func (s *Seeder) postToken(w http.ResponseWriter, r *http.Request) (any, error) {
	var q api.TokenSpec
	if err := api.ReadJSON(w, r, api.MaxBody, &q); err != nil {
		return nil, err
	}
	return s.createToken(r.Context(), r.PathValue("site"), q)
}

func (s *Seeder) postEnrol(w http.ResponseWriter, r *http.Request) (any, error) {
	var q enrol.Request
	if err := api.ReadJSON(w, r, api.MaxEnrolBody, &q); err != nil {
		return nil, err
	}
	e, err := s.enrol(r.Context(), q)
	about(r, e.Site+"/"+e.Node)
	return e, err
}

func (s *Seeder) getBundles(http.ResponseWriter, *http.Request) (any, error) {
	out := []api.BundleInfo{}
	for _, k := range s.library.list() {
		i := infoOf(k)
		i.Revoked = s.revocations.why(k.Digest)
		out = append(out, i)
	}
	return out, nil
}

func (s *Seeder) getBundle(_ http.ResponseWriter, r *http.Request) (any, error) {
	d, err := digestIn(r)
	if err != nil {
		return nil, err
	}
	k, ok := s.library.book(d)
	if !ok {
		return nil, problem.New(problem.NotFound, "there is no bundle %s", d).WithNext("list them with: meshctl bundle list")
	}
	i := infoOf(k)
	i.Revoked = s.revocations.why(d)
	return api.BundleDetail{BundleInfo: i, Manifest: k.Manifest, Sums: k.Sums}, nil
}

func (s *Seeder) postBundle(w http.ResponseWriter, r *http.Request) (any, error) {
	var q api.BundleUpload
	if err := api.ReadJSON(w, r, api.MaxUploadBody, &q); err != nil {
		return nil, err
	}
	return s.library.begin(r.Context(), q, s.trustedNow())
}

func (s *Seeder) postCommit(_ http.ResponseWriter, r *http.Request) (any, error) {
	d, err := digestIn(r)
	if err != nil {
		return nil, err
	}
	before, _ := s.library.book(d)
	k, err := s.library.commit(r.Context(), d, s.now())
	if err != nil {
		return nil, err
	}
	if before == nil || before.Committed.IsZero() { // to commit again changes nothing
		s.events.publish(api.Event{Kind: "bundle", Name: "published", Subject: k.Name + " " + k.Version, Text: fmt.Sprintf("bundle %s %s %s is published", k.Name, k.Version, d)})
	}
	return infoOf(k), nil
}

func (s *Seeder) putChunk(w http.ResponseWriter, r *http.Request) (any, error) {
	id, err := chunk.Parse(r.PathValue("cid"))
	if err != nil {
		return nil, problem.New(problem.Usage, "path %.120q", r.URL.Path).Because(err)
	}
	plain, err := io.ReadAll(api.Body(w, r, chunk.MaxSize))
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return nil, problem.New(problem.InvalidFile, "a chunk of more than %d bytes", chunk.MaxSize)
	}
	if err != nil {
		return nil, problem.New(problem.InvalidFile, "chunk %s did not arrive whole", id).Because(err)
	}
	return nil, s.library.putChunk(id, plain)
}

func (s *Seeder) getPolicies(http.ResponseWriter, *http.Request) (any, error) {
	out := []api.PolicyInfo{}
	for _, w := range s.desired.all() {
		out = append(out, w.info())
	}
	return out, nil
}

func (s *Seeder) postPolicy(w http.ResponseWriter, r *http.Request) (any, error) {
	var q trust.Signed
	if err := api.ReadJSON(w, r, api.MaxBody, &q); err != nil {
		return nil, err
	}
	p, err := s.desired.put(r.Context(), s.library, q, s.trustedNow(), s.now())
	if err != nil {
		return nil, err
	}
	about(r, p.Name)
	s.log.Info("policy in force", "policy", p.Name, "revision", p.Revision, "deleted", p.document.Deleted)
	s.events.publish(policyEvent(p.info()))
	// A change of labels can take a policy away from a site as well as bring one: every site is looked at.
	sites, err := s.db.Sites(r.Context())
	if err != nil {
		return nil, err
	}
	for _, x := range sites {
		if err := s.publish(r.Context(), x.Name); err != nil {
			return nil, err
		}
	}
	return p.info(), nil
}

func policyEvent(p api.PolicyInfo) api.Event {
	e := api.Event{Kind: "policy", Name: "in force", Subject: p.Name, Policy: p.Name, Text: fmt.Sprintf("policy %s revision %d is in force: %s %s", p.Name, p.Revision, p.Bundle, p.Version)}
	if p.Deleted {
		e.Name, e.Text = "deleted", fmt.Sprintf("policy %s is deleted by revision %d", p.Name, p.Revision)
	}
	return e
}

func (s *Seeder) getOrders(http.ResponseWriter, *http.Request) (any, error) {
	out := []api.OrderInfo{}
	for _, o := range s.orders.all() {
		out = append(out, o.info(s.members))
	}
	return out, nil
}

func (s *Seeder) postOrder(w http.ResponseWriter, r *http.Request) (any, error) {
	var q trust.Signed
	if err := api.ReadJSON(w, r, api.MaxBody, &q); err != nil {
		return nil, err
	}
	o, err := s.orders.put(r.Context(), s.members, q, s.trustedNow(), s.now())
	if err != nil {
		return nil, err
	}
	about(r, o.line())
	s.log.Info("order given", "sequence", o.Sequence, "kind", o.order.Kind, "bundle", o.order.Bundle, "version", o.order.Version, "reason", o.order.Reason)
	sites, err := s.db.Sites(r.Context())
	if err != nil {
		return nil, err
	}
	for _, x := range sites {
		if o.order.Targets.Concerns(x.Name) {
			if err := s.publish(r.Context(), x.Name); err != nil {
				return nil, err
			}
		}
	}
	return o.info(s.members), nil
}

func (s *Seeder) getReports(_ http.ResponseWriter, r *http.Request) (any, error) {
	v := r.URL.Query()
	q := api.ReportQuery{Site: v.Get("site"), Node: v.Get("node"), Newest: v.Get("newest") == "1", Limit: 100}
	var err error
	if t := v.Get("after"); t != "" && err == nil {
		q.After, err = strconv.ParseInt(t, 10, 64)
	}
	if t := v.Get("limit"); t != "" && err == nil {
		if q.Limit, err = strconv.Atoi(t); err == nil && (q.Limit < 1 || q.Limit > 1000) {
			err = fmt.Errorf("limit %d: want 1 to 1000", q.Limit)
		}
	}
	if err != nil {
		return nil, problem.New(problem.Usage, "query %.120q", r.URL.RawQuery).Because(err)
	}
	return s.reports(r.Context(), q)
}

func digestIn(r *http.Request) (manifest.Digest, error) {
	d, err := manifest.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return d, problem.New(problem.Usage, "path %.120q", r.URL.Path).Because(err)
	}
	return d, nil
}
