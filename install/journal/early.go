package journal

// Early reports whether a transaction that a crash left can be taken up while the machine starts, before any of its
// services runs: the way back, which takes nothing but file systems. Whether the machine is healthy cannot be asked
// then, and a package's script that waits for a service would wait for ever. boot is as for Resume.
func Early(t Transaction, boot string) bool {
	r := Resume(t, boot)
	switch r.Step {
	case Undo:
		return t.Packages.ID == "" || !r.Packages.Touched || r.Packages.Provider != None
	case Discard, Close:
		return true
	case Stage, Preflight, Snapshot, Transact, Repair, Verify, Switch, Reboot, Check, Commit, Prune:
	}
	return false
}
