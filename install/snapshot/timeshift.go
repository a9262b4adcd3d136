package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/patchmesh/patchmesh/install/snapshot/tree"
	"github.com/patchmesh/patchmesh/install/tool"
	"github.com/patchmesh/patchmesh/internal/durable"
)

// Timeshift has Timeshift keep the state, on the device and in the way (rsync or btrfs) that it is configured for, and
// reads its snapshots from there; a snapshot is found again by its comment.
//
// Of what it keeps with rsync, extended attributes (capabilities, access lists, labels), hard links and flags are not
// part: Timeshift does not ask rsync for them. Those of the machine stay as they are, so this is not to the byte, and it
// is the last choice. Its exit status says nothing, nor does it look at rsync's: what it says to have kept is compared
// with the machine before it counts.
type Timeshift struct {
	Dir    string           // where its device is mounted; for root alone
	Now    func() time.Time // the machine's clock
	Config string           // empty: /etc/timeshift/timeshift.json
}

// Name is "timeshift".
func (*Timeshift) Name() string { return "timeshift" }

// shiftConfig is what is wanted of Timeshift's configuration. All its values are strings.
type shiftConfig struct {
	Device string `json:"backup_device_uuid"`
	Btrfs  string `json:"btrfs_mode"`
}

// shiftInfo is what is wanted of the info.json of a snapshot.
type shiftInfo struct {
	Created  string `json:"created"` // seconds since 1970
	Comments string `json:"comments"`
	Type     string `json:"type"`
}

const (
	shiftDefault = "/etc/timeshift/timeshift.json"
	shiftComment = "mesh-install "
	maxShiftFile = 1 << 20
)

func decodeShiftConfig(b []byte) (shiftConfig, error) {
	var c shiftConfig
	if err := json.Unmarshal(b, &c); err != nil {
		return shiftConfig{}, fmt.Errorf("timeshift's configuration: %w", err)
	}
	if c.Device == "" {
		return shiftConfig{}, errors.New("timeshift's configuration: no backup device is chosen")
	}
	if strings.Trim(strings.ToLower(c.Device), "0123456789abcdef-") != "" || len(c.Device) > 64 {
		return shiftConfig{}, fmt.Errorf("timeshift's configuration: backup device %q is not a UUID", c.Device)
	}
	if c.Btrfs != "true" && c.Btrfs != "false" {
		return shiftConfig{}, fmt.Errorf("timeshift's configuration: btrfs_mode %q", c.Btrfs)
	}
	return c, nil
}

func (c shiftConfig) btrfs() bool { return c.Btrfs == "true" }

// place is where the snapshots are on the device.
func (c shiftConfig) place() string {
	if c.btrfs() {
		return "timeshift-btrfs/snapshots"
	}
	return "timeshift/snapshots"
}

// decodeShiftInfo returns the ID, "" for a snapshot that is not ours.
func decodeShiftInfo(b []byte) (id string, created time.Time, err error) {
	var i shiftInfo
	if err := json.Unmarshal(b, &i); err != nil {
		return "", time.Time{}, fmt.Errorf("info.json: %w", err)
	}
	id, ok := strings.CutPrefix(i.Comments, shiftComment)
	if !ok || checkID(id) != nil {
		return "", time.Time{}, nil
	}
	sec, err := strconv.ParseInt(i.Created, 10, 64)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("info.json: created %q", i.Created)
	}
	return id, time.Unix(sec, 0).UTC(), nil
}

func readAtMost(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", name, limit)
	}
	return b, err
}

func (t *Timeshift) config() (shiftConfig, error) {
	name := t.Config
	if name == "" {
		name = shiftDefault
	}
	b, err := readAtMost(name, maxShiftFile)
	if err != nil {
		return shiftConfig{}, err
	}
	return decodeShiftConfig(b)
}

// Usable leaves the question of space to Timeshift, which asks rsync.
func (t *Timeshift) Usable(_ context.Context, s Scope, need int64) error {
	if s.Root != "/" {
		return unusable("timeshift keeps / and not %s", s.Root)
	}
	if !tool.Has("timeshift") {
		return unusable("timeshift is not installed")
	}
	c, err := t.config()
	if err != nil {
		return unusable("%w", err)
	}
	if _, err := os.Stat(c.device()); err != nil {
		return unusable("timeshift's backup device: %w", err)
	}
	ms, err := mounts()
	if err != nil {
		return err
	}
	return whole(ms, s, need)
}

func (c shiftConfig) device() string { return "/dev/disk/by-uuid/" + c.Device }

// shifted is a snapshot of ours.
type shifted struct {
	Snapshot
	name string // of its directory
}

// look mounts the device and calls do with the directory of the snapshots.
func (t *Timeshift) look(ctx context.Context, id string, do func(c shiftConfig, place string) error) error {
	c, err := t.config()
	if err != nil {
		return err
	}
	options := "defaults"
	if c.btrfs() {
		options = "subvolid=5"
	}
	return mounted(ctx, id, c.device(), t.Dir, options, func(top string) error { return do(c, filepath.Join(top, c.place())) })
}

// ours lists the snapshots of ours in a directory, the oldest first. One without info.json is half made.
func ours(place string) ([]shifted, error) {
	es, err := os.ReadDir(place)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []shifted
	for _, e := range es { // their names are dates
		b, err := readAtMost(filepath.Join(place, e.Name(), "info.json"), maxShiftFile)
		if errors.Is(err, os.ErrNotExist) || !e.IsDir() {
			continue
		}
		if err != nil {
			return nil, err
		}
		id, created, err := decodeShiftInfo(b)
		if err != nil {
			return nil, fmt.Errorf("timeshift snapshot %s: %w", e.Name(), err)
		}
		if _, derr := os.Stat(filepath.Join(place, e.Name(), "delete")); id == "" || derr == nil { // marked to be deleted
			continue
		}
		out = append(out, shifted{Snapshot{ID: id, Name: "timeshift:" + e.Name(), Created: created}, e.Name()})
	}
	return out, nil
}

