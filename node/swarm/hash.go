package swarm

// hashPeer and mix are FNV-1a and the finalizer of SplitMix64: they spread turns and ranks evenly and alike on all
// nodes. Nothing about security hangs on them.
func hashPeer(p Peer) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(p) {
		h = (h ^ uint64(p[i])) * 1099511628211
	}
	return h
}

func mix(a, b uint64) uint64 {
	z := a ^ (b+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
