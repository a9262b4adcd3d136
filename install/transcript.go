package install

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/patchmesh/patchmesh/install/release"
)

// Bounds of what package managers say.
const (
	maxTranscripts     = 20       // kept, the newest
	maxTranscriptBytes = 16 << 20 // of one; what comes after is dropped
)

// transcript is STATE/log/ID.log: everything that the tools said while they changed the machine, over all runs of one
// transaction. It is not flushed: it is for people.
type transcript struct {
	name string
	file *os.File
	room int64
	on   bool // what is asked before and after is not written down
}

func openTranscript(dir, id string) (*transcript, error) {
	if err := release.MakeDir(dir); err != nil {
		return nil, err
	}
	w := &transcript{name: filepath.Join(dir, id+".log"), room: maxTranscriptBytes}
	fi, err := os.Stat(w.name)
	if err == nil {
		w.room -= fi.Size()
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return w, nil
}

// Write never fails: a log that is full must not stop a transaction.
func (w *transcript) Write(p []byte) (int, error) {
	n := min(int64(len(p)), w.room)
	if !w.on || n <= 0 {
		return len(p), nil
	}
	if w.file == nil { // not before there is something to say: a try that only waits must push none out that is of use
		f, err := os.OpenFile(w.name, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
		if err != nil {
			return len(p), nil //nolint:nilerr // see above
		}
		w.file = f
	}
	_, _ = w.file.Write(p[:n])
	w.room -= n
	return len(p), nil
}

// has reports whether the tools said something.
func (w *transcript) has(text string) bool {
	b, err := os.ReadFile(w.name)
	return err == nil && bytes.Contains(b, []byte(text))
}

func (w *transcript) close() {
	if w.file != nil {
		w.file.Close()
	}
}

// pruneTranscripts removes all but the newest.
func pruneTranscripts(dir string) error {
	es, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	type entry struct {
		name string
		at   int64
	}
	var all []entry
	for _, e := range es {
		if fi, err := e.Info(); err == nil {
			all = append(all, entry{e.Name(), fi.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Compare(b.at, a.at) })
	for _, e := range all[min(len(all), maxTranscripts):] {
		if err := os.Remove(filepath.Join(dir, e.name)); err != nil {
			return err
		}
	}
	return nil
}
