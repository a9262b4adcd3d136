package evil

// Role is one way to misbehave.
type Role string

// The roles.
const (
	// What it answers to a Get. All of these say that they hold everything.
	Poison      Role = "poison"       // the right length, one bit wrong
	Short       Role = "short"        // one byte less
	Long        Role = "long"         // one byte more
	BadEncoding Role = "bad-encoding" // an encoding that does not exist
	Bomb        Role = "bomb"         // a few KiB that decode to a GiB
	Stall       Role = "stall"        // nothing
	Drip        Role = "drip"         // a byte a second
	Refuse      Role = "refuse"       // not held, and says at once that it does hold it
	Twice       Role = "twice"        // the right bytes, two times
	Honest      Role = "honest"       // the right bytes

	// What it says unasked.
	Beyond    Role = "beyond"     // that it holds 16 million chunks of every bundle
	Flip      Role = "flip"       // that it holds everything, nothing, everything
	Unasked   Role = "unasked"    // chunks that nobody asked for
	BigFrame  Role = "big-frame"  // a frame of 4 GiB
	Garbage   Role = "garbage"    // random bytes
	WrongLane Role = "wrong-lane" // a chunk on the control lane
	Forgery   Role = "forgery"    // documents that are not genuine
	FalseUp   Role = "false-up"   // that it is the uplink, which it is not

	// Floods.
	Pings    Role = "pings"
	Gets     Role = "gets"    // reads the answers
	NoRead   Role = "no-read" // Gets, and does not read the answers
	GetDocs  Role = "get-docs"
	Haves    Role = "haves"
	HaveAdds Role = "have-adds"
	Docs     Role = "docs"      // lists of documents
	DocsFull Role = "docs-full" // large documents that nobody asked for
	Statuses Role = "statuses"
	Reports  Role = "reports"
	Flap     Role = "flap" // is the uplink, is not, is
	Streams  Role = "streams"
	Comes    Role = "comes"     // comes and goes
	HalfOpen Role = "half-open" // connections without a handshake

	// What it does as uplink; these need a seeder.
	Withhold Role = "withhold" // takes the lease and shares nothing: no chunk, no document, no acknowledgement
	Greedy   Role = "greedy"   // takes the lease and fetches everything again and again
)

// Roles lists them.
func Roles() []Role {
	return []Role{Poison, Short, Long, BadEncoding, Bomb, Stall, Drip, Refuse, Twice, Honest, Beyond, Flip, Unasked, BigFrame, Garbage, WrongLane,
		Forgery, FalseUp, Pings, Gets, NoRead, GetDocs, Haves, HaveAdds, Docs, DocsFull, Statuses, Reports, Flap, Streams, Comes, HalfOpen, Withhold, Greedy}
}
