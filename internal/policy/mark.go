package policy

// Mark is how far the numbers have come that the seeder gives to what it signs under a policy: its grants and its orders.
// They count within a revision, which only an operator can raise. So a number out of all proportion, of a seeder that was
// broken into or whose clock was wrong, is in force until the operator's next revision and no longer.
type Mark struct {
	Revision uint64 `json:"revision"`
	Number   uint64 `json:"number"`
}

// Before reports whether m is the older one.
func (m Mark) Before(o Mark) bool {
	return m.Revision < o.Revision || m.Revision == o.Revision && m.Number < o.Number
}
