package vm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// machine is a fresh machine, or the test is skipped.
func machine(t *testing.T, disks ...int64) *Machine {
	t.Helper()
	if os.Getenv("PATCHMESH_VM") == "" {
		t.Skip("needs an emulated machine and ten minutes: make vm-test")
	}
	for _, p := range []string{"qemu-system-x86_64", "mmdebstrap", "mkfs.ext4"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: scripts/setup vm", p)
		}
	}
	image, err := Build(t.Context(), filepath.Join(os.TempDir(), "patchmesh-vm"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(t.Context(), image, t.TempDir(), 4<<30, disks...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// boot runs a script that must say "PASS" and no "FAIL".
func boot(t *testing.T, m *Machine, script string) string {
	t.Helper()
	said, err := m.Boot(t.Context(), script)
	t.Log(said)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said, "PASS") || strings.Contains(said, "FAIL") {
		t.Fatal("the guest did not pass")
	}
	return said
}

func TestGuestHasDeviceMapper(t *testing.T) {
	m := machine(t)
	boot(t, m, "modprobe dm-thin-pool && dmsetup targets | grep thin-pool && systemctl --version | head -1 && echo PASS\n")
}
