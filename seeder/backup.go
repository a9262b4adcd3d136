package seeder

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/patchmesh/patchmesh/chunker/store"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// A backup is one file: zstd over lines of JSON. The first says what it is and holds the secret files of the state
// directory, those of fleet.Dump follow, the last has the sha256 of all before it. Chunks are not in it.

const (
	backupSchema = "patchmesh.io/seeder-backup/v1"
	maxLine      = 64 << 20 // of the plain text; the largest row is a bundle's
	maxWindow    = 8 << 20  // of zstd
)

// secrets are the files without which every node would have to join again, and the administrator's token.
var secrets = [...]string{"identity.pem", "roster.key", "roster.pub", "admin.token"}

type backupHead struct {
	Schema  string            `json:"schema"`
	Created time.Time         `json:"created"`
	Files   map[string][]byte `json:"files"`
}

type backupEnd struct {
	SHA256  string `json:"sha256"`
	Version int    `json:"version"`
	Rows    int64  `json:"rows"`
}

// BackupResult says what a backup holds.
type BackupResult struct {
	Rows    int64     `json:"rows"`
	Version int       `json:"version"` // of the database
	Created time.Time `json:"created"`
}

// Backup writes the database as it is at one instant, and the secret files of the state directory, to a new file that
// only its owner can read. A seeder may be running. An empty database is the file in the directory.
func Backup(ctx context.Context, dir, database, to string, now time.Time) (res BackupResult, err error) {
	if database == "" {
		database = filepath.Join(dir, databaseFile)
	}
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return res, problem.New(problem.AlreadyExists, "%s is there already", to).WithDone("it was left as it is").WithNext("name another file").Because(err)
	}
	head := backupHead{Schema: backupSchema, Created: now.UTC().Truncate(time.Second), Files: map[string][]byte{}}
	for _, name := range secrets {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return res, problem.New(problem.NotFound, "there is no seeder in %s", dir).Because(err).WithNext("name its directory with --state")
		}
		head.Files[name] = b
	}
	db, err := fleet.View(ctx, database)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = durable.WriteStream(to, 0o600, func(w io.Writer) error {
		z, err := zstd.NewWriter(w, zstd.WithWindowSize(maxWindow))
		if err != nil {
			return err
		}
		sum := sha256.New()
		out := io.MultiWriter(z, sum)
		if err := json.NewEncoder(out).Encode(head); err != nil {
			return err
		}
		version, rows, err := db.Dump(ctx, out)
		if err != nil {
			return err
		}
		res = BackupResult{rows, version, head.Created}
		if err := json.NewEncoder(z).Encode(backupEnd{hex.EncodeToString(sum.Sum(nil)), version, rows}); err != nil {
			return err
		}
		return z.Close()
	})
	return res, err
}

// Restore fills an empty database and an empty state directory from a backup. The whole file is verified before anything
// is written, and what is written is all or nothing. Secret files that are there already must be the same.
func Restore(ctx context.Context, dir, database, from string) (res BackupResult, err error) {
	head, end, err := verifyBackup(from)
	if err != nil {
		return res, err
	}
	if database == "" {
		database = filepath.Join(dir, databaseFile)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return res, problem.New(problem.InvalidFile, "the state directory %s cannot be made", dir).Because(err)
	}
	chunks, err := store.Open(filepath.Join(dir, "store"), store.Options{}) // its lock is the directory's
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, chunks.Close()) }()
	var written []string
	defer func() {
		if err != nil {
			for _, name := range written {
				err = errors.Join(err, os.Remove(name))
			}
		}
	}()
	for _, file := range secrets {
		name := filepath.Join(dir, file)
		old, err := os.ReadFile(name)
		switch {
		case err == nil && bytes.Equal(old, head.Files[file]):
			continue
		case err == nil:
			return res, problem.New(problem.AlreadyExists, "%s is of another seeder", name).WithDone("nothing was restored").WithNext("restore into an empty state directory")
		case !errors.Is(err, fs.ErrNotExist):
			return res, err
		}
		written = append(written, name)
		if err := durable.WriteFile(name, head.Files[file], 0o600); err != nil {
			return res, err
		}
	}
	lines := func(yield func([]byte, error) bool) {
		first := true
		for line, err := range backupLines(from) {
			if err == nil && (first || bytes.HasPrefix(line, []byte(`{"sha256"`))) {
				first = false
				continue
			}
			if !yield(line, err) {
				return
			}
		}
	}
	rows, err := fleet.Restore(ctx, database, end.Version, lines)
	if err == nil && rows != end.Rows {
		err = fmt.Errorf("backup %s changed while it was read", from)
	}
	return BackupResult{rows, end.Version, head.Created}, err
}

// verifyBackup reads the whole file and returns its first and its last line.
func verifyBackup(name string) (head backupHead, end backupEnd, err error) {
	bad := func(err error) error {
		return problem.New(problem.StoreDamaged, "the backup %s is not whole", name).WithDone("nothing was restored").WithNext("use another backup").Because(err)
	}
	sum, n := sha256.New(), 0
	for line, err := range backupLines(name) {
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission):
			return head, end, problem.New(problem.InvalidFile, "%s cannot be read", name).Because(err)
		case err != nil:
			return head, end, bad(err)
		case end.SHA256 != "":
			return head, end, bad(errors.New("something follows its last line"))
		case n == 0:
			err = strictJSON(line, &head)
			if err == nil && head.Schema != backupSchema {
				err = fmt.Errorf("schema %q", head.Schema)
			}
		case bytes.HasPrefix(line, []byte(`{"sha256"`)):
			err = strictJSON(line, &end)
			if got := hex.EncodeToString(sum.Sum(nil)); err == nil && end.SHA256 != got {
				err = fmt.Errorf("its checksum is %s and should be %s", got, end.SHA256)
			}
		}
		if err != nil {
			return head, end, bad(err)
		}
		n++
		sum.Write(line)
		sum.Write([]byte{'\n'})
	}
	if end.SHA256 == "" {
		return head, end, bad(errors.New("its last line is missing"))
	}
	for _, file := range secrets {
		if len(head.Files[file]) == 0 {
			return head, end, bad(fmt.Errorf("%s is missing", file))
		}
	}
	return head, end, nil
}

func strictJSON(line []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	return d.Decode(to)
}

// backupLines reads a backup's lines; each is valid until the next.
func backupLines(name string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		f, err := os.Open(name)
		if err != nil {
			yield(nil, err)
			return
		}
		defer f.Close()
		z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			yield(nil, err)
			return
		}
		defer z.Close()
		s := bufio.NewScanner(z)
		s.Buffer(nil, maxLine)
		for s.Scan() {
			if !yield(s.Bytes(), nil) {
				return
			}
		}
		if err := s.Err(); err != nil {
			yield(nil, err)
		}
	}
}
