package seeder

import "time"

// yieldState is what a site's WAN looks like from here.
type yieldState struct {
	Rate     int64         // bytes per second sent of late
	BaseRTT  time.Duration // smallest round trip to the uplink; 0: unknown
	Queue    time.Duration // how much longer it is now: what waits in the link's queue
	Yielding bool          // the rate is held down because others use the link
	Why      string        // one line for people
}

// yielding holds chunk data back where others use a site's link.
type yielding struct{}

func newYielding() *yielding { return &yielding{} }

// state is what is known of a site's link.
func (y *yielding) state(string) yieldState { return yieldState{} }
