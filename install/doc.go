// Package install is the executor: it verifies a bundle itself, lays its files out beside those in force, switches
// to them by one rename, asks whether the machine is healthy, and commits or goes back. It is what mesh-install runs,
// as root, one shot for each request. It fetches nothing, schedules nothing, and trusts neither the daemon that calls
// it nor the chunk store it reads.
//
// # Life of an install
//
//  1. STATE/lock is taken; a second run says Locked.
//  2. STATE/installed.json (ledger) and STATE/journal.json are read. An open journal is carried on or undone first.
//  3. Manifest and policy: signatures, then order (sequence and revision floors), bundleRef, target, labels.
//  4. The index is read from the chunk store and checked against the manifest.
//  5. The journal is written with step "stage"; then ROOT/NAME/releases/.tmp-… is filled, each chunk and file hashed,
//     each file and directory flushed, and renamed to VERSION-SHORTDIGEST. The signed documents go to STATE/evidence.
//  6. "switch": ROOT/NAME/current is replaced by rename. "check": the parent process asks URL and command.
//  7. "commit": installed.json names the new release and the floor rises. "prune": old releases go.
//  8. Or "undo": current names the old release again, and "discard": the new one goes, the failure is remembered.
//  9. The journal is removed.
//
// Before each step the journal says that it comes; each step may be done twice. [Installer] belongs to one goroutine.
package install
