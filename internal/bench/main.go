package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/testbed"
)

// entry is a part of the benchmark. Entries in a row with the same bed share it.
type entry struct {
	name, group string
	cfg         testbed.Config
	run         func(context.Context, *stage, *part) error
}

// thin is the WAN for which the figures are given.
func thin(sites, nodes int, lan testbed.Rate) testbed.Config {
	return testbed.Config{Sites: sites, Nodes: nodes, WAN: 50 * testbed.Mbit, RTT: 40 * time.Millisecond, LAN: lan}
}

func entries() []entry {
	return []entry{
		{"fill-8", "ours", thin(1, 8, testbed.Gbit), fills},
		{"faults", "ours", thin(1, 8, testbed.Gbit), faults},
		{"rivals-8", "rivals", thin(1, 8, testbed.Gbit), compare},
		{"rivals-killed", "rivals", thin(1, 8, testbed.Gbit), compareKilled},
		{"fill-2", "ours", thin(1, 2, testbed.Gbit), fills},
		{"fill-16", "ours", thin(1, 16, testbed.Gbit), fills},
		{"fill-30", "ours", thin(1, 30, testbed.Gbit), fills},
		{"sites", "ours", thin(4, 4, testbed.Gbit), fills},
		{"rivals-sites", "rivals", thin(4, 4, testbed.Gbit), compareSites},
		{"polite", "polite", testbed.Config{Nodes: 4, WAN: 20 * testbed.Mbit, RTT: 40 * time.Millisecond, LAN: testbed.Gbit}, politeness},
		{"lan-8", "lan", thin(1, 8, 100*testbed.Mbit), broadcast},
		{"rivals-lan", "lan", thin(1, 8, 100*testbed.Mbit), compareLAN},
		{"lan-16", "lan", thin(1, 16, 50*testbed.Mbit), broadcast},
		{"lan-30", "lan", thin(1, 30, 25*testbed.Mbit), broadcast},
	}
}

// prog is what the process does when it does not stand guard over a bed.
type prog struct{}

func main() {
	if name := os.Getenv(doneEnv); name != "" {
		if err := done(name); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(testbed.Main(prog{}))
}

// Run implements what testbed.Main asks for.
func (prog) Run() int {
	if err := command(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func command(args []string) error {
	if len(args) > 0 && args[0] == "bed" {
		return byHand(args[1:], os.Stdin, os.Stdout)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "bench [flags]         measure, print, write the document\nbench [flags] table   print what the document says\nbench [flags] readme  write it into the README\nbench bed [flags]     keep a bed up for a person\n\n")
		f.PrintDefaults()
	}
	runs := f.Int("runs", 3, "how often everything is done; the figures are medians")
	mib := f.Int64("size", 64, "MiB to distribute")
	seed := f.Uint64("seed", 1, "of the contents and the losses")
	only := f.String("only", "", "parts or groups, with commas between: "+strings.Join(partNames(), " ")+"; "+strings.Join(groups(), " "))
	tool := f.String("rival", "", "only the rival of this name; then nothing is written down")
	bin := f.String("bin", "bin", "directory of the programs")
	out := f.String("out", "bench/results.json", "the document; parts that are not measured now stay in it")
	readme := f.String("readme", "", "the README, rewritten from the document")
	logs := f.String("logs", "", "directory for the programs' logs")
	if err := f.Parse(args); err != nil {
		return err
	}
	switch f.Arg(0) {
	case "":
		if *runs < 1 || *mib < 1 || *mib > 1024 {
			return errors.New("want at least one run, and 1 to 1024 MiB")
		}
		if missing := testbed.Missing(); missing != "" {
			return fmt.Errorf("needs %s", missing)
		}
		list := chosen(entries(), *only)
		if len(list) == 0 {
			return fmt.Errorf("no part or group is called %s", *only)
		}
		began := time.Now()
		o := options{runs: *runs, size: *mib << 20, seed: *seed, bin: *bin, logs: *logs, rival: *tool, say: func(format string, args ...any) {
			fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
		}}
		if err := o.measure(ctx, list, *out); err != nil {
			return err
		}
	case "table":
	case "readme":
		if *readme == "" {
			*readme = "README.md"
		}
	default:
		return fmt.Errorf("%q is not known: bench -h", f.Arg(0))
	}
	d, err := load(*out)
	if err != nil {
		return err
	}
	if *readme != "" {
		if err := update(*readme, d); err != nil {
			return err
		}
	}
	for _, table := range [][][]string{bounds(d), comparison(d), elsewhere(d)} {
		if len(table) > 1 {
			fmt.Println(plainText(table))
		}
	}
	fmt.Println(provenance(d))
	return nil
}

// update rewrites the README from the document.
func update(name string, d *results) error {
	old, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	text, err := rewrite(string(old), d)
	if err != nil || text == string(old) {
		return err
	}
	return durable.WriteFile(name, []byte(text), 0o644)
}

func partNames() (names []string) {
	for _, e := range entries() {
		names = append(names, e.name)
	}
	return names
}

func groups() (names []string) {
	for _, e := range entries() {
		if !slices.Contains(names, e.group) {
			names = append(names, e.group)
		}
	}
	return names
}

// chosen are the entries that are named, by themselves or by their group; nothing named is all.
func chosen(all []entry, only string) []entry {
	if only == "" {
		return all
	}
	names := strings.Split(only, ",")
	return slices.DeleteFunc(slices.Clone(all), func(e entry) bool {
		return !slices.Contains(names, e.name) && !slices.Contains(names, e.group)
	})
}

// partTime bounds a part: it ends by itself even when nothing goes as it should.
const partTime = 15 * time.Minute

// measure runs the entries and writes the document after each.
func (o options) measure(ctx context.Context, list []entry, out string) (err error) {
	doc, err := load(out)
	if err != nil {
		return err
	}
	var s *stage
	defer func() {
		if s != nil {
			err = errors.Join(err, s.close())
		}
	}()
	id, here := commit(ctx), thisMachine()
	for _, e := range list {
		p := part{Name: e.name, At: time.Now().UTC().Truncate(time.Second), Commit: id, Machine: here, Seed: o.seed, Runs: o.runs, Rows: []row{}}
		if s != nil && s.want != e.cfg {
			err := s.close()
			if s = nil; err != nil {
				return err
			}
		}
		if s == nil {
			if s, err = o.open(e.cfg); err != nil {
				return err
			}
		}
		o.say("part %s", e.name)
		bounded, cancel := context.WithTimeoutCause(ctx, partTime, fmt.Errorf("part %s takes longer than %v", e.name, partTime))
		err := e.run(bounded, s, &p)
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			p.Trouble = append(p.Trouble, strings.ReplaceAll(err.Error(), os.TempDir()+"/", "")) // no path of this machine
			o.say("part %s: %v", e.name, err)
			err := s.close() // what it broke may not be whole again
			if s = nil; err != nil {
				return err
			}
		}
		p.Seconds = time.Since(p.At).Seconds()
		if o.rival != "" {
			continue // a part without the others is not the part
		}
		doc.put(p, partNames())
		if err := doc.save(out); err != nil {
			return err
		}
	}
	return nil
}
