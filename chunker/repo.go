package chunker

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/progress"
)

// A repository's metadata is made here, at build time, with the tools of its distribution, so that a node has nothing
// to resolve. It is not signed by itself: it is listed in the index, which the bundle's signature covers, a node
// verifies every byte before its package manager sees the first, and a second signature inside the content would
// make the manifest depend on who signs and when. Hence [trusted=yes] for apt and gpgcheck=0 for the repository in dnf.

// repoFiles are the names of metadata in each format: a tree that brings its own is refused.
var repoFiles = map[manifest.Format][]string{
	manifest.FormatDeb: {"Packages", "Packages.gz", "Packages.xz", "Release", "Release.gpg", "InRelease"},
	manifest.FormatRPM: {"repodata"},
}

// packageSuffix is how the packages of a format end.
var packageSuffix = map[manifest.Format]string{manifest.FormatDeb: ".deb", manifest.FormatRPM: ".rpm"}

// checkRepoInput refuses a tree that cannot become a repository.
func checkRepoInput(from string, format manifest.Format, files []source) error {
	packages := 0
	for _, f := range files {
		top, _, _ := strings.Cut(f.path, "/")
		if slices.Contains(repoFiles[format], top) {
			return refuse(filepath.Join(from, f.path), "is repository metadata, which is made here",
				"build from a directory that holds only the packages")
		}
		if strings.HasSuffix(f.path, packageSuffix[format]) {
			packages++
		}
	}
	if packages == 0 {
		return refuse(from, "holds no "+packageSuffix[format]+" file", "name the directory that holds the packages")
	}
	return nil
}

// makeRepo writes the metadata of a repository into content.
func makeRepo(ctx context.Context, content string, format manifest.Format, created time.Time, p *progress.Reporter) error {
	p.Stage("metadata", 0, progress.Files)
	var err error
	switch format {
	case manifest.FormatRPM:
		err = makeRPMRepo(ctx, content, created)
	case manifest.FormatDeb:
		err = makeDebRepo(ctx, content, created)
	}
	if err == nil {
		p.Done()
	}
	return err
}

func makeRPMRepo(ctx context.Context, content string, created time.Time) error {
	_, err := run(ctx, content, nil, "createrepo_c", "createrepo-c",
		"--quiet", "--no-database", "--general-compress-type=gz", "--workers=1",
		"--revision="+strconv.FormatInt(created.Unix(), 10), "--set-timestamp-to-revision", ".")
	return err
}

func makeDebRepo(ctx context.Context, content string, created time.Time) error {
	// The machine's own apt configuration must not decide what is in a bundle. The file lies outside of content.
	conf := content + ".apt.conf"
	if err := os.WriteFile(conf, []byte("Dir::Etc::parts \"/dev/null\";\nDir::Etc::main \"/dev/null\";\n"), 0o644); err != nil {
		return err
	}
	defer os.Remove(conf)
	ftparchive := func(args ...string) ([]byte, error) {
		args = append([]string{"-o", "APT::FTPArchive::MD5=false", "-o", "APT::FTPArchive::SHA1=false", "-o", "APT::FTPArchive::SHA512=false"}, args...)
		return run(ctx, content, []string{"APT_CONFIG=" + conf}, "apt-ftparchive", "apt-utils", args...)
	}
	packages, err := ftparchive("packages", ".")
	if err != nil {
		return err
	}
	packages = sortStanzas(packages)
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz) // without a name and a date
	if _, err := z.Write(packages); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(content, "Packages"), packages, 0o644),
		os.WriteFile(filepath.Join(content, "Packages.gz"), gz.Bytes(), 0o644)); err != nil {
		return err
	}
	release, err := ftparchive("-o", "APT::FTPArchive::Release::Origin=patchmesh", "-o", "APT::FTPArchive::Release::Suite=local-patch",
		"-o", "APT::FTPArchive::Release::Date="+created.Format("Mon, 02 Jan 2006 15:04:05 +0000"), "release", ".")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(content, "Release"), release, 0o644)
}

// sortStanzas puts the paragraphs of a Packages file in an order that does not depend on the file system.
func sortStanzas(b []byte) []byte {
	var stanzas []string
	for s := range strings.SplitSeq(string(b), "\n\n") {
		if s = strings.Trim(s, "\n"); s != "" {
			stanzas = append(stanzas, s+"\n\n")
		}
	}
	slices.Sort(stanzas)
	return []byte(strings.Join(stanzas, ""))
}

// maxToolOutput bounds what is kept of a program's output: the metadata of the largest repository.
const maxToolOutput = 512 << 20

// run runs a program in dir and returns its standard output.
func run(ctx context.Context, dir string, env []string, program, debianPackage string, args ...string) ([]byte, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, problem.New(problem.MissingTool, "%s is not installed, and makes the repository's metadata", program).
			WithDone("nothing was built").WithNext("install it with: apt-get install %s", debianPackage)
	}
	var stdout, stderr limited
	stdout.left, stderr.left = maxToolOutput, 4<<10
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=/nonexistent"}, env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil || stdout.left < 0 {
		return nil, problem.New(problem.InvalidFile, "%s refused the packages: %s", program, bytes.TrimSpace(stderr.buf.Bytes())).
			WithDone("nothing was built").Because(err)
	}
	return stdout.buf.Bytes(), nil
}

// limited keeps the first bytes and drops the rest.
type limited struct {
	buf  bytes.Buffer
	left int // below 0 once something was dropped
}

func (l *limited) Write(b []byte) (int, error) {
	keep := min(len(b), max(l.left, 0))
	l.buf.Write(b[:keep])
	l.left -= len(b)
	return len(b), nil
}

var _ io.Writer = (*limited)(nil)

// checkRepo compares the packages in content with the metadata: the tools leave out what they cannot read.
func checkRepo(b *Bundle) error {
	listed, err := b.Packages()
	if err != nil {
		return err
	}
	has := make(map[string]bool, len(listed))
	for _, p := range listed {
		has[p.File] = true
	}
	for _, f := range b.Index.Files {
		if strings.HasSuffix(f.Path, packageSuffix[b.Manifest.Target.Format]) && !has[f.Path] {
			return refuse(f.Path, "is not a package that the repository's tools can read", "replace it by an intact file")
		}
	}
	if len(listed) == 0 {
		return fmt.Errorf("repository metadata names no package")
	}
	return nil
}
