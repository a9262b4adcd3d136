// Package install is the executor: it verifies a bundle itself, lays its files out beside those in force, switches
// to them by one rename, or has the machine's package manager install them, asks whether the machine is healthy, and
// commits or goes back. It is what mesh-install runs,
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
// # Packages
//
// A bundle of packages changes the machine itself, so there is more between 5 and 6:
//
//   - "preflight": power, room, locks, what the package manager would do, and last the hooks. A no is a deferral: nothing
//     was touched, it counts for nothing, and what was copied stays for the next try.
//   - "snapshot": the state of the machine is kept, all but DefaultExclude, Config.Snapshot.Exclude, STATE, ROOT and the
//     trusted keys.
//   - "transact": the package manager does what it foresaw, and what it says goes to STATE/log/ID.log. Every process that
//     it starts is marked with the transaction's ID; the next run kills what a killed one has left.
//   - "verify": versions, states and marks are compared one by one, and the exit status of no tool is believed.
//   - "reboot": where packages need it and the policy allows it. The next run of the machine goes on with the question
//     about health.
//   - "undo" puts the snapshot back, in place and to the byte. Where the policy does without a snapshot there is only
//     the way forward, "repair", and what that cannot mend is said.
//
// STATE/foreseen.json holds plan and packages from before while a transaction is open; STATE/manager is the package
// manager's private directory.
//
// Before each step the journal says that it comes; each step may be done twice. [Installer] belongs to one goroutine.
package install
