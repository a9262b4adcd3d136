package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/patchmesh/patchmesh/internal/status"
)

// Story is an example: a lab, and what is told while it runs.
type Story struct {
	*Lab
	Keep  bool // leave everything running at the end, until interrupted
	began time.Time
}

// storyTime bounds an example: it ends by itself even when nothing goes as it should.
const storyTime = 10 * time.Minute

// Tell runs an example in a new lab and returns the exit status of the program. KEEP=1 in the environment keeps the lab
// running after a good end; try then says what a person may do with it.
func Tell(run func(context.Context, *Story) (try []string, err error)) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := New("bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := l.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	s := &Story{Lab: l, Keep: os.Getenv("KEEP") == "1", began: time.Now()}
	bounded, cancel := context.WithTimeoutCause(ctx, storyTime, errors.New("the example takes too long"))
	defer cancel()
	try, err := run(bounded, s)
	if err != nil {
		if ctx.Err() == nil {
			l.Tail(os.Stderr, 12)
		}
		fmt.Fprintf(os.Stderr, "not good: %v\n", err)
		return 1
	}
	if s.Keep {
		fmt.Printf("\nStill running; press Ctrl-C to end it. To try:\n  %s\n", strings.Join(try, "\n  "))
		<-ctx.Done()
	}
	return 0
}

// Say prints a line with the time since the beginning.
func (s *Story) Say(format string, args ...any) {
	fmt.Printf("%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// Installed counts the nodes of a site that have this version in force, and fails on a node that will not get there.
func Installed(v status.Site, bundle, version string) (n int, err error) {
	for _, node := range v.Nodes {
		if node.Phase == status.InstallFailed || node.Phase == status.RolledBack || node.Phase == status.Quarantined {
			return n, fmt.Errorf("%s/%s is %s: %s", v.Site, node.Node.Node, node.Phase, node.Reason)
		}
		for _, i := range node.Installed {
			if i.Bundle == bundle && i.Version == version {
				n++
			}
		}
	}
	return n, nil
}

// AwaitInstalled waits until want nodes of the site have the version, telling what changes on the way. view asks either
// the seeder or a node.
func (s *Story) AwaitInstalled(ctx context.Context, view func(context.Context) (status.Site, error), bundle, version string, want int) error {
	last := ""
	return Await(ctx, fmt.Sprintf("%s %s on %d nodes", bundle, version, want), time.Second, func() (bool, string, error) {
		v, err := view(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		line := Summary(v, bundle, version)
		if line != last {
			s.Say("%s", line)
			last = line
		}
		n, err := Installed(v, bundle, version)
		return n >= want, line, err
	})
}

// Summary is a site in one line: how far the wanted bundle is on all nodes together, and what the WAN carried.
func Summary(v status.Site, bundle, version string) string {
	var have, all, lan int64
	for _, n := range v.Nodes {
		if n.Desired != nil && n.Desired.Bundle == bundle && n.Desired.Version == version {
			have += n.Transfer.BytesHave
			all += n.Transfer.Bytes
			lan += n.Transfer.FromLAN
		}
	}
	var percent int64
	if all > 0 {
		percent = 100 * have / all
	}
	installed, _ := Installed(v, bundle, version) // a failure is reported by who asked for it
	return fmt.Sprintf("%-8s %3d %% there   WAN %.1f MB   LAN %.1f MB   uplink %-8s %d of %d installed", v.Site, percent,
		float64(v.WAN.Payload)/1e6, float64(lan)/1e6, v.Uplink, installed, len(v.Nodes))
}
