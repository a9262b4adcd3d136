package testbed

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What of a bed outlives the process that made it are its namespaces, and disks, which carry its name in the table of
// mounts. Each namespace is written into the bed's file before it is made. The file is locked by the process that uses the bed and by its guard, a second copy of the same program
// that waits for the end of the first, however that comes, and then removes what the file names. A file that nobody
// has locked belongs to a bed whose user and guard were both killed: whoever comes next removes it.
const (
	filesDir  = "/run/patchmesh-testbed"
	turnFile  = ".turn"
	mountsDir = "/run/netns"
	prefix    = "pmbed-"                  // of the namespaces' names
	guardEnv  = "PATCHMESH_TESTBED_GUARD" // the bed to stand guard over
	ready     = "standing guard\n"
)

func mountOf(namespace string) string { return filepath.Join(mountsDir, namespace) }

// Main is what TestMain of a package with beds calls: os.Exit(testbed.Main(m)). It runs the tests, or, in the copy
// of the program that Up starts, stands guard.
func Main(m interface{ Run() int }) int {
	bed := os.Getenv(guardEnv)
	if bed == "" {
		return m.Run()
	}
	if err := standGuard(os.NewFile(3, filepath.Join(filesDir, bed)), os.Stdin, os.Stdout); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// standGuard waits for the end of in, then removes what the bed's file names.
func standGuard(file *os.File, in io.Reader, out io.Writer) error {
	if _, err := io.WriteString(out, ready); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	return remove(file)
}

// guard is the second process as the first sees it.
type guard struct {
	name string
	file *os.File
	cmd  *exec.Cmd
	in   io.Closer
	out  *bufio.Reader
}

// watch makes the bed's file and starts the guard.
func watch(name string) (_ *guard, err error) {
	if os.Getenv(guardEnv) != "" {
		return nil, errors.New("a bed within a guard: call testbed.Main from TestMain")
	}
	if name == "" {
		name = strings.ToLower(rand.Text()[:8])
	}
	g := &guard{name: name}
	if g.file, err = claim(name); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove(g.file))
			g.file.Close()
		}
	}()
	g.cmd = exec.Command("/proc/self/exe", "-test.run=^$")
	g.cmd.Env = append(os.Environ(), guardEnv+"="+name)
	g.cmd.ExtraFiles = []*os.File{g.file}
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // an interrupt from the terminal is for the tests
	if g.in, err = g.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	g.out = bufio.NewReader(out)
	if line, err := g.out.ReadString('\n'); line != ready {
		g.in.Close()
		rest, _ := io.ReadAll(g.out)
		return nil, errors.Join(fmt.Errorf("no guard (does TestMain call testbed.Main?): %s%s", line, rest), err, g.cmd.Wait())
	}
	return g, nil
}

// namespace is the name of a host's namespace.
func (g *guard) namespace(host string) string { return namespaceOf(g.name, host) }

func namespaceOf(bed, host string) string { return prefix + bed + "-" + host }

// note writes a host's namespace down; it is made after that. One that exists belongs to somebody else.
func (g *guard) note(host string) (namespace string, err error) {
	namespace = g.namespace(host)
	if _, err := os.Stat(mountOf(namespace)); !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("namespace %s exists and is not ours", namespace)
	}
	_, err = g.file.WriteString(namespace + "\n")
	return namespace, err
}

// end has the guard remove the bed and waits for it. If the guard is gone it does the same here.
func (g *guard) end() error {
	g.in.Close()
	said, _ := io.ReadAll(g.out)
	err := g.cmd.Wait()
	if err == nil {
		return g.file.Close()
	}
	return errors.Join(fmt.Errorf("guard of bed %s: %w: %s", g.name, err, said), remove(g.file), g.file.Close())
}

// claim removes the beds of processes that were killed together with their guards, then makes the file of a new bed.
// One process at a time does that: the file of a bed that is being made looks like one that was left.
func claim(name string) (f *os.File, err error) {
	if err := os.MkdirAll(filesDir, 0o755); err != nil {
		return nil, err
	}
	turn, err := os.OpenFile(filepath.Join(filesDir, turnFile), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	defer turn.Close()
	if err := unix.Flock(int(turn.Fd()), unix.LOCK_EX); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filesDir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() == turnFile {
			continue
		}
		left, err := openFile(e.Name())
		if err != nil {
			continue // in use, or not a bed's file
		}
		// What cannot be removed is in the way of a bed of the same name only.
		if err := errors.Join(remove(left), left.Close()); err != nil && e.Name() == name {
			return nil, err
		}
	}
	return openFile(name)
}

// openFile opens and locks a bed's file.
func openFile(name string) (*os.File, error) {
	if name == "" || strings.ContainsAny(name, "-/. \n") || len(name) > 32 {
		return nil, fmt.Errorf("bed %q: want a name of at most 32 characters without - / . and blanks", name)
	}
	for {
		f, err := os.OpenFile(filepath.Join(filesDir, name), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			return nil, fmt.Errorf("bed %s is up: %w", name, err)
		}
		opened, err := f.Stat()
		if err == nil {
			var named os.FileInfo
			if named, err = os.Stat(f.Name()); err == nil && os.SameFile(opened, named) {
				return f, nil
			}
		}
		f.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		// Its owner removed it between our opening and locking it: take a new one.
	}
}

// remove takes down what the file of a bed names, and the file. The caller holds its lock.
func remove(f *os.File) error {
	if err := clean(f); err != nil {
		return err
	}
	if err := os.Remove(f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// clean kills what runs in the namespaces that the file names, deletes them and the bed's disks, and empties the file.
func clean(f *os.File) error {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil {
		return err
	}
	own := namespaceOf(filepath.Base(f.Name()), "")
	var names []string
	for line := range bytes.Lines(b) {
		name := strings.TrimSpace(string(line))
		if !strings.HasPrefix(name, own) || strings.ContainsAny(name, "/ ") {
			return fmt.Errorf("bed file %s names %q, which is not one of its namespaces: nothing was touched", f.Name(), name)
		}
		names = append(names, name)
	}
	for _, name := range names {
		if err := empty(name); err != nil {
			return err
		}
	}
	if err := unmount(filepath.Base(f.Name())); err != nil {
		return err
	}
	for _, name := range slices.Backward(names) {
		if _, err := os.Lstat(mountOf(name)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if _, err := command("ip", "netns", "del", name); err != nil {
			return err
		}
	}
	return f.Truncate(0)
}

// empty kills every process in a namespace until there is none.
func empty(namespace string) error {
	for range 500 {
		pids, err := processes(namespace)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, p := range pids {
			if err := unix.Kill(p, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill process %d: %w", p, err)
			}
		}
		<-time.After(10 * time.Millisecond)
	}
	return fmt.Errorf("namespace %s: processes remain after 5 s of kills", namespace)
}
