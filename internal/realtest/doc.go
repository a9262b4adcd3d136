// Package realtest takes Debian's own packages through the whole of patchmesh, with the real programs: a root of the
// stable release as it was published, the updates that have come since, collected, closed, signed, staged over the
// mesh, installed with the seeder gone and no network, and taken back to the byte. It has only tests; they need root,
// mmdebstrap and the distribution's mirrors, as this machine's apt knows them: "make install-test".
package realtest
