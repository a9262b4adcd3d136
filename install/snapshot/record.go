package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/internal/durable"
)

// record is what a provider notes beside what it keeps.
type record struct {
	ID    string    `json:"id"`
	Begun time.Time `json:"begun"` // before the first look at the machine
	Bytes int64     `json:"bytes"`
	Cross []string  `json:"cross,omitempty"` // mount points that were kept as well
}

const (
	recordName     = "record.json"
	maxRecordBytes = 64 << 10
)

func decodeRecord(b []byte) (record, error) {
	if len(b) > maxRecordBytes {
		return record{}, fmt.Errorf("record: more than %d bytes", maxRecordBytes)
	}
	var r record
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return record{}, fmt.Errorf("record: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return record{}, errors.New("record: more than one document")
	}
	if err := checkID(r.ID); err != nil || r.Bytes < 0 || r.Begun.IsZero() {
		return record{}, errors.Join(errors.New("record: not valid"), err)
	}
	for _, p := range r.Cross {
		if !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
			return record{}, fmt.Errorf("record: mount point %q", p)
		}
	}
	return r, nil
}

// checkID refuses what could be another name than one in the provider's own directory.
func checkID(id string) error {
	if id == "" || len(id) > 100 || strings.HasPrefix(id, "-") || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
		return fmt.Errorf("snapshot %q: not an ID of letters, digits and dashes", id)
	}
	return nil
}

func (r record) write(name string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return durable.WriteFile(name, append(b, '\n'), 0o600)
}

func readRecord(name string) (record, error) {
	f, err := os.Open(name)
	if err != nil {
		return record{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRecordBytes+1))
	if err != nil {
		return record{}, err
	}
	return decodeRecord(b)
}

// private makes a directory that only root looks into.
func private(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// oldestFirst sorts a list.
func oldestFirst(list []Snapshot) []Snapshot {
	slices.SortFunc(list, func(a, b Snapshot) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// unusable is the error of Usable.
func unusable(format string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrUnusable, fmt.Errorf(format, a...))
}