func find(place, id string) (shifted, bool, error) {
	all, err := ours(place)
	for _, k := range all {
		if k.ID == id {
			return k, true, err
		}
	}
	return shifted{}, false, err
}

// Take runs Timeshift and believes what it finds.
func (t *Timeshift) Take(ctx context.Context, s Scope, id string) (kept Snapshot, err error) {
	if err := checkID(id); err != nil {
		return Snapshot{}, err
	}
	has := func() (ok bool, err error) {
		err = t.look(ctx, id, func(_ shiftConfig, place string) error {
			var k shifted
			k, ok, err = find(place, id)
			kept = k.Snapshot
			return err
		})
		return ok, err
	}
	there, err := has()
	if err != nil {
		return Snapshot{}, err
	}
	if !there {
		if _, err := run(ctx, id, "timeshift", "--create", "--scripted", "--comments", shiftComment+id); err != nil {
			return Snapshot{}, err
		}
		if there, err = has(); err != nil {
			return Snapshot{}, err
		}
		if !there {
			return Snapshot{}, fmt.Errorf("timeshift snapshot %s: timeshift said yes, and there is none", id)
		}
	}
	if t.checked(id) {
		return kept, nil
	}
	if err := t.check(ctx, s, id); err != nil {
		return Snapshot{}, errors.Join(err, t.Delete(ctx, s, id))
	}
	return kept, record{ID: id, Begun: kept.Created}.write(t.note(id))
}

// note says of a snapshot that it was compared with the machine: after that the machine may change.
func (t *Timeshift) note(id string) string { return filepath.Join(t.Dir, id+".json") }

func (t *Timeshift) checked(id string) bool {
	r, err := readRecord(t.note(id))
	return err == nil && r.ID == id
}

// check compares what was kept of the system with the machine: rsync may have been cut, or refused a file.
func (t *Timeshift) check(ctx context.Context, s Scope, id string) error {
	var lacks int
	var first tree.Diff
	err := t.with(ctx, s, id, func(kept string, o tree.Options) error {
		return tree.Compare(ctx, kept, s.Root, o, func(d tree.Diff) error {
			if d.Change&(tree.Extra|tree.Type|tree.Size|tree.Content|tree.Target) != 0 && (system(d.Path) || strings.HasPrefix(d.Path, "/var/lib/")) {
				if lacks == 0 {
					first = d
				}
				lacks++
			}
			return nil
		})
	})
	if err == nil && lacks > 0 {
		err = fmt.Errorf("timeshift snapshot %s: %d names differ from the machine, first %s", id, lacks, first)
	}
	return err
}

// with calls do with the tree that was kept.
func (t *Timeshift) with(ctx context.Context, s Scope, id string, do func(kept string, o tree.Options) error) error {
	ms, err := mounts()
	if err != nil {
		return err
	}
	o, err := s.options(ms, t.Dir)
	if err != nil {
		return err
	}
	return t.look(ctx, id, func(c shiftConfig, place string) error {
		k, ok, err := find(place, id)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("timeshift snapshot %s: %w", id, os.ErrNotExist)
		}
		if c.btrfs() {
			o.Proof, o.Before = tree.Shared, k.Created
			return do(filepath.Join(place, k.name, "@"), o)
		}
		list, err := readAtMost(filepath.Join(place, k.name, "exclude.list"), maxShiftFile)
		if err != nil { // without the list nobody knows what must not be deleted
			return err
		}
		f, err := parseFilter(string(list))
		if err != nil {
			return err
		}
		o.Plain, o.Skip = true, f.skips
		return do(filepath.Join(place, k.name, "localhost"), o)
	})
}

// Restore reads the tree from Timeshift's own directory. What Timeshift did not keep is left alone.
func (t *Timeshift) Restore(ctx context.Context, s Scope, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	if !t.checked(id) {
		return fmt.Errorf("timeshift snapshot %s: %w", id, os.ErrNotExist)
	}
	return t.with(ctx, s, id, func(kept string, o tree.Options) error {
		if _, err := tree.Restore(ctx, kept, s.Root, o); err != nil {
			return fmt.Errorf("timeshift snapshot %s: %w", id, err)
		}
		return nil
	})
}

// Delete has Timeshift delete it, and looks.
func (t *Timeshift) Delete(ctx context.Context, _ Scope, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	for try := range 2 {
		var name string
		err := t.look(ctx, id, func(_ shiftConfig, place string) error {
			k, _, err := find(place, id)
			name = k.name
			return err
		})
		if err != nil {
			return err
		}
		if name == "" {
			return durable.Remove(t.note(id))
		}
		if try == 1 {
			return fmt.Errorf("timeshift snapshot %s: timeshift deleted it, and it is there", id)
		}
		if _, err := run(ctx, id, "timeshift", "--delete", "--scripted", "--snapshot", name); err != nil {
			return err
		}
	}
	return nil
}

// List names the snapshots with a comment of ours.
func (t *Timeshift) List(ctx context.Context, _ Scope) (out []Snapshot, err error) {
	if notes, err := filepath.Glob(filepath.Join(t.Dir, "*.json")); err != nil || len(notes) == 0 {
		return nil, err // nothing of ours: the device need not be mounted
	}
	err = t.look(ctx, anyID, func(_ shiftConfig, place string) error {
		all, err := ours(place)
		for _, k := range all {
			if t.checked(k.ID) {
				out = append(out, k.Snapshot)
			}
		}
		return err
	})
	return oldestFirst(out), err
}
