// Command bench measures a site against its physical bounds and against what people use instead, on one test bed, and
// writes the result down: bench/results.json, and from it the tables of the README. It is run by "make bench". It
// measures and prints; it decides nothing, asserts nothing and fails on no machine for being slow. Formulas, figures,
// tables and the document are pure code; the rest brings a bed up (package testbed), runs real programs in its hosts
// and counts bytes on its interfaces. "bench bed" keeps a bed up for a person.
//
// Everything runs in namespaces that the bed made and ends with it, whatever happens. One goroutine measures; samplers
// run beside it and are waited for.
package main
