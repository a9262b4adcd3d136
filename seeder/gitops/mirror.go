package gitops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Limits of one look at a repository.
const (
	DefaultTimeout  = 2 * time.Minute
	DefaultMaxBytes = 1 << 30 // of the mirror
	maxAnswer       = 32 << 20
	watchEvery      = 500 * time.Millisecond
)

// Mirror is a bare copy of one branch.
type Mirror struct {
	Dir        string
	Repository string // https://, ssh://, file:// or a path; may hold a token
	Branch     string
	Timeout    time.Duration // of one call of git; 0: DefaultTimeout
	MaxBytes   int64         // of Dir; 0: DefaultMaxBytes

	sha256 bool // the repository names its objects so
}

// head is the name under which the mirror keeps the branch.
const head = "refs/heads/followed"

// Check says whether the repository and the branch can be followed at all.
func (m *Mirror) Check() error {
	u, err := url.Parse(m.Repository)
	switch {
	case err != nil || m.Repository == "" || strings.ContainsAny(m.Repository, "\x00\n\r\"\\") || strings.HasPrefix(m.Repository, "-"):
		return problem.New(problem.Usage, "git repository %.200q", m.Public())
	case u.Scheme != "https" && u.Scheme != "ssh" && u.Scheme != "file" && !filepath.IsAbs(m.Repository):
		return problem.New(problem.Usage, "git repository %.200q: want https://, ssh:// or file://", m.Public())
	case !validBranch(m.Branch):
		return problem.New(problem.Usage, "git branch %.80q", m.Branch)
	}
	if _, err := exec.LookPath("git"); err != nil {
		return problem.New(problem.MissingTool, "git is not installed").WithNext("apt-get install git, or dnf install git")
	}
	return nil
}

// validBranch is stricter than git-check-ref-format(1).
func validBranch(s string) bool {
	ok := s != "" && len(s) <= 200 && !strings.Contains(s, "..") && !strings.Contains(s, "//") && !strings.HasSuffix(s, ".lock")
	return ok && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-") == "" && !strings.ContainsAny(s[:1], "-./")
}

// Public is the repository without credentials.
func (m *Mirror) Public() string {
	u, err := url.Parse(m.Repository)
	if err != nil {
		return ""
	}
	if u.Scheme == "ssh" && u.User != nil {
		u.User = url.User(u.User.Username())
	} else {
		u.User = nil
	}
	return u.String()
}

// Open makes the mirror, or takes up the one that is there; what a killed git left behind goes.
func (m *Mirror) Open(ctx context.Context) error {
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return fmt.Errorf("git mirror: %w", err)
	}
	if out, err := m.git(ctx, nil, "rev-parse", "--is-bare-repository"); err != nil || strings.TrimSpace(string(out)) != "true" {
		if err := os.RemoveAll(m.Dir); err != nil {
			return fmt.Errorf("git mirror: %w", err)
		}
		if err := os.MkdirAll(m.Dir, 0o700); err != nil {
			return fmt.Errorf("git mirror: %w", err)
		}
		format := "sha1"
		if m.sha256 {
			format = "sha256"
		}
		if _, err := m.git(ctx, nil, "init", "--quiet", "--bare", "--template=", "--object-format="+format, "--initial-branch=followed", "."); err != nil {
			return err
		}
	}
	// The address may hold a token: it stands in a file, not among the arguments that everybody sees.
	format := "\trepositoryformatversion = 0\n"
	if b, err := os.ReadFile(filepath.Join(m.Dir, "config")); err == nil && bytes.Contains(b, []byte("objectformat = sha256")) {
		format = "\trepositoryformatversion = 1\n[extensions]\n\tobjectformat = sha256\n"
	}
	conf := "[core]\n\tbare = true\n" + format + "[remote \"origin\"]\n\turl = \"" + m.Repository + "\"\n"
	if err := durable.WriteFile(filepath.Join(m.Dir, "config"), []byte(conf), 0o600); err != nil {
		return fmt.Errorf("git mirror: %w", err)
	}
	return filepath.WalkDir(m.Dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && (strings.HasSuffix(name, ".lock") || strings.HasPrefix(d.Name(), "tmp_")) {
			err = os.Remove(name)
		}
		return err
	})
}

// Fetch brings the newest state of the branch and returns its commit. An error that is a *problem.Error with
// GitUnreachable means that nothing is known of the branch now.
func (m *Mirror) Fetch(ctx context.Context) (string, error) {
	id, err := m.fetch(ctx)
	if err == nil || !strings.Contains(err.Error(), "mismatched algorithms") {
		return id, err
	}
	m.sha256 = !m.sha256
	if err := os.RemoveAll(m.Dir); err != nil {
		return "", fmt.Errorf("git mirror: %w", err)
	}
	if err := m.Open(ctx); err != nil {
		return "", err
	}
	return m.fetch(ctx)
}

func (m *Mirror) fetch(parent context.Context) (string, error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	var watching sync.WaitGroup
	watching.Go(func() { m.watch(ctx, cancel) }) // the server says how much it sends; nobody else bounds it
	_, err := m.git(ctx, nil, "fetch", "--quiet", "--no-tags", "--no-auto-gc", "--no-recurse-submodules", "--no-write-fetch-head",
		"origin", "+refs/heads/"+m.Branch+":"+head)
	cause := context.Cause(ctx)
	cancel(nil)
	watching.Wait()
	if cause == nil {
		cause = m.tooLarge()
	}
	if cause != nil {
		err = cause
	}
	if err == nil {
		out, err2 := m.git(parent, nil, "rev-parse", "--verify", "--quiet", head+"^{commit}")
		if err2 == nil {
			return strings.TrimSpace(string(out)), nil
		}
		err = err2
	}
	return "", problem.New(problem.GitUnreachable, "%s, branch %s: there is no answer that can be used", m.Public(), m.Branch).
		Because(m.redact(err)).WithDone("nothing was changed; the last good commit stays in force")
}

