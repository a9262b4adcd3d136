package vm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// machine is a fresh machine, or the test is skipped.
func machine(t *testing.T, kind string, disks ...int64) *Machine {
	t.Helper()
	if os.Getenv("PATCHMESH_VM") == "" {
		t.Skip("needs an emulated machine and ten minutes: make vm-test")
	}
	for _, p := range []string{"qemu-system-x86_64", "mmdebstrap", "mkfs." + kind} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: scripts/setup vm", p)
		}
	}
	image, err := Build(t.Context(), filepath.Join(os.TempDir(), "patchmesh-vm"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(t.Context(), image, t.TempDir(), kind, 4<<30, disks...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// longest is what a script may take, with its boots: a machine that hangs must not hang the tests.
const longest = 15 * time.Minute

// boot runs a script that must say "GUEST PASSED".
func boot(t *testing.T, m *Machine, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), longest)
	defer cancel()
	said, err := m.Boot(ctx, script)
	t.Log(said)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said, "\nGUEST PASSED\n") {
		t.Fatal("the guest did not pass")
	}
	return said
}

func TestGuestHasDeviceMapper(t *testing.T) {
	m := machine(t, "ext4")
	boot(t, m, "modprobe dm-thin-pool && dmsetup targets | grep thin-pool && systemctl --version && echo GUEST PASSED\n")
}
