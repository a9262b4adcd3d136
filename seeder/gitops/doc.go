// Package gitops reads a Git repository that says what a fleet is to run: policies/NAME.yaml, sites/NAME.yaml and
// keys/*.asc. It keeps a bare mirror with the git program, takes from it the objects of one commit, within limits, and
// says in plain values whether the commit may follow the one in force (Judge). It verifies
// no signature, which is package policy's, and changes nothing but its mirror. A Mirror is for one goroutine.
package gitops
