package testbed

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// openTUN makes a TUN interface in a namespace. It lives as long as its file descriptor is open: that of a killed
// process is gone at once.
func openTUN(namespace, name string) (fd int, err error) {
	err = inside(namespace, func() error {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return fmt.Errorf("/dev/net/tun: %w", err)
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			unix.Close(fd)
			return fmt.Errorf("interface %s: %w", name, err)
		}
		return nil
	})
	return fd, err
}
