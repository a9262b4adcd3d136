package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// exported are receipts of one node as "receipt export" writes them.
func exported(t testing.TB, key ed25519.PrivateKey, count int) []string {
	t.Helper()
	var last *manifest.Digest
	var rs []api.RecordedReceipt
	for i := range uint64(count) {
		body, err := json.Marshal(status.ReportBody{Site: "s1", Node: "n1", Seq: i + 1, Phase: status.Installed, Outcome: "success",
			Receipt: &status.Receipt{Number: i + 1, Previous: last, Ended: time.Unix(int64(i), 0).UTC()}})
		if err != nil {
			t.Fatal(err)
		}
		l, err := status.NewLink(status.Report{Site: "s1", Node: "n1", Seq: i + 1, Body: body, Sig: ed25519.Sign(key, body)})
		if err != nil {
			t.Fatal(err)
		}
		last = &l.Hash
		rs = append(rs, api.RecordedReceipt{Hash: l.Hash, PeerID: api.PeerID(key.Public().(ed25519.PublicKey)), Body: l.Body, Signed: l.Signed})
	}
	var b bytes.Buffer
	if err := receiptLines(&b, rs); err != nil {
		t.Fatal(err)
	}
	return slices.Collect(strings.Lines(b.String()))
}

var receiptKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

func TestVerifyReceipts(t *testing.T) {
	id := api.PeerID(receiptKey.Public().(ed25519.PublicKey))
	for _, tt := range []struct {
		what   string
		change func([]string) []string
		key    string
		good   bool
	}{
		{"as exported", func(ls []string) []string { return ls }, id, true},
		{"without a key", func(ls []string) []string { return ls }, "", true},
		{"another key", func(ls []string) []string { return ls }, id[:len(id)-1] + "z", false},
		{"one missing", func(ls []string) []string { return slices.Delete(ls, 1, 2) }, id, false},
		{"reordered", func(ls []string) []string { ls[1], ls[2] = ls[2], ls[1]; return ls }, id, false},
		{"a bit flipped", func(ls []string) []string {
			var r api.RecordedReceipt
			if err := json.Unmarshal([]byte(ls[1]), &r); err != nil {
				t.Fatal(err)
			}
			r.Signed.Sig[0] ^= 1
			b, _ := json.Marshal(r)
			ls[1] = string(b) + "\n"
			return ls
		}, id, false},
		{"empty", func([]string) []string { return nil }, id, false},
		{"rubbish", func([]string) []string { return []string{"{}\n"} }, id, false},
		{"a line without end", func([]string) []string { return []string{strings.Repeat("x", maxReceiptLine+1)} }, id, false},
	} {
		var out strings.Builder
		err := verifyReceipts(&out, strings.NewReader(strings.Join(tt.change(exported(t, receiptKey, 4)), "")), tt.key)
		if (err == nil) != tt.good || err != nil && problem.ExitOf(err) != problem.ExitVerification {
			t.Errorf("%s: %v\n%s", tt.what, err, &out)
		}
	}
}

func FuzzReadReceipts(f *testing.F) {
	f.Add([]byte(exported(f, receiptKey, 1)[0]))
	f.Add([]byte(`{"peerId":"x","signed":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if chains, err := readReceipts(bytes.NewReader(b)); err == nil && len(chains) == 0 {
			t.Error("nothing, and no error")
		}
	})
}

// The page for strangers says how to verify a receipt without our program: its commands do.
func TestStrangerVerifies(t *testing.T) {
	for tool, pkg := range map[string]string{"openssl": "openssl", "python3": "python3", "jq": "jq"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool + ": apt-get install " + pkg)
		}
	}
	page, err := os.ReadFile("../../docs/receipts.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```sh\n")
	script, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("the page has no commands")
	}
	run := func(lines []string) (string, error) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "pos-03.receipts"), []byte(strings.Join(lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "KEY="+api.PeerID(receiptKey.Public().(ed25519.PublicKey)))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	good := exported(t, receiptKey, 3)
	if out, err := run(good); err != nil || strings.Count(out, "Signature Verified Successfully") != 3 {
		t.Errorf("%v\n%s", err, out)
	}
	// Positive controls: one that another key signed, and one missing.
	other := exported(t, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), 3)
	if out, err := run(other); err == nil {
		t.Errorf("another key's are taken\n%s", out)
	}
	if out, err := run(slices.Delete(slices.Clone(good), 1, 2)); err == nil {
		t.Errorf("a gap is not seen\n%s", out)
	}
}
