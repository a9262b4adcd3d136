package node

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/node/swarm"
)

// departure is this node's way out of the site: asked for once, by a signal or over the socket. The lease goes back
// when what is on its way has come, and the node stays while a neighbour wants what it alone holds, for as long as it
// is given.
type departure struct {
	asked bool          // the loop's: neighbours are told that this node wants nothing any more
	may   chan struct{} // closed by the loop when nobody needs this node
	end   chan struct{} // closed when Run is to end
	once  sync.Once     // of end
}

// leave asks the swarm to leave, waits for that, at most for timeout, and says what came of it.
func (n *Node) leave(ctx context.Context, timeout time.Duration) (r api.LeaveResult) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if n.call(ctx, func() {
		if !n.leaving.asked {
			n.leaving.asked = true
			n.log.Info("leaving", "only_here", n.sw.Sole(), "timeout", timeout)
			n.step(swarm.Leave{})
		}
	}) == nil {
		select {
		case <-n.leaving.may:
		case <-ctx.Done():
		}
	}
	// A loop that does not answer is no reason to stay.
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer stop()
	var only int64
	if n.call(last, func() { only = n.sw.Sole() }) == nil {
		r.OnlyHere = only
	}
	r.WaitedMillis = time.Since(began).Milliseconds()
	if r.OnlyHere > 0 {
		n.log.Warn("left although neighbours want what only this node has: they get it when it is back, or over the WAN", "bytes", r.OnlyHere, "waited", timeout)
	} else {
		n.log.Info("left", "waited", time.Since(began).Round(time.Millisecond))
	}
	return r
}

// depart returns when the node is to end: ctx has ended and the node has left, or it was asked to over the socket.
func (n *Node) depart(ctx, run context.Context) {
	select {
	case <-ctx.Done():
		if n.cfg.LeaveTimeout > 0 {
			n.leave(run, n.cfg.LeaveTimeout)
		}
	case <-n.leaving.end:
	case <-run.Done():
	}
}

// handleLeave answers when the node may end, and then ends it.
func (n *Node) handleLeave(w http.ResponseWriter, r *http.Request) {
	timeout, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || timeout < 0 || timeout > api.MaxLeaveTimeout {
		api.WriteError(w, problem.New(problem.Usage, "timeout %q: want a duration from 0 to %v", r.URL.Query().Get("timeout"), api.MaxLeaveTimeout))
		return
	}
	// The server's own deadlines are for clients that stall; this one waits for us.
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{})
	_ = c.SetWriteDeadline(time.Now().Add(timeout + time.Minute))
	api.WriteJSON(w, n.leave(n.ctx, timeout)) // also when nobody waits for it any more: the neighbours have been told
	n.leaving.once.Do(func() { close(n.leaving.end) })
}
