package trust

import (
	"slices"
	"time"
)

// Ends returns, for each role of which a key ends, when the first of its keys does. A keyring that cannot be read says
// nothing: Validate is what refuses it.
func (s *Set) Ends() map[Role]time.Time {
	out := map[Role]time.Time{}
	for role, k := range map[Role]RoleKeys{RoleRelease: s.Release, RolePolicy: s.Policy, RoleRoster: s.Roster} {
		keys, err := ReadKeys(k.Keyring)
		if err != nil {
			continue
		}
		for _, key := range keys {
			end, ok := out[role]
			if !key.Expires.IsZero() && slices.Contains(k.Fingerprints, key.Fingerprint) && (!ok || key.Expires.Before(end)) {
				out[role] = key.Expires
			}
		}
	}
	return out
}
