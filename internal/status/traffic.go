package status

import "time"

// Traffic is what a node's daemon has moved since it was started, for all bundles together. Sizes are bytes of plain
// chunks unless said otherwise. Nothing in it ever becomes less while Since stays.
type Traffic struct {
	Since      time.Time `json:"since"` // when the daemon was started, by its own clock; zero: it does not say
	FromWAN    int64     `json:"fromWan"`
	WANPayload int64     `json:"wanPayload"` // as encoded on the WAN
	FromLAN    int64     `json:"fromLan"`
	Avoided    int64     `json:"avoided"` // of FromLAN, what was not here yet: it did not have to come over the WAN
	ToLAN      int64     `json:"toLan"`
	Twice      int64     `json:"twice"`  // of FromWAN and FromLAN, what was here already
	Spoilt     int64     `json:"spoilt"` // bytes that came and could not be kept

	// Chunks that failed their verification.
	BadWAN  int64 `json:"badWan"`
	BadLAN  int64 `json:"badLan"`
	BadDisk int64 `json:"badDisk"`
}

// Beyond is what was moved since an earlier statement: all of it, if the daemon was started anew. What is less than
// before, or less than nothing, counts as nothing.
func (t Traffic) Beyond(before Traffic) Traffic {
	if !t.Since.Equal(before.Since) {
		before = Traffic{}
	}
	more := func(is, was int64) int64 { return max(0, is-max(0, was)) }
	return Traffic{Since: t.Since,
		FromWAN: more(t.FromWAN, before.FromWAN), WANPayload: more(t.WANPayload, before.WANPayload), FromLAN: more(t.FromLAN, before.FromLAN),
		Avoided: more(t.Avoided, before.Avoided), ToLAN: more(t.ToLAN, before.ToLAN), Twice: more(t.Twice, before.Twice), Spoilt: more(t.Spoilt, before.Spoilt),
		BadWAN: more(t.BadWAN, before.BadWAN), BadLAN: more(t.BadLAN, before.BadLAN), BadDisk: more(t.BadDisk, before.BadDisk)}
}
