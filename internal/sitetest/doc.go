// Package sitetest holds the tests of a whole site: the real programs, each node in a network namespace of its own,
// behind a WAN that is thin and far away. They count bytes on the interfaces and in the seeder's account, break
// things half-way, and hold the figures that the project promises. It has no code but tests; it needs what package
// testbed needs.
//
// A test is a theme and its subtests are cases. "go test" runs those that stand for the others, with 16 MiB;
// PATCHMESH_FULL=1 runs all, with 64 MiB and 8 nodes. PATCHMESH_LOGS=DIR keeps the programs' logs in DIR. What is
// asserted are counts and states; times are printed.
package sitetest
