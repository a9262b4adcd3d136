package problem

import "slices"

// Code is a stable identifier: E, or W for a warning, then a class digit (1 input, 2 verification, 3 reachability, 4 storage,
// 5 install, 9 internal), then three digits. A code is never reused for something else.
type Code string

// The codes.
const (
	Usage               Code = "E1001"
	InvalidFile         Code = "E1002"
	MissingTool         Code = "E1003"
	UnsupportedField    Code = "E1101"
	InvalidPolicy       Code = "E1102"
	InvalidProfile      Code = "E1103"
	InvalidOrder        Code = "E1104"
	InvalidGrant        Code = "E1105"
	InvalidRevocation   Code = "E1106"
	InvalidWindow       Code = "E1107"
	RolloutTooLong      Code = "W1201"
	WindowSkipped       Code = "W1204"
	WindowShort         Code = "W1205"
	PolicyConflict      Code = "E1112"
	NameTaken           Code = "E1201"
	TokenInvalid        Code = "E1202"
	Denied              Code = "E1203"
	NotFound            Code = "E1204"
	AlreadyExists       Code = "E1205"
	PruneHeld           Code = "E1206"
	ChangedMeanwhile    Code = "E1208"
	KeyReused           Code = "E1207"
	RolloutState        Code = "E1209"
	TargetMismatch      Code = "E1301"
	NotClosed           Code = "E1302"
	ChecksumMismatch    Code = "E2101"
	SignatureInvalid    Code = "E2102"
	ChunkCorrupt        Code = "E2103"
	IndexInvalid        Code = "E2104"
	ManifestInvalid     Code = "E2105"
	SequenceTooOld      Code = "E2106"
	RosterInvalid       Code = "E2107"
	PeerNotOnRoster     Code = "E2108"
	IdentityMismatch    Code = "E2109"
	PeerMisbehaves      Code = "E2110"
	OrderTooOld         Code = "E2111"
	CommitRefused       Code = "E2112"
	BundleRevoked       Code = "E2113"
	NodeQuarantined     Code = "E2114"
	SeederUnreachable   Code = "E3102"
	DaemonUnreachable   Code = "E3103"
	SourceUnreachable   Code = "E3104"
	GitUnreachable      Code = "E3106"
	DatabaseUnreachable Code = "E3105"
	SiteSilent          Code = "E3301"
	Timeout             Code = "E3302"
	Busy                Code = "E3303"
	NeedsAttention      Code = "E3304"
	InstallOverdue      Code = "E3305"
	DiskFull            Code = "E4101"
	QuotaExceeded       Code = "E4102"
	StoreDamaged        Code = "E4103"
	Locked              Code = "E4104"
	InstallFailed       Code = "E5101"
	RollbackFailed      Code = "E5102"
	HealthFailed        Code = "E5103"
	NoIsolation         Code = "E5104"
	PackagesRefused     Code = "E5105"
	Internal            Code = "E9001"
)

// Page explains a code for "meshctl explain".
type Page struct {
	Code  Code
	Exit  Exit
	Title string
	Text  string
}

var pages = map[Code]Page{}

func page(c Code, x Exit, title, text string) { pages[c] = Page{c, x, title, text} }

