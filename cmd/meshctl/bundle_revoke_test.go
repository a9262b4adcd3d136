package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/revocation"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Revoking a bundle from the command line, against a real seeder: who may, what is refused from then on, with which code,
// and what it was before (the control).
func TestBundleRevoke(t *testing.T) {
	o := newOffice(t, time.Hour)
	o.write("app/hello", "hello\n")
	o.write("app2/hello", "hello again\n")
	build := "bundle build --name app --format files --target-os any "
	o.good(build + "--version 1.0 --sequence 1 --from app --key release.key")
	o.good(build + "--version 1.1 --sequence 2 --from app2 --key release.key")
	o.policy("app.yaml", "1.0", "app-1.0.bundle")
	o.policy("app2.yaml", "1.1", "app-1.1.bundle")
	o.good("bundle push app-1.0.bundle")
	o.good("bundle push app-1.1.bundle")
	o.good("apply -f app.yaml --key operator.key")
	o.good("apply -f app2.yaml --key operator.key")
	o.good("lint -f app.yaml")
	unknown := "sha256:" + strings.Repeat("ab", 32)

	for _, c := range []struct {
		line           string
		exit           problem.Exit
		stdout, stderr string
	}{
		{"bundle revocations", 0, `^BUNDLE +VERSION`, ""},
		{"bundle revoke 1.0 --key operator.key", 2, ``, `no reason`},
		{"bundle revoke 9.9 --reason freeze --key operator.key", 10, ``, `E1204.*no bundle 9.9`},
		{"bundle revoke " + unknown + " --reason freeze --key operator.key", 10, ``, `E1204`},
		{"bundle revoke 1.0 --reason freeze", 2, ``, `no key`},
		{"bundle revoke 1.0 --reason freeze --key release.key", 5, ``, `E2102`},
		{"bundle revoke 1.0 --reason freeze --key stranger.key", 5, ``, `E2102`},
		{"bundle revoke 1.0 --reason freeze --dry-run", 0, `^would revoke app 1.0 sha256:`, ""},
		{"bundle list", 0, `app +1.0 .* committed`, ""},
		{"bundle revoke 1.0 --reason freeze --key operator.key", 0, `^revoked app 1.0 sha256:`, ""},
		{"bundle revoke 1.0 --reason freeze --key operator.key", 0, `app 1.0 was revoked on .*: freeze`, ""},
		{"bundle list", 0, `(?s)app +1.1 .* committed.*app +1.0 .* revoked`, ""},
		{"bundle list --json", 0, `"revoked": "freeze"`, ""},
		{"bundle revocations", 0, `app +1.0 +20.*freeze +sha256:`, ""},

		{"apply -f app.yaml --key operator.key", 5, ``, `E2113.*app 1.0 .* was revoked on .*: freeze`},
		{"diff -f app.yaml", 5, `conflicts +0 +downgrades 0 +revoked 1`, `E2113.*freeze`},
		{"diff -f app2.yaml", 0, `nothing changes`, ""},
		{"rollout undo app --key operator.key --yes", 5, ``, `E2113`},
		{"policy get app", 0, `1.1`, ""},

		{"bundle revoke " + unknown + " --reason stolen --bundle app --version 6.6 --key operator.key --json", 0, `"version": "6.6"`, ""},
		{"bundle revoke 1.1 --reason late --key operator.key", 0, `named by policy app, whose nodes do not start`, ""},
		{"bundle export app-1.1.bundle --policy app --out with.mesh", 0, `1 policy`, ""},
		{"bundle export app-1.1.bundle --out without.mesh", 0, `0 policies`, ""},
		{"bundle export app-1.1.bundle --revocations --out list.mesh", 0, `0 policies`, ""},
		{"explain E2113", 0, `cannot be taken\s+back`, ""},
	} {
		exit, out, errs := o.run(c.line)
		if exit != c.exit || !regexp.MustCompile(c.stdout).MatchString(out) || !regexp.MustCompile(c.stderr).MatchString(errs) {
			t.Errorf("meshctl %s: exit status %d, want %d\n%s%s", c.line, exit, c.exit, out, errs)
		}
	}
	for name, want := range map[string]bool{"with.mesh": true, "without.mesh": false, "list.mesh": true} {
		b, err := os.ReadFile(name)
		if err != nil || strings.Contains(string(b), "revocations.json.asc") != want {
			t.Errorf("%s carries the list: %v (%v)", name, !want, err)
		}
	}

	// What another key has signed is not signed again unseen: not a list that the seeder has made up either.
	doc, err := (*revocation.List)(nil).Add(revocation.Bundle{Bundle: "app", Version: "9", Checksum: manifest.DigestOf(nil), Revoked: revocation.Timestamp(time.Now()), Reason: "x"}, time.Now()).Encode()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := signer.FromKeyFile("stranger.key", nil)
	if err != nil {
		t.Fatal(err)
	}
	operator, err := signer.FromKeyFile("operator.key", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, by := range []*signer.KeyFile{stranger, operator} {
		sig, err := by.Sign(t.Context(), doc)
		if err != nil {
			t.Fatal(err)
		}
		now := api.Revocations{Sequence: 1, Document: &trust.Signed{Doc: doc, Sig: sig}}
		for _, yes := range []bool{false, true} {
			f := &revoke{yes: yes}
			f.env = cli.System()
			if l, err := f.base(now, operator.Public()); (err == nil) != (yes || by == operator) || err == nil && len(l.Bundles) != 1 {
				t.Errorf("signed by %s, yes %v: %+v, %v", by.Fingerprint(), yes, l, err)
			}
		}
	}

	// Lint takes the list from a file, without a network.
	o.write("revocations.json", o.good("bundle revocations -o json"))
	o.env = map[string]string{}
	for _, c := range []struct {
		line   string
		exit   problem.Exit
		stderr string
	}{
		{"lint -f app.yaml", 0, ``},
		{"lint -f app.yaml --revocations revocations.json", 5, `E2113`},
		{"lint -f app.yaml --revocations app.yaml", 2, `E1002`},
		{"lint -f app.yaml --revocations nowhere", 2, `E1002`},
		{"bundle verify app-1.0.bundle --key release.gpg", 0, ``},
		{"bundle verify app-1.0.bundle --key release.gpg --revocations revocations.json", 5, `E2113`},
	} {
		if exit, out, errs := o.run(c.line); exit != c.exit || !regexp.MustCompile(c.stderr).MatchString(errs) {
			t.Errorf("meshctl %s: exit status %d, want %d\n%s%s", c.line, exit, c.exit, out, errs)
		}
	}
}
