package vm

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// snapshots puts the tests of the snapshot providers into a machine, as /root/snapshot.test.
func snapshots(t *testing.T, m *Machine) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "snapshot.test")
	cmd := exec.Command("go", "test", "-c", "-o", name, "github.com/patchmesh/patchmesh/install/snapshot")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	err := m.Mounted(t.Context(), func(root string) error {
		return run(t.Context(), "cp", name, filepath.Join(root, "root/snapshot.test"))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A thin volume with ext4, then with xfs, is a machine's root: kept, changed in every way, put back to the byte; and a
// pool that is too small is seen before it is full.
func TestThinSnapshots(t *testing.T) {
	m := machine(t, "ext4", 1<<30)
	snapshots(t, m)
	boot(t, m, `
modprobe dm-thin-pool
pvcreate -q /dev/vdb && vgcreate -q vg0 /dev/vdb && lvcreate -q --type thin-pool -L 380m -n pool vg0 || exit
mkdir -p /mnt/m
for kind in ext4 xfs; do
	lvcreate -q -V 700m --thinpool vg0/pool -n $kind vg0 && mkfs.$kind -q /dev/vg0/$kind && mount /dev/vg0/$kind /mnt/m || exit
	PATCHMESH_VM_ROOT=/mnt/m /root/snapshot.test -test.v -test.count=1 -test.run 'TestThinOn$' || exit
	lvs -a -o lv_name,segtype,origin,data_percent,lv_tags vg0
	umount /mnt/m && lvremove -q -y vg0/$kind || exit
done
echo GUEST PASSED
`)
}

// Timeshift keeps the running machine on a device of its own, with rsync; not all of it, which would take minutes.
func TestTimeshift(t *testing.T) {
	m := machine(t, "ext4", 3<<30)
	snapshots(t, m)
	boot(t, m, `
mkfs.ext4 -q /dev/vdb && udevadm settle || exit
mkdir -p /etc/timeshift
cat >/etc/timeshift/timeshift.json <<END
{"backup_device_uuid": "$(blkid -s UUID -o value /dev/vdb)", "parent_device_uuid": "", "do_first_run": "false", "btrfs_mode": "false",
 "include_btrfs_home_for_backup": "false", "include_btrfs_home_for_restore": "false", "stop_cron_emails": "true",
 "schedule_monthly": "false", "schedule_weekly": "false", "schedule_daily": "false", "schedule_hourly": "false", "schedule_boot": "false",
 "count_monthly": "2", "count_weekly": "3", "count_daily": "5", "count_hourly": "6", "count_boot": "5",
 "exclude": ["/home/**", "/root/**", "/boot/**", "/usr/share/**", "/usr/lib/modules/**", "/usr/lib/x86_64-linux-gnu/**"], "exclude-apps": []}
END
PATCHMESH_VM_ROOT=/ /root/snapshot.test -test.v -test.count=1 -test.run 'TestTimeshiftOn$' && echo GUEST PASSED
`)
}
