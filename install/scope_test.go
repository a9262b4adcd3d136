package install_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/install/installtest"
	"github.com/patchmesh/patchmesh/install/manager/managertest"
	"github.com/patchmesh/patchmesh/install/preflight"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// A key that was taken away after the snapshot does not come back with it: whom to trust is not the machine's state, as
// little as what was installed last.
func TestRollbackKeepsTrust(t *testing.T) {
	t.Parallel()
	p := newPatchBench(t, managertest.Deb(), pair("1.0-1")...)
	set, err := os.ReadFile(p.Config.Trust)
	if err != nil {
		t.Fatal(err)
	}
	p.Config.Trust = filepath.Join(p.Config.Machine, "etc/meshd/trust.json")
	if err := os.MkdirAll(filepath.Dir(p.Config.Trust), 0o755); err != nil {
		t.Fatal(err)
	}
	installtest.WriteFile(t, p.Config.Trust, set)
	motd := filepath.Join(p.Config.Machine, "etc/motd")
	installtest.WriteFile(t, motd, []byte("before"))
	two := p.bundle("2", 2, managertest.Spec{Packages: pair("2.0-1")})
	want(t, p.apply(two), done)

	revoked := p.Keys.Set
	if revoked.Release, err = trust.NewRoleKeys(1, p.Keys.Stranger.Public()); err != nil {
		t.Fatal(err)
	}
	now, err := revoked.Encode()
	if err != nil || bytes.Equal(now, set) {
		t.Fatal("the keys are the same", err)
	}
	installtest.WriteFile(t, p.Config.Trust, now)
	installtest.WriteFile(t, motd, []byte("after"))

	want(t, p.installer().Rollback(t.Context(), "os"), "success 0 RolledBack RolledBackByOperator ")
	if b, err := os.ReadFile(motd); string(b) != "before" || err != nil {
		t.Errorf("nothing was put back: motd %q, %v", b, err)
	}
	if b, err := os.ReadFile(p.Config.Trust); !bytes.Equal(b, now) || err != nil {
		t.Errorf("the key that was taken away is trusted again: %v", err)
	}
	want(t, p.installer().Retry(t.Context(), "os"), "success 0 Installed FailuresForgotten ")
	want(t, p.apply(two), "verification_failure 3 Quarantined SignatureInvalid E2102")
}

// Where servers of either family of distributions keep what people and tills put into them.
func TestDataIsNoState(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{
		"/var/lib/mysql", "/var/lib/mariadb", "/var/lib/postgresql", "/var/lib/pgsql", "/var/lib/mongodb", "/var/lib/mongo", "/var/lib/redis", "/var/lib/valkey",
		"/var/lib/etcd", "/var/lib/rabbitmq", "/var/lib/influxdb", "/var/lib/kubelet", "/var/lib/rancher", "/var/lib/machines", "/var/lib/lxc",
		"/var/lib/samba", "/var/lib/ldap", "/var/lib/dhclient", "/var/www", "/var/crash",
	} {
		if !slices.Contains(install.DefaultExclude(), dir) {
			t.Errorf("%s is kept and put back while a server works in it", dir)
		}
	}
}

// Tries that only wait leave no transcript, and push none out that tells why something failed.
func TestDeferralsKeepTranscripts(t *testing.T) {
	t.Parallel()
	p := newPatchBench(t, managertest.Deb(), pair("1.0-1")...)
	bad := pair("2.0-1")
	bad[0].Post = "echo the till is open >&2; false"
	r := p.apply(p.bundle("2", 2, managertest.Spec{Packages: bad}))
	if r.Outcome != install.InstallFailure {
		t.Fatalf("%+v", r)
	}
	logs := func() (out []string) {
		es, err := os.ReadDir(filepath.Join(p.Config.State, "log"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			out = append(out, e.Name())
		}
		return out
	}
	first := logs()
	p.host.Hook = func(preflight.Call) *preflight.Deferral {
		return &preflight.Deferral{Reason: preflight.HookDeferred, Detail: "selling", Retry: 1e12}
	}
	three := p.bundle("3", 3, managertest.Spec{Packages: pair("3.0-1")})
	for range 3 {
		want(t, p.apply(three), "deferred 1 Deferred HookDeferred ")
	}
	if now := logs(); len(first) != 1 || fmt.Sprint(now) != fmt.Sprint(first) {
		t.Errorf("transcripts %q, then %q", first, now)
	}
}

// A site that names its own data does not give up that of the databases by it.
func TestExcludeAdds(t *testing.T) {
	t.Parallel()
	p := newPatchBench(t, managertest.Deb(), pair("1.0-1")...)
	p.Config.Snapshot.Exclude = []string{"/opt/till/data"}
	data := []string{"opt/till/data/sales", "var/lib/pgsql/16", "var/lib/meshd/record"}
	for _, name := range data {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(p.Config.Machine, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		installtest.WriteFile(t, filepath.Join(p.Config.Machine, name), []byte("one"))
	}
	want(t, p.apply(p.bundle("2", 2, managertest.Spec{Packages: pair("2.0-1")})), done)
	for _, name := range data {
		installtest.WriteFile(t, filepath.Join(p.Config.Machine, name), []byte("one, two"))
	}
	want(t, p.installer().Rollback(t.Context(), "os"), "success 0 RolledBack RolledBackByOperator ")
	for _, name := range data {
		if b, err := os.ReadFile(filepath.Join(p.Config.Machine, name)); string(b) != "one, two" || err != nil {
			t.Errorf("%s was put back: %q, %v", name, b, err)
		}
	}
}

// A script that is told of a lock is a script that failed, in the middle of a transaction: nothing but taking it back makes
// the machine whole. Whoever waits for a lock has touched nothing.
func TestScriptSpeaksOfALock(t *testing.T) {
	debFirst(t, func(t *testing.T, bed managertest.Bed) {
		p := newPatchBench(t, bed, pair("1.0-1")...)
		p.keep()
		bad := pair("2.0-1")
		// The second of the two, so that the first is there already.
		bad[1].Pre = `[ ! -e /usr/share/demo ] || { echo "E: Could not get lock: can't create transaction lock, already locked by 1" >&2; exit 1; }`
		r := p.apply(p.bundle("2", 2, managertest.Spec{Packages: bad}))
		if r.Outcome != install.InstallFailure || r.Reason != install.ReasonScript {
			t.Errorf("%s %s: %s", r.Outcome, r.Reason, r.Detail)
		}
		if d := p.differs(); len(d) > 0 {
			t.Errorf("%s, and the machine is not what it was: %q", r.Outcome, d)
		}
	})
}

// What is left out by the configuration may not take the database of packages with it: the files would go back, and what is
// said to be installed would not.
func TestScopeHoldsTheDatabase(t *testing.T) {
	t.Parallel()
	p := newPatchBench(t, managertest.Deb(), pair("1.0-1")...)
	p.Config.Snapshot.Exclude = []string{"/var"}
	p.keep()
	ps := pair("2.0-1")
	ps[0].Post = "false"
	r := p.apply(p.bundle("2", 2, managertest.Spec{Packages: ps}))
	if d := p.differs(); r.Exit != install.ExitRolledBack || len(r.Changes) > 0 || len(d) > 0 {
		t.Errorf("%+v, %q", r, d)
	}
}
