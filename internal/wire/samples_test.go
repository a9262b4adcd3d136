package wire_test

import (
	"bytes"
	"math/rand/v2"
	"time"

	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
)

type named struct {
	name string
	m    wire.Message
}

// samples holds one telling message of every type, in the order of their numbers.
func samples() []named {
	bundle := manifest.Digest(bytes.Repeat([]byte{0xb0}, 32))
	at := time.Date(2026, 11, 21, 3, 4, 5, 0, time.UTC)
	next := at.Add(time.Hour)
	node := status.Node{
		APIVersion: status.APIVersion, Kind: "NodeStatus", Site: "s1", Node: "till-3", PeerID: "12D3KooW", Software: "1.2.3", Seq: 9, At: at,
		Uplink: true, Phase: status.Staging, Reason: "fetching", Code: "E1101", NextAttempt: &next,
		Desired:   &status.Desired{Policy: "weekly", Revision: 4, Bundle: "os", Version: "2026.47", Checksum: bundle},
		Installed: []status.InstalledItem{{Bundle: "os", Version: "2026.46", Sequence: 46, Checksum: bundle, Since: at}},
		Transfer:  status.Transfer{Chunks: 8, ChunksHave: 3, Bytes: 1000, BytesHave: 400, FromWAN: 100, WANPayload: 90, FromLAN: 300, Reused: 7, ToLAN: 5, Wasted: 1, Peers: 2},
		Alarms:    []status.Alarm{{Code: "E2001", Message: "disk", Since: at}}, Outbox: 2,
	}
	return []named{
		{"hello", &wire.Hello{Version: wire.Version, Site: "s1", Name: "till-3", Software: "1.2.3"}},
		{"ping", &wire.Ping{Nonce: 0x0102030405060708}},
		{"pong", &wire.Pong{Nonce: 0x0102030405060708}},
		{"docs", &wire.Docs{Entries: []wire.DocEntry{{Kind: wire.DocManifest, Name: "os", Revision: 47, Digest: bundle}}}},
		{"getdoc", &wire.GetDoc{Digest: bundle}},
		{"doc", &wire.Doc{Kind: wire.DocPolicy, Doc: []byte("doc"), Sig: []byte("sig")}},
		{"have", &wire.Have{Bundle: bundle, Wants: true, Total: 11, Bitmap: []byte{0x81, 0x07}}},
		{"haveadd", &wire.HaveAdd{Bundle: bundle, Numbers: []uint32{0, 7, wire.MaxHaveChunks - 1}}},
		{"get", &wire.Get{Req: 5, ID: chunk.Sum([]byte("x"))}},
		{"data", &wire.Data{Req: 5, Encoding: 1, Payload: []byte("x")}},
		{"refuse", &wire.Refuse{Req: 5, Reason: wire.ReasonBusy}},
		{"status", &wire.Status{Node: node}},
		{"report", &wire.Report{Report: status.Report{Site: "s1", Node: "till-3", Seq: 3, Body: []byte("body"), Sig: []byte("sig")}}},
		{"reportack", &wire.ReportAck{Site: "s1", Node: "till-3", Seq: 3}},
		{"uplink", &wire.Uplink{Holder: "12D3KooW", Split: true}},
		{"leaseask", &wire.LeaseAsk{Nonce: 1, Active: true, Unreachable: "12D3KooX"}},
		{"leasegrant", &wire.LeaseGrant{Nonce: 1, Lease: 2, TTLMillis: 10000, RenewMillis: 3000, Split: true, CapBytesPerSecond: 125000, PauseMillis: 3600000, Why: "blackout until 20:00 UTC"}},
		{"leaserefuse", &wire.LeaseRefuse{Nonce: 1, Holder: "12D3KooX", RetryMillis: 500, Reason: "held"}},
		{"leaserenew", &wire.LeaseRenew{Nonce: 1, Lease: 2, Active: true, SeesHolder: true}},
		{"leaserelease", &wire.LeaseRelease{Lease: 2}},
		{"sitestate", &wire.SiteState{Nodes: []status.Node{node}, Alive: []string{"till-3", "till-4"}}},
	}
}

