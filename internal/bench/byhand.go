package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/testbed"
)

// byHand brings a bed up and does what a person types until the end of the input or "quit". An interrupt ends the
// process, and the bed's guard takes it down.
func byHand(args []string, in io.Reader, out io.Writer) (err error) {
	f := flag.NewFlagSet("bench bed", flag.ContinueOnError)
	name := f.String("name", "hand", "of the bed")
	sites := f.Int("sites", 1, "sites")
	nodes := f.Int("nodes", 3, "nodes of each site")
	wan := f.Int64("wan", 50, "Mbit/s of each site's WAN")
	lan := f.Int64("lan", 1000, "Mbit/s of each node's port")
	rtt := f.Duration("rtt", 40*time.Millisecond, "round trip over the WAN")
	loss := f.Float64("loss", 0, "share of packets that the WAN loses each way, 0 to 1")
	if err := f.Parse(args); err != nil {
		return err
	}
	if missing := testbed.Missing(); missing != "" {
		return fmt.Errorf("needs %s", missing)
	}
	bed, err := testbed.Up(testbed.Config{
		Name: *name, Sites: *sites, Nodes: *nodes, WAN: testbed.Rate(*wan) * testbed.Mbit, LAN: testbed.Rate(*lan) * testbed.Mbit, RTT: *rtt, Loss: *loss,
	})
	if err != nil {
		return err
	}
	defer func() {
		if e := bed.Down(); err == nil {
			err = e
		}
	}()
	fmt.Fprintf(out, "bed %s is up. A shell in a host, from another terminal:\n", *name)
	for _, h := range [][2]string{{testbed.DC, testbed.DCAddr}, {testbed.DC2, testbed.DC2Addr}, {testbed.Bystander(1), testbed.BystanderAddr(1)}, {testbed.Node(1, 1), testbed.NodeAddr(1, 1)}} {
		fmt.Fprintf(out, "  ip netns exec %s bash   # %s\n", bed.Namespace(h[0]), h[1])
	}
	fmt.Fprint(out, handHelp)
	for lines := bufio.NewScanner(in); lines.Scan() && strings.TrimSpace(lines.Text()) != "quit"; {
		if err := order(bed, strings.Fields(lines.Text()), out); err != nil {
			fmt.Fprintln(out, err)
		}
	}
	return nil
}

const handHelp = `cut S | heal S | loss S SHARE | delay S RTT | wan S MBIT      of a site's WAN
isolate S N | join S N | rate S N MBIT | nodeloss S N SHARE      of a node's cable
block S N... | block S                                           the WAN of these nodes alone | of none
stop HOST | cont HOST | kill HOST                                every process in a host
move dc2 | move dc                                               the data centre's address
stats S | quit
`

// order does one line.
func order(bed *testbed.Bed, words []string, out io.Writer) error {
	if len(words) == 0 {
		return nil
	}
	var bad error
	number := func(i int) int {
		n, err := strconv.Atoi(at(words, i))
		if err != nil {
			bad = fmt.Errorf("%s: word %d is to be a number", words[0], i)
		}
		return n
	}
	share := func(i int) float64 {
		x, err := strconv.ParseFloat(at(words, i), 64)
		if err != nil || x < 0 || x > 1 {
			bad = fmt.Errorf("%s: word %d is to be a share, 0 to 1", words[0], i)
		}
		return x
	}
	var do func() error
	switch words[0] {
	case "cut":
		s := number(1)
		do = func() error { return bed.Cut(s) }
	case "heal":
		s := number(1)
		do = func() error { return bed.Heal(s) }
	case "loss":
		s, x := number(1), share(2)
		do = func() error { return bed.Loss(s, x) }
	case "delay":
		s := number(1)
		rtt, err := time.ParseDuration(at(words, 2))
		if err != nil {
			bad = err
		}
		do = func() error { return bed.Delay(s, rtt) }
	case "wan":
		s, r := number(1), number(2)
		do = func() error { return bed.WANRate(s, testbed.Rate(r)*testbed.Mbit) }
	case "isolate":
		s, n := number(1), number(2)
		do = func() error { return bed.Isolate(s, n) }
	case "join":
		s, n := number(1), number(2)
		do = func() error { return bed.Join(s, n) }
	case "rate":
		s, n, r := number(1), number(2), number(3)
		do = func() error { return bed.NodeRate(s, n, testbed.Rate(r)*testbed.Mbit) }
	case "nodeloss":
		s, n, x := number(1), number(2), share(3)
		do = func() error { return bed.NodeLoss(s, n, x) }
	case "block":
		s := number(1)
		var nodes []int
		for i := range words[min(2, len(words)):] {
			nodes = append(nodes, number(i+2))
		}
		do = func() error { return bed.Block(s, nodes...) }
	case "stop":
		do = func() error { return bed.Stop(at(words, 1)) }
	case "cont":
		do = func() error { return bed.Cont(at(words, 1)) }
	case "kill":
		do = func() error { return bed.Kill(at(words, 1)) }
	case "move":
		do = func() error { return bed.Move(at(words, 1)) }
	case "stats":
		s := number(1)
		do = func() error {
			st, err := bed.Stats(s)
			if err == nil {
				fmt.Fprintf(out, "WAN down %d bytes, up %d\n", st.DownArrived, st.UpSent)
				for i, n := range st.Nodes {
					fmt.Fprintf(out, "node %d: WAN down %d up %d, port received %d sent %d\n", i+1, n.WANDown, n.WANUp, n.LANReceived, n.LANSent)
				}
			}
			return err
		}
	default:
		return fmt.Errorf("%s is not known here\n%s", words[0], handHelp)
	}
	if bad != nil {
		return bad
	}
	return do()
}

// at is a word, or nothing.
func at(words []string, i int) string {
	if i < len(words) {
		return words[i]
	}
	return ""
}