// watch ends a fetch that grows the mirror above its limit.
func (m *Mirror) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		if err := m.tooLarge(); err != nil {
			cancel(err)
			return
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m *Mirror) tooLarge() error {
	limit := m.MaxBytes
	if limit <= 0 {
		limit = DefaultMaxBytes
	}
	if n := m.bytes(); n > limit {
		return fmt.Errorf("the mirror has %d bytes, at most %d", n, limit)
	}
	return nil
}

func (m *Mirror) bytes() (n int64) {
	_ = filepath.WalkDir(m.Dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it went while we looked
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}

// Descends reports whether b is a, or comes after it. A commit that the branch no longer has is nobody's ancestor.
func (m *Mirror) Descends(ctx context.Context, a, b string) (bool, error) {
	_, err := m.git(ctx, nil, "merge-base", "--is-ancestor", a, b)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &exit) && (exit.ExitCode() == 1 || exit.ExitCode() == 128):
		return false, nil
	}
	return false, err
}

// Touched lists the commits after the one named since, up to at, that changed a file, the newest first; at most ten.
func (m *Mirror) Touched(ctx context.Context, since, at, file string) ([]string, error) {
	span := at
	if since != "" {
		span = since + ".." + at
	}
	out, err := m.git(ctx, nil, "log", "--format=%H", "--max-count=10", span, "--", file)
	return strings.Fields(string(out)), err
}

// git runs one command in the mirror: without the machine's and the user's configuration, without questions, without
// hooks, by three protocols only.
func (m *Mirror) git(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	timeout := m.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	verb := args[0]
	args = append([]string{"-c", "core.hooksPath=/dev/null", "-c", "fetch.fsckObjects=true", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
		"-c", "credential.helper=", "-c", "core.fsync=all"}, args...)
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = m.Dir
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "GIT_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "GIT_DIR=.", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_ALLOW_PROTOCOL=https:ssh:file", "GIT_ASKPASS=true", "GIT_SSH_COMMAND=ssh -oBatchMode=yes", "GIT_NO_REPLACE_OBJECTS=1", "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr limited
	stdout.room, stderr.room = maxAnswer, 4096
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// Its helpers go with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	switch {
	case err == nil && stdout.over:
		return nil, fmt.Errorf("git %s: an answer of more than %d bytes", verb, maxAnswer)
	case err == nil:
		return stdout.Bytes(), nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("git %s: %w", verb, context.Cause(ctx))
	}
	words := strings.TrimSpace(stderr.String())
	if words == "" {
		return nil, fmt.Errorf("git %s: %w", verb, err)
	}
	return nil, fmt.Errorf("git %s: %w: %s", verb, err, words)
}

// redact takes the credentials out of what git says.
func (m *Mirror) redact(err error) error {
	u, parse := url.Parse(m.Repository)
	if parse != nil || u.User == nil {
		return err
	}
	text := strings.ReplaceAll(err.Error(), u.User.String()+"@", "")
	if word, ok := u.User.Password(); ok {
		text = strings.ReplaceAll(text, word, "…")
	}
	return errors.New(text)
}

// limited keeps the beginning of what is written to it.
type limited struct {
	bytes.Buffer
	room int
	over bool
}

func (l *limited) Write(b []byte) (int, error) {
	keep := min(len(b), l.room)
	l.over = l.over || keep < len(b)
	l.room -= keep
	l.Buffer.Write(b[:keep])
	return len(b), nil
}

// objects returns the bytes of the named objects; one that is not there, is of another kind or is too large is an error.
func (m *Mirror) objects(ctx context.Context, kind string, limit int, ids ...string) ([][]byte, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	sizes, err := m.git(ctx, []byte(strings.Join(ids, "\n")+"\n"), "cat-file", "--batch-check=%(objecttype) %(objectsize)")
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(strings.TrimSpace(string(sizes)), "\n") {
		t, size, _ := strings.Cut(line, " ")
		if n, err := strconv.Atoi(size); t != kind || err != nil || n > limit {
			return nil, fmt.Errorf("object %s: %.80q, want a %s of at most %d bytes", ids[min(i, len(ids)-1)], line, kind, limit)
		}
	}
	b, err := m.git(ctx, []byte(strings.Join(ids, "\n")+"\n"), "cat-file", "--batch=%(objectsize)")
	if err != nil {
		return nil, err
	}
	return split(b, len(ids))
}

// split takes an answer of cat-file apart: n objects, each with its size before it.
func split(b []byte, n int) ([][]byte, error) {
	out := make([][]byte, 0, n)
	for range n {
		line, rest, ok := bytes.Cut(b, []byte{'\n'})
		n, err := strconv.Atoi(string(line))
		if !ok || err != nil || n < 0 || n >= len(rest) {
			return nil, errors.New("git cat-file: the answer is cut off")
		}
		out = append(out, rest[:n:n])
		b = rest[n+1:]
	}
	if len(b) > 0 {
		return nil, errors.New("git cat-file: more came than was asked for")
	}
	return out, nil
}
