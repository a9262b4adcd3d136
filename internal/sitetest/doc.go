// Package sitetest holds the tests of a whole site: the real programs, each node in a network namespace of its own,
// behind a WAN that is thin and far away. They count bytes on the interfaces and in the seeder's account, break
// things half-way, and hold the figures that the project promises. It has no code but tests; it needs what package
// testbed needs. PATCHMESH_FULL=1 moves 64 MiB instead of 16 and always 8 nodes; PATCHMESH_LOGS=DIR keeps the programs'
// logs in DIR.
package sitetest
