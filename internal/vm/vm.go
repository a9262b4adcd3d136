// Package vm starts emulated machines: Debian with systemd and its own kernel under qemu without acceleration, for
// what the kernel of a build machine cannot show: LVM thin snapshots, Timeshift, units under a live systemd, a real
// reboot, a real power cut. Building the image takes a minute, a boot half a minute; "make vm-test" runs it.
//
// The image is made once for each list of packages and kept; every machine works on a copy of its own. A guest runs
// one script, as root, after the boot; what it writes to its console comes back. Needs root, for loop mounts. A
// Machine belongs to one goroutine.
package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/internal/durable"
)

// Packages of the image, beside Debian's minimal set.
var packages = []string{
	"systemd-sysv", "udev", "dbus", "kmod", "initramfs-tools", "linux-image-cloud-amd64", "e2fsprogs", "xfsprogs", "btrfs-progs",
	"lvm2", "thin-provisioning-tools", "timeshift", "rsync", "attr", "busybox-static", "ca-certificates", "tzdata",
}

// Suite is the Debian release of the image.
const Suite = "bookworm"

// Image is a root file system as a tarball, with its kernel beside it.
type Image struct{ Tar string }

// Build makes the image in dir, or finds the one that an earlier call made there.
func Build(ctx context.Context, dir string) (Image, error) {
	sum := sha256.Sum256([]byte(Suite + " " + strings.Join(packages, " ")))
	tar := filepath.Join(dir, "patchmesh-vm-"+hex.EncodeToString(sum[:6])+".tar")
	if _, err := os.Stat(tar); err == nil {
		return Image{tar}, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Image{}, err
	}
	tmp := filepath.Join(dir, durable.TempPrefix+filepath.Base(tar))
	defer os.Remove(tmp)
	if err := run(ctx, "mmdebstrap", "--quiet", "--variant=minbase", "--include="+strings.Join(packages, ","), Suite, tmp); err != nil {
		return Image{}, err
	}
	return Image{tar}, durable.Rename(tmp, tar)
}

// Machine is one emulated machine, off or running a script.
type Machine struct {
	dir   string
	disks []string // the first holds the root
}

const rootDisk = "root.img"

// New makes a machine in dir: a root disk of the image with a file system of a kind (ext4, btrfs), and empty disks of the
// given sizes in bytes beside it, which the guest sees as vdb, vdc, …
func New(ctx context.Context, image Image, dir, kind string, rootBytes int64, disks ...int64) (*Machine, error) {
	m := &Machine{dir: dir}
	for i, size := range append([]int64{rootBytes}, disks...) {
		name := rootDisk
		if i > 0 {
			name = fmt.Sprintf("disk%d.img", i)
		}
		if err := sparse(m.path(name), size); err != nil {
			return nil, err
		}
		m.disks = append(m.disks, name)
	}
	if err := run(ctx, "mkfs."+kind, "-q", "-L", "root", m.path(rootDisk)); err != nil {
		return nil, err
	}
	return m, m.Mounted(ctx, func(root string) error {
		if err := run(ctx, "tar", "-xf", image.Tar, "-C", root); err != nil {
			return err
		}
		for _, part := range [][2]string{{"boot/vmlinuz-*", "vmlinuz"}, {"boot/initrd.img-*", "initrd"}} {
			found, err := filepath.Glob(filepath.Join(root, part[0]))
			if err != nil || len(found) != 1 {
				return fmt.Errorf("image has %d files %s", len(found), part[0])
			}
			if err := run(ctx, "cp", found[0], m.path(part[1])); err != nil {
				return err
			}
		}
		return equip(root, kind)
	})
}

