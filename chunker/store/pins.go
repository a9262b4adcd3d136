package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/patchmesh/patchmesh/internal/chunk"
	"github.com/patchmesh/patchmesh/internal/durable"
)

// maxPinBytes bounds a pin file: an index of the largest size names fewer chunks than fit in it.
const maxPinBytes = 64 << 20

var ownerRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)

// Pin replaces the list of chunks that owner needs; they are never evicted until Unpin. They need not be held yet:
// pin a bundle before its first chunk is put. An owner is 1 to 128 letters, digits and . _ : - characters, for
// example a bundle's checksum. The pins are durable when Pin returns.
func (s *Store) Pin(owner string, ids []chunk.ID) error {
	if !ownerRE.MatchString(owner) {
		return fmt.Errorf("pin owner %.140q: want letters, digits and . _ : -, at most 128", owner)
	}
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b chunk.ID) int { return slices.Compare(a[:], b[:]) })
	ids = slices.Compact(ids)
	s.pinning.Lock()
	defer s.pinning.Unlock()
	if err := durable.WriteFile(s.pinPath(owner), encodePins(ids), 0o644); err != nil {
		return mapError(fmt.Errorf("pin %s: %w", owner, err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setPins(owner, ids)
	return nil
}

// Unpin forgets an owner; one that has no pins is no error. Nothing is evicted until GC or the quota wants it.
func (s *Store) Unpin(owner string) error {
	if !ownerRE.MatchString(owner) {
		return fmt.Errorf("pin owner %.140q: want letters, digits and . _ : -, at most 128", owner)
	}
	s.pinning.Lock()
	defer s.pinning.Unlock()
	if err := durable.Remove(s.pinPath(owner)); err != nil {
		return fmt.Errorf("unpin %s: %w", owner, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setPins(owner, nil)
	delete(s.pins, owner)
	return nil
}

// Owners lists who holds pins, sorted.
func (s *Store) Owners() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	owners := make([]string, 0, len(s.pins))
	for o := range s.pins {
		owners = append(owners, o)
	}
	slices.Sort(owners)
	return owners
}

func (s *Store) pinPath(owner string) string { return filepath.Join(s.dir, pinsName, owner) }

func (s *Store) setPins(owner string, ids []chunk.ID) {
	for _, id := range s.pins[owner] {
		if s.pinned[id]--; s.pinned[id] == 0 {
			delete(s.pinned, id)
		}
	}
	for _, id := range ids {
		s.pinned[id]++
	}
	s.pins[owner] = ids
	delete(s.unusable, owner)
}

// loadPins reads all pin files. One that cannot be read stops eviction, not the store: its owner will pin again.
func (s *Store) loadPins() error {
	dir := filepath.Join(s.dir, pinsName)
	if err := durable.Sweep(dir); err != nil {
		return err
	}
	es, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range es {
		if !ownerRE.MatchString(e.Name()) {
			continue // not ours: Fsck names it
		}
		ids, err := readPins(filepath.Join(dir, e.Name()))
		if err != nil {
			s.unusable[e.Name()] = true
			continue
		}
		s.setPins(e.Name(), ids)
	}
	return nil
}

func readPins(name string) ([]chunk.ID, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPinBytes+1))
	if err != nil {
		return nil, err
	}
	return decodePins(b)
}

// encodePins writes one cid a line and a last line with the sha256 of what stands before it: a flipped bit in a
// cid gives another valid cid, and a chunk that is needed would be evicted.
func encodePins(ids []chunk.ID) []byte {
	var b bytes.Buffer
	for _, id := range ids {
		b.WriteString(id.String())
		b.WriteByte('\n')
	}
	return append(b.Bytes(), pinSum(b.Bytes())...)
}

func pinSum(body []byte) []byte {
	h := sha256.Sum256(body)
	return []byte("sha256 " + hex.EncodeToString(h[:]) + "\n")
}

func decodePins(b []byte) ([]chunk.ID, error) {
	if len(b) > maxPinBytes {
		return nil, fmt.Errorf("pin file of more than %d bytes", maxPinBytes)
	}
	cut := len(b) - len("sha256 \n") - hex.EncodedLen(sha256.Size)
	if cut < 0 || !bytes.Equal(pinSum(b[:cut]), b[cut:]) {
		return nil, fmt.Errorf("pin file: the checksum line is missing or wrong")
	}
	var ids []chunk.ID
	for line := range bytes.Lines(b[:cut]) {
		id, err := chunk.Parse(string(bytes.TrimSuffix(line, []byte("\n"))))
		if err != nil {
			return nil, fmt.Errorf("pin file: %w", err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}
