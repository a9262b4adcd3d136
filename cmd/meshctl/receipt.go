package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// Limits of a file of receipts.
const (
	maxReceiptLine = 128 << 10 // bytes: a body, decoded and encoded, twice over
	maxReceipts    = 1 << 20
)

func newHistory(env cli.Env) *cobra.Command {
	f := &receiptFlags{server: server{env: env}}
	c := &cobra.Command{
		Use:     "history SITE/NODE",
		Short:   "show the receipts of a node, the newest last",
		Example: `  meshctl history store-0417/pos-03`,
		Args:    cli.Args(1, 1, "SITE/NODE"),
		RunE:    f.history,
	}
	f.addFlags(c, callTimeout)
	f.out.addFlags(c, "table", "json", "jsonl")
	return c
}

func newReceipt(env cli.Env) *cobra.Command {
	c := &cobra.Command{Use: "receipt", Short: "export receipts, and verify them without the seeder"}
	f := &receiptFlags{server: server{env: env}}
	export := &cobra.Command{
		Use:     "export SITE/NODE",
		Short:   "write the receipts of a node as JSON lines, with all that a stranger needs",
		Example: `  meshctl receipt export store-0417/pos-03 > pos-03.receipts`,
		Args:    cli.Args(1, 1, "SITE/NODE"),
		RunE:    f.export,
	}
	f.addFlags(export, callTimeout)
	var key string
	verify := &cobra.Command{
		Use:   "verify FILE",
		Short: "verify signatures and chains of exported receipts, offline",
		Long: `Verify checks each signature with the node's public key, that each receipt names
the one before, and that none is missing. It asks nobody. The key is the peer ID;
without --key it is taken from the file, and then says only that the file agrees
with itself: compare it with what "meshctl status SITE/NODE -o json" says.`,
		Example: `  meshctl receipt verify pos-03.receipts --key 12D3KooW...`,
		Args:    cli.Args(1, 1, "FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := os.Open(args[0])
			if err != nil {
				return problem.New(problem.InvalidFile, "receipts %s", args[0]).Because(err)
			}
			defer r.Close()
			return verifyReceipts(env.Stdout, r, key)
		},
	}
	verify.Flags().StringVar(&key, "key", "", "the peer ID that all must be signed by")
	c.AddCommand(export, verify)
	return c
}

// receiptFlags of commands that read receipts of a node from the seeder.
type receiptFlags struct {
	server
	out output
}

// all reads every receipt of a node, in the order of its chains.
func (f *receiptFlags) all(c *cobra.Command, args []string) ([]api.RecordedReceipt, error) {
	site, node, err := oneNode(c, args)
	if err != nil {
		return nil, err
	}
	client, err := f.client()
	if err != nil {
		return nil, err
	}
	var out []api.RecordedReceipt
	for after := int64(0); len(out) < maxReceipts; {
		page, err := f.page(c.Context(), client, api.ReceiptQuery{Site: site, Node: node, After: after, Limit: 200})
		if err != nil {
			return nil, err
		}
		if len(page.Receipts) == 0 {
			break
		}
		out, after = append(out, page.Receipts...), page.Next
	}
	if len(out) == 0 {
		return nil, problem.New(problem.NotFound, "there are no receipts of %s/%s", site, node)
	}
	keys := map[string]int{} // a name that another machine took over has two chains: the older one first
	for i, r := range out {
		if _, ok := keys[r.PeerID]; !ok {
			keys[r.PeerID] = i
		}
	}
	slices.SortStableFunc(out, func(a, b api.RecordedReceipt) int {
		return cmp.Or(cmp.Compare(keys[a.PeerID], keys[b.PeerID]), cmp.Compare(number(a), number(b)))
	})
	return out, nil
}

func number(r api.RecordedReceipt) uint64 {
	if r.Body.Receipt == nil {
		return 0
	}
	return r.Body.Receipt.Number
}

func (f *receiptFlags) page(ctx context.Context, client *api.Client, q api.ReceiptQuery) (api.ReceiptPage, error) {
	ctx, cancel := f.within(ctx)
	defer cancel()
	return client.Receipts(ctx, q)
}

func (f *receiptFlags) export(c *cobra.Command, args []string) error {
	rs, err := f.all(c, args)
	if err != nil {
		return err
	}
	return receiptLines(f.env.Stdout, rs)
}

func receiptLines(w io.Writer, rs []api.RecordedReceipt) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, r := range rs {
		if err := e.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

func (f *receiptFlags) history(c *cobra.Command, args []string) error {
	if err := f.out.check(c); err != nil {
		return err
	}
	rs, err := f.all(c, args)
	if err != nil {
		return err
	}
	switch f.out.format {
	case "json":
		return json.NewEncoder(f.env.Stdout).Encode(rs)
	case "jsonl":
		return receiptLines(f.env.Stdout, rs)
	}
	t := tabwriter.NewWriter(f.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NUMBER\tENDED\tRECORDED\tBUNDLE\tFROM\tNOW\tOUTCOME\tREASON\tPOLICY\tRECEIPT")
	for _, r := range rs {
		x := r.Body.Receipt
		if x == nil {
			continue
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.Number, x.Ended.UTC().Format(time.RFC3339), r.Recorded.UTC().Format(time.RFC3339),
			r.Body.Bundle, versionOf(x.From), versionOf(x.Now), r.Body.Outcome, r.Body.Reason, dash(r.Body.Policy), r.Hash.Short())
	}
	return t.Flush()
}

func versionOf(b *status.ReceiptBundle) string {
	if b == nil {
		return "-"
	}
	return b.Version
}

// readReceipts reads what export wrote. Only what is signed is used of it, and the key's name.
func readReceipts(r io.Reader) (map[string][]status.Link, error) {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxReceiptLine)
	out := map[string][]status.Link{}
	for n := 1; s.Scan(); n++ {
		if n > maxReceipts {
			return nil, fmt.Errorf("more than %d lines", maxReceipts)
		}
		var x struct {
			PeerID string        `json:"peerId"`
			Signed status.Report `json:"signed"`
		}
		err := json.Unmarshal(s.Bytes(), &x)
		var l status.Link
		if err == nil {
			l, err = status.NewLink(x.Signed)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		out[x.PeerID] = append(out[x.PeerID], l)
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, errors.New("it holds no receipts")
	}
	return out, nil
}

func verifyReceipts(w io.Writer, r io.Reader, want string) error {
	chains, err := readReceipts(r)
	if err != nil {
		return problem.New(problem.SignatureInvalid, "the file holds something else than receipts").Because(err)
	}
	wrong := 0
	for _, id := range slices.Sorted(maps.Keys(chains)) {
		links := chains[id]
		faults := []error{}
		if want != "" && id != want {
			faults = append(faults, fmt.Errorf("the key is %s, wanted is %s", id, want))
		}
		key, err := api.ParsePeerID(id)
		if err != nil {
			faults = append(faults, err)
		}
		faults = append(faults, status.VerifyChain(key, links, true)...)
		fmt.Fprintf(w, "%s  %d receipts of %s/%s, %d wrong\n", id, len(links), links[0].Signed.Site, links[0].Signed.Node, len(faults))
		for _, f := range faults {
			fmt.Fprintf(w, "  %v\n", f)
		}
		wrong += len(faults)
	}
	if wrong > 0 {
		return problem.New(problem.SignatureInvalid, "%d things are wrong with the receipts", wrong).
			WithNext("export them again, and ask the node for its own: STATE/receipts")
	}
	if want == "" {
		fmt.Fprintln(w, "the keys are those that the file names: compare them with --key")
	}
	return nil
}
