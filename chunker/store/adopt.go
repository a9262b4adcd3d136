package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/durable"
)

// oldShard is how many letters of a cid named its directory before there were eight directories.
const oldShard = 2

// adopt brings the chunks of a store of that time to where they belong now. A run that is cut is carried on by the next.
// Nothing is flushed at once: a loss of power leaves a chunk at its old place or at the new one.
func (s *Store) adopt() error {
	shards, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, sh := range shards {
		if !sh.IsDir() || len(sh.Name()) != oldShard {
			continue
		}
		old := filepath.Join(s.dir, sh.Name())
		es, err := os.ReadDir(old)
		if err != nil {
			return err
		}
		for _, e := range es {
			name := filepath.Join(old, e.Name())
			if strings.HasPrefix(e.Name(), durable.TempPrefix) {
				err = os.Remove(name)
			} else if id, ok := idOf(sh.Name(), e); ok {
				err = s.move(name, id, e)
			}
			if err != nil {
				return err
			}
		}
		if err := os.Remove(old); err == nil { // what is no chunk keeps it
			s.batch.Touch(s.dir)
		}
	}
	return nil
}

func (s *Store) move(old string, id chunk.ID, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Dir(s.path(id)), 0o755); err == nil {
		s.batch.Touch(s.dir)
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	return s.batch.Place(old, s.path(id), info.Size())
}
