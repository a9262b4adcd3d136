package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/node"
)

// complete is what the shell gets when the last word of a line is completed: the words, and cobra's directive.
func (o *office) complete(at time.Time, words ...string) (found, directive string) {
	o.t.Helper()
	var out, errs bytes.Buffer
	env := cli.System()
	env.Args, env.Stdout, env.Stderr = append([]string{cobra.ShellCompNoDescRequestCmd}, words...), &out, &errs
	env.Getenv, env.Now = func(k string) string { return o.env[k] }, func() time.Time { return at }
	if exit := cli.Run(o.t.Context(), env, newRoot(env)); exit != problem.ExitOK || strings.Contains(errs.String(), "error") {
		o.t.Errorf("%q: exit status %d\n%s", words, exit, errs.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	fits := slices.DeleteFunc(lines[:len(lines)-1:len(lines)-1], func(l string) bool { return !strings.HasPrefix(l, words[len(words)-1]) }) // as the shell does
	return strings.Join(fits, " "), lines[len(lines)-1]
}

// What a person may type next, from a real seeder.
func TestComplete(t *testing.T) {
	o := newOffice(t, time.Hour)
	o.env["XDG_CACHE_HOME"] = filepath.Join(o.dir, "cache")
	o.good("site create store-1")
	o.good("site create store-2")
	for _, name := range []string{"pos-1", "pos-2", "desk"} {
		if _, err := node.Join(t.Context(), filepath.Join(o.dir, name), name, strings.TrimSpace(o.good("site token store-1 --label role=pos")), nil); err != nil {
			t.Fatal(err)
		}
	}
	o.write("app/hello", "hello\n")
	o.good("bundle build --name app --format files --target-os any --version 1.0 --sequence 1 --from app --key release.key")
	o.good("bundle push app-1.0.bundle")
	o.policy("app.yaml", "1.0", "app-1.0.bundle")
	strategy := "  rolloutStrategy: {type: RollingUpdate, batchSize: 1}\n"
	text, err := os.ReadFile("app.yaml")
	if err != nil {
		t.Fatal(err)
	}
	o.write("app.yaml", string(text)+strategy)
	o.good("apply -f app.yaml --key operator.key")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(o.good("rollout status"), "app") { // until the seeder has planned it
		<-tick.C
	}
	const nothing, noSpace = ":4", ":6"
	for _, c := range []struct{ line, found, directive string }{
		{"status |", "store-1 store-2", noSpace},
		{"status store-1/p", "store-1/pos-1 store-1/pos-2", nothing},
		{"status store-1/pos-1 |", "", nothing},
		{"status nowhere", "", noSpace},
		{"status nowhere/x", "", nothing},
		{"why store-1/d", "store-1/desk", nothing},
		{"events sto", "store-1 store-2", noSpace},
		{"node get sto", "store-1/ store-2/", noSpace},
		{"history store-1/pos-2", "store-1/pos-2", nothing},
		{"quarantine add store-1/", "store-1/desk store-1/pos-1 store-1/pos-2", nothing},
		{"site get |", "store-1 store-2", nothing},
		{"site wan store-2", "store-2", nothing},
		{"site remove-node store-1 p", "pos-1 pos-2", nothing},
		{"policy get |", "app", nothing},
		{"policy history b", "", nothing},
		{"rollout status |", "app", nothing},
		{"rollout undo a", "app", nothing},
		{"rollback |", "app", nothing},
		{"rollback app --site |", "store-1 store-2", nothing},
		{"explain E210", "E2101 E2102 E2103 E2104 E2105 E2106 E2107 E2108 E2109", nothing},
		{"status -o j", "json jsonl", nothing},
		{"policy get app -o t", "table text", nothing},
		{"roll", "rollback rollout", nothing},
	} {
		words := strings.Fields(c.line)
		if words[len(words)-1] == "|" {
			words[len(words)-1] = ""
		}
		found, directive := o.complete(time.Now(), words...)
		if found != c.found || directive != c.directive {
			t.Errorf("%s: %q %s, want %q %s", c.line, found, directive, c.found, c.directive)
		}
	}
	// A second press of the key asks nobody; after a while the seeder is asked again.
	now := time.Now()
	o.complete(now, "site", "get", "")
	o.good("site create store-3")
	if found, _ := o.complete(now.Add(answerGood-time.Second), "site", "get", ""); found != "store-1 store-2" {
		t.Errorf("not from what is kept: %s", found)
	}
	if found, _ := o.complete(now.Add(2*answerGood), "site", "get", ""); found != "store-1 store-2 store-3" {
		t.Errorf("not asked again: %s", found)
	}
	if info, err := os.Stat("cache/meshctl"); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("others may read what is kept: %v, %v", info, err)
	}
}

// A seeder that does not answer costs the budget once, says nothing, and is not asked again at the next press.
func TestCompleteOffline(t *testing.T) {
	o := &office{t: t, dir: t.TempDir(), env: map[string]string{}}
	l, err := net.Listen("unix", filepath.Join(o.dir, "mute.sock"))
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			defer c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	o.env["XDG_CACHE_HOME"], o.env["MESHCTL_SERVER"] = filepath.Join(o.dir, "cache"), "unix://"+filepath.Join(o.dir, "mute.sock")
	now := time.Now()
	for range 3 {
		if found, directive := o.complete(now, "site", "get", ""); found != "" || directive != ":4" {
			t.Errorf("%q %s", found, directive)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("%d questions, want 1", n)
	}
	// The control: once the silence is over, it is asked again.
	if o.complete(now.Add(silenceGood), "site", "get", ""); asked.Load() != 2 {
		t.Errorf("%d questions, want 2", asked.Load())
	}
	// Nobody is named, the configuration cannot be read, or there is no place to keep anything: no word, and no question.
	for name, env := range map[string]map[string]string{
		"nobody":           {},
		"no configuration": {"MESHCTL_CONFIG": filepath.Join(o.dir, "gone.yaml")},
		"no home":          {"MESHCTL_SERVER": "unix://" + filepath.Join(o.dir, "gone.sock")},
		"no cache":         {"MESHCTL_SERVER": "unix://" + filepath.Join(o.dir, "gone.sock"), "XDG_CACHE_HOME": filepath.Join(o.dir, "mute.sock")},
	} {
		o.env = env
		if found, _ := o.complete(now, "site", "get", ""); found != "" {
			t.Errorf("%s: %s", name, found)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("%d questions, want 2", n)
	}
}

// What a seeder, or a file, calls a name is not taken for one if a shell could take it for more.
func TestCompleteFit(t *testing.T) {
	got := fit([]string{"store-1", "$(reboot)", "a b", "x\ty", "`id`", "store-1", "", "A.b_c/d", "ß", "a;b", "a\nb"})
	if strings.Join(got, " ") != "A.b_c/d store-1" {
		t.Errorf("%q", got)
	}
}

// Each command that is said to take a name exists, and takes arguments.
func TestCompleteCommands(t *testing.T) {
	root := newRoot(cli.System())
	completed := map[string]bool{}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if argument(c.CommandPath(), 0) != noNames {
			completed[strings.TrimPrefix(c.CommandPath(), "meshctl ")] = true
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	for _, name := range []string{"events", "history", "node get", "policy delete", "policy get", "policy history", "quarantine add", "quarantine release", "quarantine show", "receipt export",
		"retry", "rollback", "rollout history", "rollout pause", "rollout promote", "rollout resume", "rollout retry", "rollout status", "rollout undo",
		"site get", "site remove-node", "site timezone", "site token", "site wan", "status", "why"} {
		if !completed[name] {
			t.Errorf("meshctl %s completes nothing", name)
		}
		delete(completed, name)
	}
	for name := range completed {
		t.Errorf("meshctl %s completes and is not in the list", name)
	}
}