func init() {
	page(Usage, ExitUsage, "wrong use of a command", "The arguments do not fit the command. Nothing was done. Run the command with --help.")
	page(InvalidFile, ExitUsage, "a file cannot be used", "The file is missing, cannot be read, or its content does not have the expected form. The message names the file and the place. Nothing was changed.")
	page(MissingTool, ExitUsage, "a program is missing", "An external program that this step needs is not installed. The message names the package that holds it. Nothing was changed.")
	page(UnsupportedField, ExitUsage, "a field is not supported yet", "The policy uses a field that this version does not act on. It is refused rather than ignored, because an ignored field would be a promise not kept. Remove the field, or upgrade.")
	page(InvalidPolicy, ExitUsage, "a policy is not valid", "The policy does not follow patchmgmt.io/v1. The policy that was in force before stays in force.")
	page(InvalidProfile, ExitUsage, "a WAN profile is not valid", "The profile does not have the form that \"meshctl site wan --help\" shows, or a number in it is out of range. The message names the place. The profile that was before stays in force.")
	page(InvalidOrder, ExitUsage, "an order is not valid", "A rollback or a retry was ordered with a document that breaks a rule. The message names it. No node acts on it.")
	page(InvalidGrant, ExitUsage, "a grant is not valid", "The document by which a rollout lets the nodes of a site start breaks a rule. The message names it. The node goes on with the one it has, or waits for a valid one.")
	page(InvalidRevocation, ExitUsage, "a revocation list is not valid", "The list of revoked bundles breaks a rule. The message names it. Nobody acts on it; the list from before stays in force.")
	page(InvalidWindow, ExitUsage, "a maintenance window cannot be read", "A window is days and hours: \"Tue 02:00-04:00\", \"Mon-Fri 22:00-02:00\", \"Sat,Sun 00:00-24:00\", \"Daily 03:00-04:00\"; several are joined by ';'. The policy that was in force before stays in force: a window that cannot be read is neither no window nor an open one.")
	page(RolloutTooLong, ExitOK, "a rollout takes longer than its deadline", "At this batch size and delay, in these windows, the last batch begins after the policy's schedule.deadline. The warning names the smallest batch size that would do, if there is one: a longer window, a shorter delay or another window does it too.")
	page(WindowSkipped, ExitOK, "a window is skipped", "Where clocks go forward, an hour does not exist on that day, and a window inside it does not either. It is skipped: the next one is used. If that is one too few, move it by an hour, or add another.")
	page(WindowShort, ExitOK, "a window is short on one day", "Where clocks go forward, a window loses the hour that does not exist on that day. Installs that start in it have less time; what has started finishes.")
	page(PolicyConflict, ExitConflict, "two policies want different things", "Two policies select the same node for the same bundle name. The node keeps what it has until one of them changes.")
	page(NameTaken, ExitConflict, "the name is taken", "Another node or site already has this name. Nothing was changed. Choose another name, or remove the old one first.")
	page(TokenInvalid, ExitDenied, "the join token is not valid", "A join token works once, for one site, until it expires. Ask for a new one with: meshctl site token SITE")
	page(Denied, ExitDenied, "not allowed", "The request carries no valid credentials for this operation.")
	page(NotFound, ExitNotFound, "not found", "The named thing does not exist here.")
	page(AlreadyExists, ExitConflict, "it exists already with another content", "A version, once published, never changes. Publish the change under a new version and a higher sequence.")
	page(PruneHeld, ExitConflict, "a commit removes much and waits", "The newest commit takes more than a fifth of the managed pairs of policy and node away from their policies. That is more often a mistake than meant, so nothing of it is applied. Put it right with another commit, or let it in: meshctl sync --accept-prune COMMIT --reason TEXT")
	page(ChangedMeanwhile, ExitConflict, "somebody else has changed it", "The change was made to what was read before (If-Match), and that is not what is there now. Nothing was changed. Read it again, and make the change to that.")
	page(RolloutState, ExitConflict, "the rollout is not in a state for that", "What was asked for does not fit where the rollout stands: it is paused already, or was not, or has no canary that waits. Nothing was changed. meshctl rollout status shows where it stands.")
	page(KeyReused, ExitConflict, "the idempotency key was used before", "A request with the same Idempotency-Key asked for something else, is still being served, or was answered with a secret that is shown once. Nothing was done now. For another change take another key.")
	page(TargetMismatch, ExitVerification, "the bundle is for another system", "The manifest names another operating system, release or architecture than this node has. The node shares the bundle with its neighbours but does not install it.")
	page(NotClosed, ExitVerification, "something that is needed is missing", "The packages need others that are neither in the bundle nor on the machine it was held against. A node has no other source, so nothing is built. The message names what is missing and who needs it: collect again, or add the packages.")
	page(ChecksumMismatch, ExitVerification, "the checksum does not match", "The policy names one checksum and the bundle of that version has another. Nothing is installed.")
	page(SignatureInvalid, ExitVerification, "the signature is not acceptable", "The document is not signed by enough allowed keys, or a signature is of a kind that is refused (weak hash, text mode, expired or revoked key). Nothing was installed and nothing was shared.")
	page(ChunkCorrupt, ExitVerification, "a chunk is corrupt", "The bytes do not hash to the chunk's identity. The bytes were dropped, never served and never installed; a good copy is fetched again.")
	page(IndexInvalid, ExitVerification, "the index is not valid", "The list of files in the bundle breaks a rule (paths, sizes, duplicates, limits) or is not the one the manifest names. The bundle is not used.")
	page(ManifestInvalid, ExitVerification, "the manifest is not valid", "The manifest is not in the canonical form or breaks a rule. The bundle is not used.")
	page(SequenceTooOld, ExitVerification, "the bundle is older than what this node has accepted", "A bundle's sequence may only grow on a node, so that an old, vulnerable version cannot be replayed. The bundle is still shared with neighbours, never installed.")
	page(RosterInvalid, ExitVerification, "the site's roster is not valid", "The roster is not signed by the seeder's roster key, or is older than the one in force. The node keeps the roster it has.")
	page(PeerNotOnRoster, ExitDenied, "a peer is not on the roster", "Only nodes on the site's signed roster may connect. The connection was closed.")
	page(PeerMisbehaves, ExitVerification, "a node of the site misbehaves", "This node has seen a neighbour send wrong bytes, claim what it does not hold, flood it, or speak out of turn, and avoids it for a while; meshctl status SITE shows what was noted by whom. One accuser may be ill itself. Several mean that the machine that is accused should be looked at: its identity may be in use by somebody else. If so, remove it: meshctl site remove-node SITE NODE.")
	page(OrderTooOld, ExitVerification, "an order is not new", "Every order has a sequence, and for each bundle a node carries out only what is above the last one it carried out, so that an order that is sent again does nothing. If it is really wanted, give the order again.")
	page(CommitRefused, ExitVerification, "a commit is refused", "The newest commit of the Git repository that the seeder follows is not signed by an allowed key, does not come after the one in force, or holds something that cannot be used; the message says what and where. Nothing of it was applied. The last good commit stays in force. A commit that puts it right is taken by itself.")
	page(BundleRevoked, ExitVerification, "the bundle is revoked", "An operator has revoked this bundle: no node starts to install it, no policy may name it, and nothing goes back to it by order or by a reverted commit. A node that runs it already goes on, and is shown as not compliant. It cannot be taken back: to ship the same content again, build it under another version and a higher sequence. A failed health check may still restore the state from before the install, even if that ran a revoked bundle: a machine is never left in between.")
	page(NodeQuarantined, ExitVerification, "a node is under quarantine", "Something that the node was to install, or has installed, is not what was signed: a checksum (E2101), a signature (E2102), a chunk (E2103), an index (E2104) or a manifest (E2105). From the next cycle on it fetches, serves and reports as before and starts no new installation, of any bundle; what has begun finishes, and going back is always allowed. It checks itself, after 30 seconds and then less and less often, at least every hour, when it is started, and when what was damaged has been fetched again: mesh-install reads every release that is in force or kept, and the bundle that is in question if a policy still asks for it. If all of that is what was signed, the quarantine ends by itself. Or a person ends this one quarantine with a signed order, which says nothing of a later one: meshctl quarantine release SITE/NODE --reason TEXT --key FILE. By hand on the node: mesh-install audit. A neighbour that sent a bad chunk is another matter (E2110).")
	page(IdentityMismatch, ExitVerification, "the other side is not who it should be", "The server that answered does not hold the pinned identity key. Nothing was sent to it.")
	page(SeederUnreachable, ExitUnreachable, "the seeder cannot be reached", "Staged content is complete or is being shared in the site; installs go on. Reports wait in the outbox.")
	page(DaemonUnreachable, ExitUnreachable, "the local daemon cannot be reached", "The socket does not answer. Is the daemon running?")
	page(SourceUnreachable, ExitUnreachable, "a source of packages cannot be reached", "The distribution's repository, or the way to it, does not answer. Nothing was collected. Check the network and the proxy (http_proxy), and try again.")
	page(GitUnreachable, ExitUnreachable, "the Git repository cannot be reached", "The seeder follows a repository that does not answer, or whose branch is not there. Nothing is changed by that: the last good commit stays in force, and the seeder tries again.")
	page(DatabaseUnreachable, ExitUnreachable, "the seeder's database server cannot be reached", "PostgreSQL does not answer, or refuses more connections. What was acknowledged is kept there; nothing more is acknowledged until it is back. Nodes keep their reports and send them again; sites go on with what they have.")
	page(SiteSilent, ExitDegraded, "a site is silent", "Nothing has been heard from the site. Its nodes keep the last signed policy and may install without us.")
	page(Timeout, ExitTimeout, "time ran out", "The condition did not come true in the time given.")
	page(Busy, ExitUnreachable, "the other side asks to come back later", "It serves as many requests as it may at the moment. Programs wait and try again by themselves.")
	page(NeedsAttention, ExitDegraded, "somebody has to look at a node", "At least one node is silent, was rolled back, failed to install or is quarantined. The answer that was printed is complete; the exit status is there for scripts.")
	page(InstallOverdue, ExitDegraded, "an install is overdue", "The bundle has been asked for longer than the policy's schedule.deadline, or more windows have passed than its maxDeferrals. The node's reason says what stood in the way. It goes on trying: in its windows, or, if the policy's deadline.action is RunAnytime, outside them too.")
	page(DiskFull, ExitFailure, "no space left", "The file system is full. What was already verified is kept and the work resumes when there is space.")
	page(QuotaExceeded, ExitFailure, "the store's quota is used up", "Everything in the store is needed by a staged or installed bundle, so nothing was removed. Raise the quota.")
	page(StoreDamaged, ExitVerification, "the store has damage", "Chunks that no longer match their identity were found. They are dropped and fetched again.")
	page(Locked, ExitConflict, "another process holds the lock", "Only one process may use this directory at a time.")
	page(InstallFailed, ExitFailure, "the install failed and was rolled back", "The machine runs what it ran before.")
	page(RollbackFailed, ExitFailure, "the rollback failed", "The machine needs attention: the journal says which step could not be undone.")
	page(HealthFailed, ExitFailure, "the health check failed", "The new version did not become healthy in time. The version before it is in force again.")
	page(NoIsolation, ExitFailure, "the executor cannot be run apart", "The worker of mesh-install could not be started in a network namespace of its own and the configuration requires one, or could not be started at all. Nothing was changed. Set isolation: auto to run without a namespace where the kernel allows none.")
	page(PackagesRefused, ExitFailure, "the packages do not fit this machine", "The package manager was asked what it would do, and it would need what the bundle does not hold, do what the bundle does not allow, or it finds the machine's own packages out of order. Nothing was changed. The message has the tool's words; its whole log is in the log directory of mesh-install.")
	page(Internal, ExitFailure, "internal error", "This should not happen. Please report it with the message.")
}

// Lookup returns the page of a code.
func Lookup(c Code) (Page, bool) { p, ok := pages[c]; return p, ok }

// Pages returns all pages in the order of their codes.
func Pages() []Page {
	out := make([]Page, 0, len(pages))
	for _, p := range pages {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Page) int {
		if a.Code < b.Code {
			return -1
		}
		return 1
	})
	return out
}
