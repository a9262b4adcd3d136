// Package rollouttest holds the tests of a rollout from end to end: the real seeder on either database, real nodes with the
// real installer, a Git repository with commits signed by the real gpg, all on the loopback interface. Nothing is
// imitated but the applications on the nodes, whose health the tests make up. They need no root.
//
// The seeder, a node or the uplink is killed by SIGKILL, and "the WAN is cut" means that the seeder is gone. The whole form of
// a test, PATCHMESH_LONG=1, waits for real windows to open.
package rollouttest