// equip writes what makes the guest run its script. The console is the script's alone: a login there would hang it up.
func equip(root, kind string) error {
	files := map[string]string{
		"etc/fstab":    "LABEL=root / " + kind + " noatime 0 0\n",
		"etc/hostname": "guest\n",
		"etc/systemd/system/guest.service": `[Unit]
Description=the script of this boot
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=/bin/sh -c '/root/guest; echo GUEST ENDS; systemctl poweroff --no-block'
`,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	units := filepath.Join(root, "etc/systemd/system")
	if err := os.MkdirAll(filepath.Join(units, "multi-user.target.wants"), 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.Symlink("../guest.service", filepath.Join(units, "multi-user.target.wants/guest.service")),
		os.Symlink("/dev/null", filepath.Join(units, "serial-getty@ttyS0.service")))
}

func (m *Machine) path(name string) string { return filepath.Join(m.dir, name) }

// Mounted calls f with the root file system of a machine that is off, in another goroutine, in whose thread alone the
// file system is mounted: a process that somebody takes into a namespace of its own at that time would hold a mount that
// all see, and the disk would be in use when the machine starts.
func (m *Machine) Mounted(ctx context.Context, f func(root string) error) error {
	err := errors.New("ended from within")
	var done sync.WaitGroup
	done.Go(func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine, and the namespace with the thread
		err = m.mounted(ctx, f)
	})
	done.Wait()
	return err
}

func (m *Machine) mounted(ctx context.Context, f func(root string) error) (err error) {
	at := m.path("mnt")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	if err := run(ctx, "mount", "-o", "loop", m.path(rootDisk), at); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run(context.WithoutCancel(ctx), "umount", at)) }()
	return f(at)
}

// head of every script: in BOOT it is told how many times it was begun, this one included.
const head = `#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
echo GUEST BEGINS
BOOT=$(($(cat /root/boots 2>/dev/null || echo 0) + 1))
echo $BOOT >/root/boots; sync /root/boots
`

// Script is what the guest runs at each boot from now on; the machine is off. When it ends the guest turns itself off.
func (m *Machine) Script(ctx context.Context, script string) error {
	return m.Mounted(ctx, func(root string) error {
		err := os.Remove(filepath.Join(root, "root/boots"))
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return errors.Join(err, os.WriteFile(filepath.Join(root, "root/guest"), []byte(head+script), 0o755))
	})
}

// Boot starts the machine with a script, see Start.
func (m *Machine) Boot(ctx context.Context, script string) (string, error) {
	if err := m.Script(ctx, script); err != nil {
		return "", err
	}
	return m.Start(ctx, nil)
}

// Start starts the machine and waits until it is off; one that starts itself again does so. It returns what the console
// showed from the guest's script on; log gets it all, as it comes, if not nil. When ctx ends the machine loses its power:
// what the guest has not written to its disk is gone.
func (m *Machine) Start(ctx context.Context, log io.Writer) (string, error) {
	args := []string{
		"-accel", "tcg", "-cpu", "max", "-m", "1536", "-smp", "1", "-nodefaults", "-nographic", "-serial", "stdio", "-net", "none",
		"-kernel", m.path("vmlinuz"), "-initrd", m.path("initrd"),
		"-append", "root=LABEL=root rw console=ttyS0 quiet loglevel=3 systemd.show_status=0 mitigations=off",
	}
	for _, d := range m.disks {
		args = append(args, "-drive", "if=virtio,format=raw,cache=writeback,file="+m.path(d))
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var console bytes.Buffer
	file, err := os.Create(m.path("console")) // to look at while it runs
	if err != nil {
		return "", err
	}
	defer file.Close()
	out := io.MultiWriter(&console, file)
	if log != nil {
		out = io.MultiWriter(&console, file, log)
	}
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	_, said, began := strings.Cut(strings.ReplaceAll(console.String(), "\r", ""), "GUEST BEGINS\n")
	switch {
	case ctx.Err() != nil:
		return said, ctx.Err()
	case err != nil:
		return console.String(), fmt.Errorf("qemu: %w", err)
	case !began:
		return console.String(), errors.New("the guest's script did not begin")
	}
	return said, nil
}

func sparse(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}