// messages draws any valid message of any type.
func messages() *rapid.Generator[wire.Message] {
	text := rapid.StringOfN(rapid.RuneFrom([]rune("az09 -\"\\</é")), 0, 12, -1)
	blob := rapid.SliceOfN(rapid.Byte(), 0, 64)
	u64, i64, u32 := rapid.Uint64(), rapid.Int64(), rapid.Uint32()
	yes := rapid.Bool()
	when := rapid.Map(rapid.Int64Range(0, 1<<33), func(s int64) time.Time { return time.Unix(s, 0).UTC() })
	digest := rapid.Map(rapid.SliceOfN(rapid.Byte(), 32, 32), func(b []byte) manifest.Digest { return manifest.Digest(b) })
	item := rapid.Custom(func(t *rapid.T) status.InstalledItem {
		return status.InstalledItem{Bundle: text.Draw(t, "bundle"), Version: text.Draw(t, "version"), Sequence: u64.Draw(t, "seq"), Checksum: digest.Draw(t, "sum"), Since: when.Draw(t, "since")}
	})
	alarm := rapid.Custom(func(t *rapid.T) status.Alarm {
		return status.Alarm{Code: text.Draw(t, "code"), Message: text.Draw(t, "message"), Since: when.Draw(t, "since")}
	})
	node := rapid.Custom(func(t *rapid.T) status.Node {
		n := status.Node{APIVersion: text.Draw(t, "api"), Site: text.Draw(t, "site"), Node: text.Draw(t, "node"), Seq: u64.Draw(t, "seq"), At: when.Draw(t, "at"),
			Uplink: yes.Draw(t, "uplink"), Phase: status.Phase(text.Draw(t, "phase")), Reason: text.Draw(t, "reason"),
			Installed: rapid.SliceOfN(item, 0, 3).Draw(t, "installed"), Alarms: rapid.SliceOfN(alarm, 0, 3).Draw(t, "alarms"),
			Transfer: status.Transfer{Bytes: i64.Draw(t, "bytes"), Peers: rapid.Int().Draw(t, "peers")}}
		if yes.Draw(t, "desired?") {
			n.Desired = &status.Desired{Policy: text.Draw(t, "policy"), Checksum: digest.Draw(t, "sum")}
			next := when.Draw(t, "next")
			n.NextAttempt = &next
		}
		return n
	})
	entry := rapid.Custom(func(t *rapid.T) wire.DocEntry {
		return wire.DocEntry{Kind: wire.DocKind(text.Draw(t, "kind")), Name: text.Draw(t, "name"), Revision: u64.Draw(t, "rev"), Digest: digest.Draw(t, "digest")}
	})
	return rapid.Custom(func(t *rapid.T) wire.Message {
		switch wire.Type(rapid.IntRange(1, 21).Draw(t, "type")) {
		case wire.TypeHello:
			return &wire.Hello{Version: rapid.Int().Draw(t, "v"), Site: text.Draw(t, "site"), Name: text.Draw(t, "name"), Software: text.Draw(t, "software")}
		case wire.TypePing:
			return &wire.Ping{Nonce: u64.Draw(t, "n")}
		case wire.TypePong:
			return &wire.Pong{Nonce: u64.Draw(t, "n")}
		case wire.TypeDocs:
			return &wire.Docs{Entries: rapid.SliceOfN(entry, 0, 5).Draw(t, "entries")}
		case wire.TypeGetDoc:
			return &wire.GetDoc{Digest: digest.Draw(t, "d")}
		case wire.TypeDoc:
			return &wire.Doc{Kind: wire.DocKind(text.Draw(t, "kind")), Doc: blob.Draw(t, "doc"), Sig: blob.Draw(t, "sig")}
		case wire.TypeHave:
			m := &wire.Have{Bundle: digest.Draw(t, "b"), Wants: yes.Draw(t, "w"), Total: rapid.Uint32Range(0, 200).Draw(t, "total")}
			m.Bitmap = rapid.SliceOfN(rapid.Byte(), int(m.Total+7)/8, int(m.Total+7)/8).Draw(t, "bits")
			if r := m.Total % 8; r != 0 {
				m.Bitmap[len(m.Bitmap)-1] &= 1<<r - 1
			}
			return m
		case wire.TypeHaveAdd:
			return &wire.HaveAdd{Bundle: digest.Draw(t, "b"), Numbers: rapid.SliceOfN(rapid.Uint32Range(0, wire.MaxHaveChunks-1), 1, 50).Draw(t, "n")}
		case wire.TypeGet:
			return &wire.Get{Req: u32.Draw(t, "req"), ID: chunk.ID(digest.Draw(t, "id"))}
		case wire.TypeData:
			// Sizes around those at which the Reader changes its ways; the bytes themselves are of no interest to it.
			n := rapid.SampledFrom([]int{0, 1, 4091, 4092, 70_000, chunk.DefaultSize, chunk.DefaultSize + 1, 600_000, chunk.MaxSize + 1024}).Draw(t, "size")
			b := make([]byte, n)
			rng := rand.NewChaCha8([32]byte{byte(u32.Draw(t, "seed"))})
			rng.Read(b)
			return &wire.Data{Req: u32.Draw(t, "req"), Encoding: rapid.Byte().Draw(t, "enc"), Payload: b}
		case wire.TypeRefuse:
			return &wire.Refuse{Req: u32.Draw(t, "req"), Reason: wire.Reason(rapid.Byte().Draw(t, "why"))}
		case wire.TypeStatus:
			return &wire.Status{Node: node.Draw(t, "node")}
		case wire.TypeReport:
			return &wire.Report{Report: status.Report{Site: text.Draw(t, "site"), Node: text.Draw(t, "node"), Seq: u64.Draw(t, "seq"), Body: blob.Draw(t, "body"), Sig: blob.Draw(t, "sig")}}
		case wire.TypeReportAck:
			return &wire.ReportAck{Site: text.Draw(t, "site"), Node: text.Draw(t, "node"), Seq: u64.Draw(t, "seq")}
		case wire.TypeUplink:
			return &wire.Uplink{Holder: text.Draw(t, "holder"), Split: yes.Draw(t, "split")}
		case wire.TypeLeaseAsk:
			return &wire.LeaseAsk{Nonce: u64.Draw(t, "n"), Active: yes.Draw(t, "a"), Unreachable: text.Draw(t, "u")}
		case wire.TypeLeaseGrant:
			return &wire.LeaseGrant{Nonce: u64.Draw(t, "n"), Lease: u64.Draw(t, "l"), TTLMillis: i64.Draw(t, "ttl"), RenewMillis: i64.Draw(t, "renew"), Split: yes.Draw(t, "s"), CapBytesPerSecond: i64.Draw(t, "cap"),
				PauseMillis: i64.Draw(t, "pause"), Why: text.Draw(t, "why")}
		case wire.TypeLeaseRefuse:
			return &wire.LeaseRefuse{Nonce: u64.Draw(t, "n"), Holder: text.Draw(t, "h"), RetryMillis: i64.Draw(t, "retry"), Reason: text.Draw(t, "reason"),
				PauseMillis: i64.Draw(t, "pause"), Why: text.Draw(t, "why")}
		case wire.TypeLeaseRenew:
			return &wire.LeaseRenew{Nonce: u64.Draw(t, "n"), Lease: u64.Draw(t, "l"), Active: yes.Draw(t, "a"), SeesHolder: yes.Draw(t, "s")}
		case wire.TypeLeaseRelease:
			return &wire.LeaseRelease{Lease: u64.Draw(t, "l")}
		case wire.TypeSiteState:
			return &wire.SiteState{Nodes: rapid.SliceOfN(node, 0, 3).Draw(t, "nodes"), Alive: rapid.SliceOfN(text, 0, 5).Draw(t, "alive")}
		}
		panic("a type without a generator")
	})
}
