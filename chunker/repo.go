package chunker

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/packages"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/progress"
	"github.com/patchmesh/patchmesh/internal/signer"
)

// A repository's metadata is made here, at build time, with the tools of its distribution, so that a node has nothing
// to resolve. All of it is listed in the index, which the bundle's signature covers, and a node verifies every byte
// before its package manager sees the first. The package manager checks once more, by its own means: apt the signature
// of InRelease (signed-by), dnf that of each package (gpgcheck=1), with the keys in the content.

// repoFiles are the names of metadata in each format: a tree that brings its own is refused.
var repoFiles = map[manifest.Format][]string{
	manifest.FormatDeb: {"Packages", "Packages.gz", "Packages.xz", "Release", "Release.gpg", "InRelease", RepoKeyName},
	manifest.FormatRPM: {"repodata"},
}

// packageSuffix is how the packages of a format end.
var packageSuffix = map[manifest.Format]string{manifest.FormatDeb: ".deb", manifest.FormatRPM: ".rpm"}

// checkRepoInput refuses a tree that cannot become a repository.
func checkRepoInput(from string, format manifest.Format, files []source) error {
	n := 0
	for _, f := range files {
		top, _, _ := strings.Cut(f.path, "/")
		if slices.Contains(repoFiles[format], top) || slices.Contains(repoFiles[format], f.path) {
			return refuse(filepath.Join(from, f.path), "is repository metadata, which is made here",
				"build from a directory that holds only the packages")
		}
		if strings.HasSuffix(f.path, packageSuffix[format]) {
			n++
		}
	}
	if n == 0 {
		return refuse(from, "holds no "+packageSuffix[format]+" file", "name the directory that holds the packages")
	}
	return nil
}

// makeRepo writes the metadata of a repository and its packages.json into content.
func (o *BuildOptions) makeRepo(ctx context.Context, content string, created time.Time, l *packages.List) error {
	o.Progress.Stage("metadata", 0, progress.Files)
	var err error
	switch l.Format {
	case manifest.FormatRPM:
		if l.Keys, err = checkRPMSignatures(ctx, content); err == nil {
			err = makeRPMRepo(ctx, content, created)
		}
	case manifest.FormatDeb:
		l.Keys = []string{RepoKeyName}
		err = makeDebRepo(ctx, content, o.Packages.RepoKey)
	}
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(content)
	if err != nil {
		return err
	}
	defer root.Close()
	ps, err := readMetadata(root, l.Format)
	if err != nil {
		return err
	}
	b, err := o.finishList(l, ps)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(content, packages.FileName), b, 0o644); err != nil {
		return err
	}
	o.Progress.Done()
	return nil
}

func makeRPMRepo(ctx context.Context, content string, created time.Time) error {
	_, err := run(ctx, content, nil, "createrepo_c", "createrepo-c",
		"--quiet", "--no-database", "--general-compress-type=gz", "--workers=1",
		"--revision="+strconv.FormatInt(created.Unix(), 10), "--set-timestamp-to-revision", ".")
	return err
}

func makeDebRepo(ctx context.Context, content string, key *signer.KeyFile) error {
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
	list, err := ftparchive("packages", ".")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(content, "Packages"), sortStanzas(list), 0o644); err != nil {
		return err
	}
	release, err := ftparchive("-o", "APT::FTPArchive::Release::Origin=patchmesh", "-o", "APT::FTPArchive::Release::Suite=local-patch",
		"-o", "APT::FTPArchive::Release::Date="+repoDate.Format(releaseDate), "release", ".")
	if err != nil {
		return err
	}
	return signRelease(content, release, key)
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

// run runs a program in dir and returns its standard output, also when it fails.
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
		return stdout.buf.Bytes(), problem.New(problem.InvalidFile, "%s refused the packages: %s", program, bytes.TrimSpace(stderr.buf.Bytes())).
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
	l, err := b.Packages()
	if err != nil {
		return err
	}
	has := make(map[string]bool, len(l.Packages))
	for _, p := range l.Packages {
		has[p.File] = true
	}
	for _, f := range b.Index.Files {
		if strings.HasSuffix(f.Path, packageSuffix[l.Format]) && !has[f.Path] {
			return refuse(f.Path, "is not a package that the repository's tools can read", "replace it by an intact file")
		}
	}
	return b.checkPackages()
}
