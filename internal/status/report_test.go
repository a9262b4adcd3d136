package status

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/patchmesh/patchmesh/internal/packages"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain\nand\ttab":        "plain\nand\ttab",
		"Setting up openssl\r\n": "Setting up openssl\n",
		"10%\r20%\rdone":         "10%\n20%\ndone",
		"\x1b[31mred\x1b[0m":     "?[31mred?[0m",
		"a\x00b\xffc":            "a?b?c",
		"Größe \u202Etxt":        "Größe ?txt",
	} {
		if got := Clean(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

// A usual report of as many packages as are allowed keeps all of them, and the log.
func TestUsualReportFits(t *testing.T) {
	b := ReportBody{Site: "site-0417", Node: "pos-01", Seq: 12, Occurred: time.Date(2026, 9, 15, 7, 0, 0, 0, time.UTC), Phase: Installed, Outcome: "success",
		Reason: "Installed", Policy: "retail", Revision: 3, Bundle: "pos-debian12", Version: "2026.09.1", Seconds: 231, Snapshot: "btrfs @patchmesh-20260915T0700",
		Reboot: []string{"linux-image-amd64"}, Log: strings.Repeat("Setting up libsomething1:amd64 (2.5.0-1+deb12u5) ...\n", 70)}
	for i := range 250 {
		b.Packages = append(b.Packages, packages.Change{Name: fmt.Sprintf("libsomething%d", i), Arch: "amd64", From: "2.5.0-1+deb12u2", To: "2.5.0-1+deb12u5"})
	}
	got := b.Fit()
	if len(got.Packages) != MaxReportPackages || got.More != 50 || got.Log != b.Log {
		t.Errorf("%d packages and %d more, %d bytes of log", len(got.Packages), got.More, len(got.Log))
	}
	if len(b.Packages) != 250 || b.More != 0 {
		t.Error("the caller's report was changed")
	}
	b.Packages = b.Packages[:0]
	b.Log = "first\n" + strings.Repeat("x", MaxReportLog-5) + "\nlast\n"
	if got := b.Fit(); got.Log != "last\n" {
		t.Errorf("the log begins in the middle of a line: %.20q", got.Log)
	}
	small := ReportBody{Site: "s", Node: "n", Seq: 1, Phase: Staged, Reason: "Complete"}
	if d := cmp.Diff(small, small.Fit()); d != "" {
		t.Errorf("a small report is changed: %s", d)
	}
}

// Whatever a package manager wrote, the report is within its limits, can be shown, and says how many packages changed.
func TestFit(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 6000), func(b []byte) string { return string(b) }),
		rapid.Map(rapid.IntRange(0, 9000), func(n int) string { return strings.Repeat("<\u2028>", n) }))
	change := rapid.Custom(func(t *rapid.T) packages.Change {
		return packages.Change{Name: text.Draw(t, "name"), Arch: text.Draw(t, "arch"), From: text.Draw(t, "from"), To: text.Draw(t, "to")}
	})
	rapid.Check(t, func(t *rapid.T) {
		b := ReportBody{Site: "s", Node: "n", Seq: 1, Phase: Installed, Reason: text.Draw(t, "reason"), Detail: text.Draw(t, "detail"), Log: text.Draw(t, "log"),
			Snapshot: text.Draw(t, "snapshot"), Reboot: rapid.SliceOfN(text, 0, 20).Draw(t, "reboot"), Packages: rapid.SliceOfN(change, 0, 30).Draw(t, "packages")}
		for range rapid.IntRange(0, 4).Draw(t, "doubled") {
			b.Packages = append(b.Packages, b.Packages...)
		}
		got := b.Fit()
		j, err := json.Marshal(got)
		if err != nil || len(j) > MaxReportBody {
			t.Fatalf("%d bytes, %v", len(j), err)
		}
		if len(got.Packages)+got.More != len(b.Packages) || len(got.Packages) > MaxReportPackages || len(got.Log) > MaxReportLog || len(got.Detail) > MaxReportDetail {
			t.Fatalf("%d of %d packages and %d more, log %d, detail %d", len(got.Packages), len(b.Packages), got.More, len(got.Log), len(got.Detail))
		}
		for _, s := range append([]string{got.Reason, got.Detail, got.Log, got.Snapshot}, got.Reboot...) {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
				t.Fatalf("%q would move a cursor", s)
			}
		}
		if again := got.Fit(); !cmp.Equal(got, again) {
			t.Fatalf("fitted twice: %s", cmp.Diff(got, again))
		}
	})
}
