package node

import "testing"

// That the machine has to be started again is true until it was, however often the daemon was.
func TestRebooted(t *testing.T) {
	r := &record{Lives: map[string]*Life{"os": {Reboot: "kernel"}}}
	for i, c := range []struct{ boot, want string }{
		{"a", "kernel"}, // written by a daemon that did not note it
		{"a", "kernel"},
		{"b", ""},
	} {
		r.rebooted(c.boot)
		if got := r.Lives["os"].Reboot; got != c.want || r.Boot != c.boot {
			t.Errorf("%d: %q, want %q", i, got, c.want)
		}
	}
	if id := bootID(); id == "" || id != bootID() {
		t.Errorf("the run of this machine is %q", id)
	}
}
