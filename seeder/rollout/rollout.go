// Package rollout decides which nodes of a policy may start when: canary, batches, caps, failure budget, pause and
// resume. Pure and deterministic: time and facts are handed in, what is to be done comes out. Safe for concurrent use as
// long as each State is used by one goroutine at a time.
package rollout
