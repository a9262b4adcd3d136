// Package packaging holds what a package of patchmesh installs beside the programs: units of systemd, users and
// directories. There is no code in it but the tests, which give every file to the tool that reads it, and run the daemon
// under what its unit allows.
package packaging
