package preflight

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/patchmesh/patchmesh/install/tool"
)

// HooksDir is where whoever runs the machine puts programs that have a say.
const HooksDir = "/etc/meshd/hooks.d"

// Bounds of hooks.
const (
	HookTime  = time.Minute // for one hook, if the configuration says nothing
	maxHooks  = 64
	maxReason = 200       // bytes of what a hook said
	retryHook = retryLock // when a hook names no time
	maxRetry  = 24 * time.Hour
	exitDefer = 75 // EX_TEMPFAIL of sysexits.h
)

// Phase is when hooks are run. It is in their environment as HOOK_PHASE.
type Phase string

// The phases. Only in the first is anybody asked; in the others the hooks are told what became of it.
const (
	BeforeInstall Phase = "preflight"
	AfterInstall  Phase = "post-install"
	RolledBack    Phase = "rolled-back" // after a yes in preflight: nothing was changed, or all of it was taken back
)

// Hooks are the executables of a directory, in the order of their names. As with run-parts(8) a name has letters,
// digits, dashes and underscores only; anything else, and what is not executable, is none. They run one after the other
// with HOOK_PHASE, HOOK_BUNDLE and HOOK_VERSION in their environment, on the machine's own network. Status 0 is yes.
// Status 75 is not now: the last line says why, and a line "retry-after: SECONDS" when to ask again. Any other status
// is a no as well, which names the status: a hook that is broken neither lets a patch through nor goes unseen.
//
// A hook runs as root. So directory and hooks must belong to root (or to the user of this process) and may be written
// by nobody else; a link is not run. What breaks that is a no.
type Hooks struct {
	Dir    string
	Time   time.Duration // for one hook: it is killed then with all it has started; 0: HookTime
	Runner tool.Runner   // its ID marks what the hooks start
}

// Call is what hooks are asked about.
type Call struct {
	Phase           Phase
	Bundle, Version string
}

// Ask asks the hooks before an install and stops at the first no. Ask it last: a hook may already act on its yes, and
// close the till. Then Tell has to follow, whatever becomes of the install. An error is ctx's.
func (h Hooks) Ask(ctx context.Context, bundle, version string) (*Deferral, error) {
	names, err := h.list()
	if err != nil {
		return &Deferral{HookDeferred, err.Error(), retryPerson}, nil
	}
	for _, name := range names {
		why, retry, err := h.run(ctx, name, Call{BeforeInstall, bundle, version})
		if err != nil {
			return nil, err
		}
		if why != "" {
			return &Deferral{HookDeferred, "hook " + name + ": " + why, retry}, nil
		}
	}
	return nil, nil
}

// Tell runs the hooks after an install and returns notes on those that did not end with status 0. Nothing else follows
// from that.
func (h Hooks) Tell(ctx context.Context, c Call) (notes []string) {
	names, err := h.list()
	if err != nil {
		return []string{err.Error()}
	}
	for _, name := range names {
		why, _, err := h.run(ctx, name, c)
		if err != nil {
			return append(notes, err.Error())
		}
		if why != "" {
			notes = append(notes, fmt.Sprintf("hook %s, %s: %s", name, c.Phase, why))
		}
	}
	return notes
}

// list names the hooks in order. An error names the first that must not be run.
func (h Hooks) list() ([]string, error) {
	es, err := os.ReadDir(h.Dir) // in the order of names
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("hooks: %w", err)
	}
	fi, err := os.Lstat(h.Dir)
	if err == nil {
		err = trusted(fi)
	}
	if err != nil {
		return nil, fmt.Errorf("hooks: %s: %w", h.Dir, err)
	}
	var names []string
	for _, e := range es {
		if !hookName(e.Name()) {
			continue
		}
		fi, err := os.Lstat(filepath.Join(h.Dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("hook %s: %w", e.Name(), err)
		}
		switch {
		case fi.Mode()&fs.ModeSymlink != 0:
			return nil, fmt.Errorf("hook %s is a link, which is not run: put the program itself there", e.Name())
		case !fi.Mode().IsRegular() || fi.Mode().Perm()&0o111 == 0:
			continue
		}
		if err := trusted(fi); err != nil {
			return nil, fmt.Errorf("hook %s is not run: %w", e.Name(), err)
		}
		if names = append(names, e.Name()); len(names) > maxHooks {
			return nil, fmt.Errorf("hooks: %s holds more than %d", h.Dir, maxHooks)
		}
	}
	return names, nil
}

// hookName is run-parts' default rule.
func hookName(s string) bool {
	for _, c := range s {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return s != ""
}

// trusted checks that nobody but root, or this user, could have written something.
func trusted(fi fs.FileInfo) error {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return errors.New("it does not belong to root")
	}
	if fi.Mode().Perm()&0o022 != 0 {
		return errors.New("others than its owner may write it")
	}
	return nil
}

// run runs one hook; why is empty when it says yes.
func (h Hooks) run(ctx context.Context, name string, c Call) (why string, retry time.Duration, err error) {
	r := h.Runner
	if r.Max = h.Time; r.Max == 0 {
		r.Max = HookTime
	}
	res, err := r.Run(ctx, tool.Command{Path: filepath.Join(h.Dir, name),
		Env: []string{"HOOK_PHASE=" + string(c.Phase), "HOOK_BUNDLE=" + c.Bundle, "HOOK_VERSION=" + c.Version}})
	switch {
	case ctx.Err() != nil:
		return "", 0, ctx.Err()
	case errors.Is(err, tool.ErrKilled):
		return fmt.Sprintf("it did not end within %s and was killed", r.Max), retryHook, nil
	case err != nil:
		return "it cannot be run: " + clip(err.Error()), retryPerson, nil
	}
	said, retry := hookSays(res.Both)
	switch {
	case res.Exit == 0:
		return "", 0, nil
	case res.Exit == exitDefer && said == "":
		return "not now", retry, nil
	case res.Exit == exitDefer:
		return said, retry, nil
	case res.Exit < 0:
		return fmt.Sprintf("it ended by signal %d: %s", res.Signal, said), retry, nil
	}
	return fmt.Sprintf("it ended with status %d, which is neither yes (0) nor not now (75): %s", res.Exit, said), retry, nil
}

// hookSays reads the last line of an output that is not "retry-after: SECONDS", and the last that is.
func hookSays(out []byte) (said string, retry time.Duration) {
	retry = retryHook
	for l := range strings.Lines(strings.ToValidUTF8(string(out), "?")) {
		l = strings.TrimSpace(strings.Map(printable, l))
		if l == "" {
			continue
		}
		if k, v, ok := strings.Cut(l, ":"); ok && strings.EqualFold(k, "retry-after") {
			if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 32); err == nil && n > 0 {
				retry = min(max(time.Duration(n)*time.Second, retryLeast), maxRetry)
			}
			continue
		}
		said = l
	}
	return clip(said), retry
}

func clip(s string) string {
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "")
	}
	return s
}
