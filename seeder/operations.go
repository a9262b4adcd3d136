package seeder

import (
	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/enrol"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/trust"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
)

// operation says of a route who may call it, and for the description of the API what goes in and what comes out.
type operation struct {
	least   api.Role
	quiet   bool // not in the audit log: it changes nothing that people decide, or is a record itself
	secret  bool // its answer holds a secret that is shown once
	summary string
	query   []string // names of the query's parameters
	in, out any      // a value of the type of the JSON body, nil: none
	kind    string   // media type of what comes out, if it is not JSON
}

// operations is the one table of who may do what. Its keys are "METHOD path".
func operations() map[string]operation {
	const viewer, operator, admin = api.RoleViewer, api.RoleOperator, api.RoleAdmin
	return map[string]operation{
		"GET " + api.PathHealth:   {least: anyone, summary: "whether the seeder serves", out: map[string]bool{}},
		"POST " + api.PathEnrol:   {least: anyone, summary: "redeem a join token", in: enrol.Request{}, out: enrol.Enrolment{}},
		"GET " + api.PathGateway:  {least: viewer, summary: "one chunk, plain and verified", query: []string{"format"}, kind: "application/vnd.ipld.raw"},
		"GET " + api.PathOpenAPI:  {least: viewer, summary: "this document", kind: "application/json"},
		"GET " + api.PathWatch:    {least: viewer, summary: "what happens, as server-sent events", kind: "text/event-stream"},
		"GET " + api.PathMetrics:  {least: viewer, summary: "metrics for Prometheus", kind: "text/plain"},
		"POST " + api.PathGitHook: {least: anyone, quiet: true, summary: "the Git repository has changed; proved by the host's signature"},
		"POST " + api.PathLegacy:  {least: api.RoleNode, quiet: true, summary: "a report of an old script", in: api.LegacyReport{}},

		"GET " + api.PathStatus:   {least: viewer, summary: "the whole fleet, node by node", out: status.Fleet{}},
		"GET " + api.PathFleet:    {least: viewer, summary: "the fleet in a few lines", query: []string{"sites"}, out: status.Summary{}},
		"GET " + api.PathSites:    {least: viewer, summary: "sites by name", query: []string{"after", "limit"}, out: []api.SiteInfo{}},
		"POST " + api.PathSites:   {least: admin, summary: "make a site", in: api.SiteSpec{}, out: api.SiteInfo{}},
		"GET " + api.PathSite:     {least: viewer, summary: "one site with its nodes", out: status.Site{}},
		"GET " + api.PathSiteWAN:  {least: viewer, summary: "a site's WAN profile", out: wanprofile.Document{}},
		"PUT " + api.PathSiteWAN:  {least: operator, summary: "replace a site's WAN profile", in: wanprofile.Document{}, out: wanprofile.Document{}},
		"GET " + api.PathSiteZone: {least: viewer, summary: "a site's time zone", out: api.SiteZone{}},
		"PUT " + api.PathSiteZone: {least: operator, summary: "give a site another time zone", in: api.SiteZone{}, out: api.SiteZone{}},
		"POST " + api.PathTokens:  {least: admin, secret: true, summary: "make a join token", in: api.TokenSpec{}, out: api.TokenReply{}},
		"DELETE " + api.PathNode:  {least: admin, summary: "take a node off its site's roster"},
		"GET " + api.PathReports:  {least: viewer, summary: "what nodes reported, in the order of recording", query: []string{"site", "node", "after", "limit", "newest"}, out: api.ReportPage{}},
		"GET " + api.PathReceipts: {least: viewer, summary: "receipts, with all that a stranger needs to verify them", query: []string{"site", "node", "after", "limit"}, out: api.ReceiptPage{}},
		"GET " + api.PathCompliance: {least: viewer, summary: "what each node ran at one time, by what was known at another",
			query: []string{"asOf", "knownAt", "site", "policy", "bundle", "selector", "after", "limit"}, out: api.CompliancePage{}},

		"GET " + api.PathBundles:       {least: viewer, summary: "bundles by name, the newest of a name first", out: []api.BundleInfo{}},
		"POST " + api.PathBundles:      {least: operator, summary: "begin or resume an upload", in: api.BundleUpload{}, out: api.BundleMissing{}},
		"GET " + api.PathBundle:        {least: viewer, summary: "one bundle with its signed documents", out: api.BundleDetail{}},
		"POST " + api.PathBundleCommit: {least: operator, summary: "publish a complete upload", out: api.BundleInfo{}},
		"GET " + api.PathRevocations:   {least: viewer, summary: "the list of revoked bundles, and where they still run", out: api.Revocations{}},
		"POST " + api.PathRevocations:  {least: operator, summary: "put a signed list of revoked bundles in force", in: trust.Signed{}, out: api.Revocations{}},
		"PUT " + api.PathChunk:         {least: operator, quiet: true, summary: "one chunk of an upload, as application/octet-stream"},
		"GET " + api.PathPolicies:      {least: viewer, summary: "the newest revision of every policy", out: []api.PolicyInfo{}},
		"POST " + api.PathPolicies:     {least: operator, summary: "put a signed policy in force", in: trust.Signed{}, out: api.PolicyInfo{}},
		"GET " + api.PathPolicy:        {least: viewer, summary: "the newest revision of a policy", out: api.PolicyInfo{}},
		"GET " + api.PathPolicyHistory: {least: viewer, summary: "all revisions of a policy", out: []api.PolicyRevision{}},
		"GET " + api.PathOrders:        {least: viewer, summary: "the newest orders by sequence", out: []api.OrderInfo{}},
		"POST " + api.PathOrders:       {least: operator, summary: "give a signed order to nodes", in: trust.Signed{}, out: api.OrderInfo{}},

		"GET " + api.PathRollouts:        {least: viewer, summary: "rollouts by policy", out: []api.Rollout{}},
		"GET " + api.PathRollout:         {least: viewer, summary: "one rollout", out: api.Rollout{}},
		"GET " + api.PathRolloutHistory:  {least: viewer, summary: "the rollouts of a policy, the newest revision first", query: []string{"limit"}, out: []api.Rollout{}},
		"POST " + api.PathRolloutPause:   {least: operator, summary: "stop a rollout", in: api.RolloutChange{}, out: api.Rollout{}},
		"POST " + api.PathRolloutResume:  {least: operator, summary: "let a rollout go on", in: api.RolloutChange{}, out: api.Rollout{}},
		"POST " + api.PathRolloutPromote: {least: operator, summary: "end the soak of the canary", in: api.RolloutChange{}, out: api.Rollout{}},
		"POST " + api.PathRolloutRetry:   {least: operator, summary: "let nodes that failed try again", in: api.RolloutChange{}, out: api.Rollout{}},
		"GET " + api.PathSiteGrants:      {least: viewer, summary: "a site's newest grants, one for each rollout", out: []api.SiteGrant{}},
		"POST " + api.PathSiteGrants:     {least: operator, summary: "grants for a site to which bundles are brought by hand", in: api.CarryGrants{}, out: []api.SiteGrant{}},
		"POST " + api.PathPlan:           {least: viewer, quiet: true, summary: "what policies would change; nothing is changed", in: api.PlanRequest{}, out: api.Plan{}},
		"GET " + api.PathSync:            {least: viewer, summary: "how the Git repository is followed", out: api.SyncState{}},
		"POST " + api.PathSync:           {least: operator, summary: "look at the Git repository now", out: api.SyncState{}},
		"POST " + api.PathSyncPrune:      {least: operator, summary: "let a held commit in", in: api.PruneAccept{}, out: api.SyncState{}},

		"GET " + api.PathAccess:             {least: admin, summary: "tokens by name, without their secrets", out: []api.AccessInfo{}},
		"POST " + api.PathAccess:            {least: admin, secret: true, summary: "make a token", in: api.AccessSpec{}, out: api.AccessReply{}},
		"DELETE " + api.PathAccessToken:     {least: admin, summary: "revoke a token"},
		"GET " + api.PathAudit:              {least: admin, summary: "who changed what, and from where", query: []string{"after", "limit", "newest"}, out: api.AuditPage{}},
		"GET " + api.PathQuarantine:         {least: viewer, summary: "who is under quarantine", query: []string{"all"}, out: []api.QuarantineEntry{}},
		"POST " + api.PathQuarantine:        {least: operator, summary: "put a node or a source under quarantine", in: api.QuarantineSpec{}, out: api.QuarantineEntry{}},
		"GET " + api.PathQuarantineEntry:    {least: viewer, summary: "one quarantine", out: api.QuarantineEntry{}},
		"DELETE " + api.PathQuarantineEntry: {least: operator, summary: "release from quarantine", query: []string{"reason"}, out: api.QuarantineEntry{}},
		"GET " + api.PathWebhooks:           {least: admin, summary: "webhooks by name, without their secrets", out: []api.WebhookInfo{}},
		"POST " + api.PathWebhooks:          {least: admin, secret: true, summary: "add a webhook", in: api.WebhookSpec{}, out: api.WebhookInfo{}},
		"DELETE " + api.PathWebhook:         {least: admin, summary: "remove a webhook and all that waits for it"},
		"GET " + api.PathDeadLetters:        {least: admin, summary: "events that could not be delivered", query: []string{"after", "limit"}, out: []api.DeadLetter{}},
	}
}
