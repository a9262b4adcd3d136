package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/armor"

	"github.com/patchmesh/patchmesh/install/manager"
	"github.com/patchmesh/patchmesh/internal/packages"
)

// settings is the private configuration. apt reads the file that APT_CONFIG names before all others, and it switches
// the others off. What of the machine's own configuration counts:
//
//   - preferences and preferences.d, holds, dpkg.cfg and dpkg.cfg.d, foreign architectures: yes. A person has said here
//     what is to happen on this machine, and dpkg's path-exclude says what it has room for.
//   - sources, keys, default release, proxies: no. What is installed comes from the bundle.
//   - apt.conf.d, and with it the hooks before and after dpkg: no. They ask questions (apt-listchanges), want the network
//     (apt-listbugs), take snapshots of their own, or fail when all is done. What whoever runs the machine wants to
//     happen has its place in /etc/meshd/hooks.d.
//
// No check of dates: the order of bundles is decided by signed numbers, and a clock that stands in 1970 or 2099 must
// not keep a machine from its patches (gpgv is called by apt with --ignore-time-conflict). Methods run as root because
// the repository is for root's eyes only, and file: is the only one that a source names. DPkg::Lock::Timeout 0: a lock
// that is held is an answer, not a reason to wait.
const settings = `Dir "@ROOT@/";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "@DIR@/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Dir::State::status "@ROOT@/var/lib/dpkg/status";
Dir::State::lists "@DIR@/lists";
Dir::State::extended_states "@MARKS@";
Dir::Cache "@DIR@/cache";
Dir::Log "@DIR@/log";
Dir::Bin::methods "/usr/lib/apt/methods";
Dir::Bin::dpkg "/usr/bin/dpkg";
DPkg::Options { @OPTIONS@ };
DPkg::Use-Pty "0";
DPkg::Lock::Timeout "0";
DPkg::Progress-Fancy "0";
APT::Sandbox::User "root";
APT::Solver "internal";
APT::Planner "internal";
APT::Color "0";
APT::Install-Recommends "0";
APT::Install-Suggests "0";
APT::Get::AllowUnauthenticated "0";
APT::Get::AutomaticRemove "0";
APT::Get::Always-Include-Phased-Updates "1";
APT::Update::Error-Mode "any";
Acquire::AllowInsecureRepositories "0";
Acquire::AllowWeakRepositories "0";
Acquire::AllowDowngradeToInsecureRepositories "0";
Acquire::Check-Date "0";
Acquire::Check-Valid-Until "0";
Acquire::Languages "none";
Acquire::PDiffs "0";
Acquire::Retries "0";
`

// marksFile is where apt remembers what came in for another package.
const marksFile = "var/lib/apt/extended_states"

// marks says whose file of marks apt works on.
type marks int

const (
	privateMarks marks = iota // a copy: "install name=version" makes every package it names a manual one
	machineMarks
)

// limits of what is read.
const (
	maxKeyBytes   = 1 << 20
	maxStateBytes = 64 << 20
)

// file is one of the private directory.
func (m *Manager) file(name string) string { return filepath.Join(m.c.Dir, name) }

// prepare makes the private directory anew for an order, and has apt read the repository. Lists that were there are
// gone before, so nothing stale can stand in for what fails now.
func (m *Manager) prepare(ctx context.Context, o manager.Order) error {
	m.ready = manager.Order{}
	for _, d := range []string{"lists", "cache", "log", "repo"} {
		if err := os.RemoveAll(m.file(d)); err != nil {
			return fmt.Errorf("apt directory: %w", err)
		}
	}
	if err := m.configure(privateMarks); err != nil {
		return err
	}
	if len(o.List.Keys) == 0 {
		return &manager.Error{Kind: manager.Untrusted, Detail: packages.FileName + " names no key for the repository"}
	}
	ring, err := keyring(o)
	if err == nil {
		err = os.WriteFile(m.file("keyring.gpg"), ring, 0o644)
	}
	// A link of ours, because what stands in a line of sources must not have a blank or a bracket.
	if err == nil {
		err = os.Symlink(o.Repo, m.file("repo"))
	}
	if err != nil {
		return fmt.Errorf("apt repository: %w", err)
	}
	res, err := m.run(ctx, "apt-get", "update")
	if err != nil {
		return cut(err, res)
	}
	if res.Exit == 0 && len(unread(res)) == 0 {
		m.ready = o
		return nil
	}
	e := classify(res)
	if e.Kind == manager.Tool {
		e.Kind = manager.Untrusted // there was only this to be read, and it could not be
	}
	return e
}

// configure writes the configuration and makes the directories that apt wants to find.
func (m *Manager) configure(whose marks) error {
	for _, p := range []string{m.c.Root, m.c.Dir} {
		if !filepath.IsAbs(p) || strings.ContainsAny(p, " \t\n\"\\[]%;,") {
			return fmt.Errorf("apt directory %q: want an absolute path without blanks, quotes, brackets, commas", p)
		}
	}
	for _, d := range []string{"lists/partial", "cache/archives/partial", "log"} {
		if err := os.MkdirAll(m.file(d), 0o700); err != nil {
			return fmt.Errorf("apt directory: %w", err)
		}
	}
	file := m.path(marksFile)
	if whose == privateMarks {
		b, err := readFile(file, maxStateBytes)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("apt marks: %w", err)
		}
		file = m.file("extended_states")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return fmt.Errorf("apt marks: %w", err)
		}
	}
	options := ""
	for _, o := range m.dpkgRoot() {
		options += `"` + o + `"; `
	}
	text := strings.NewReplacer("@ROOT@", strings.TrimSuffix(m.c.Root, "/"), "@DIR@", m.c.Dir, "@MARKS@", file, "@OPTIONS@", options).Replace(settings)
	source := fmt.Sprintf("deb [signed-by=%s] file:%s ./\n", m.file("keyring.gpg"), m.file("repo"))
	for name, content := range map[string]string{"apt.conf": text, "sources.list": source} {
		if err := os.WriteFile(m.file(name), []byte(content), 0o600); err != nil {
			return fmt.Errorf("apt configuration: %w", err)
		}
	}
	return nil
}

// keyring is the keys of a bundle as gpgv reads them: binary, one after the other.
func keyring(o manager.Order) ([]byte, error) {
	root, err := os.OpenRoot(o.Repo)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var ring []byte
	for _, name := range o.List.Keys {
		f, err := root.Open(name)
		if err != nil {
			return nil, err
		}
		b, err := limited(f, maxKeyBytes)
		f.Close()
		if err == nil && bytes.HasPrefix(bytes.TrimSpace(b), []byte("-----BEGIN")) {
			b, err = dearmoured(b)
		}
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", name, err)
		}
		ring = append(ring, b...)
	}
	return ring, nil
}

func dearmoured(b []byte) ([]byte, error) {
	block, err := armor.Decode(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return limited(block.Body, maxKeyBytes)
}

func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return limited(f, limit)
}

func limited(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return b, err
}
