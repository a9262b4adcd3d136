package node

import (
	"encoding/json"

	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wire"
)

// fit shortens a statement until it fits its frame: one that does not would end the session, and a node in trouble is
// the one to be heard. What is least missed goes first: long words, then the bundles that have been installed for
// longest, then what was noted of others. Alarms keep their codes; of more than fit, the last go.
func fit(st status.Node) status.Node {
	st.Installed = st.Installed[:min(len(st.Installed), wire.MaxListed)]
	st.Alarms = st.Alarms[:min(len(st.Alarms), wire.MaxListed)]
	st.Noted = st.Noted[:min(len(st.Noted), wire.MaxListed)]
	limit, _ := wire.Limit(wire.TypeStatus)
	fits := func() bool {
		b, err := json.Marshal(st)
		return err != nil || len(b) <= limit
	}
	if fits() {
		return st
	}
	st.Detail = clip(st.Detail, maxMessage)
	alarms := make([]status.Alarm, len(st.Alarms)) // the caller's are not ours to change
	for i, a := range st.Alarms {
		a.Message = clip(a.Message, maxMessage/8)
		alarms[i] = a
	}
	st.Alarms = alarms
	for !fits() {
		switch {
		case len(st.Installed) > 1:
			st.Installed = newest(st.Installed, len(st.Installed)/2)
		case len(st.Noted) > 0:
			st.Noted = st.Noted[:len(st.Noted)/2]
		case len(st.Beside) > 1:
			st.Beside = st.Beside[:len(st.Beside)/2]
		case len(st.Alarms) > 1:
			st.Alarms = st.Alarms[:len(st.Alarms)/2]
		default:
			return st // every field left is short
		}
	}
	return st
}

// newest keeps the n items that were installed last, in their order.
func newest(items []status.InstalledItem, n int) []status.InstalledItem {
	out := append([]status.InstalledItem(nil), items...)
	for len(out) > n {
		old := 0
		for i := range out {
			if out[i].Since.Before(out[old].Since) {
				old = i
			}
		}
		out = append(out[:old], out[old+1:]...)
	}
	return out
}
