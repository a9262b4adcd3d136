package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/patchmesh/patchmesh/install/snapshot/tree"
)

// LVM keeps snapshots of the thin volume that holds the machine's root, as VG/mesh-ID. They are not active, and mounted
// only while the state is put back. A snapshot of another volume is not made: the system must lie on that one.
type LVM struct {
	Dir string           // where a snapshot is mounted; for root alone
	Now func() time.Time // the machine's clock, by which ctimes are judged
}

// Name is "lvm-thin".
func (*LVM) Name() string { return "lvm-thin" }

const (
	lvmPrefix = "mesh-"
	lvmTag    = "mesh-install"        // marks what is ours
	lvmBegun  = "mesh-install.begun=" // tag with the time before the snapshot, seconds since 1970

	// A pool whose metadata is full stops every volume in it, see lvmthin(7); LVM's own limit for extending is 70.
	lvmMetadataPercent = 80
)

// volume is one of "lvs --reportformat json".
type volume struct {
	Group    string `json:"vg_name"`
	Name     string `json:"lv_name"`
	Segment  string `json:"segtype"` // "thin", "thin-pool", …
	Pool     string `json:"pool_lv"`
	Origin   string `json:"origin"`
	Tags     string `json:"lv_tags"`
	Size     string `json:"lv_size"`          // bytes
	Data     string `json:"data_percent"`     // of a pool that is active
	Metadata string `json:"metadata_percent"` //
	Major    string `json:"lv_kernel_major"`  // "-1" if not active
	Minor    string `json:"lv_kernel_minor"`
}

var lvmFields = []string{"vg_name", "lv_name", "segtype", "pool_lv", "origin", "lv_tags", "lv_size", "data_percent", "metadata_percent", "lv_kernel_major", "lv_kernel_minor"}

// decodeVolumes reads the report. Fields that other versions add are passed over.
func decodeVolumes(b []byte) ([]volume, error) {
	var doc struct {
		Report []struct {
			LV []volume `json:"lv"`
		} `json:"report"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("lvs: %w", err)
	}
	var out []volume
	for _, r := range doc.Report {
		out = append(out, r.LV...)
	}
	return out, nil
}

// thin finds the thin volume with a device number, and its pool.
func thin(all []volume, major, minor uint32) (v, pool volume, err error) {
	for _, v := range all {
		if v.Major != strconv.FormatUint(uint64(major), 10) || v.Minor != strconv.FormatUint(uint64(minor), 10) {
			continue
		}
		if v.Segment != "thin" {
			return volume{}, volume{}, fmt.Errorf("logical volume %s/%s is %s, not thin", v.Group, v.Name, v.Segment)
		}
		for _, p := range all {
			if p.Group == v.Group && p.Name == v.Pool {
				return v, p, nil
			}
		}
		return volume{}, volume{}, fmt.Errorf("pool %s/%s is not listed", v.Group, v.Pool)
	}
	return volume{}, volume{}, fmt.Errorf("device %d:%d is no logical volume", major, minor)
}

// room says whether a pool can take need bytes more.
func (p volume) room(need int64) error {
	size, err := strconv.ParseInt(p.Size, 10, 64)
	if err != nil || size < 0 {
		return fmt.Errorf("pool %s/%s: size %q", p.Group, p.Name, p.Size)
	}
	data, err := percent(p.Data)
	if err != nil {
		return fmt.Errorf("pool %s/%s: data %w", p.Group, p.Name, err)
	}
	metadata, err := percent(p.Metadata)
	if err != nil {
		return fmt.Errorf("pool %s/%s: metadata %w", p.Group, p.Name, err)
	}
	if metadata >= lvmMetadataPercent {
		return fmt.Errorf("pool %s/%s: its metadata is %.1f %% full, %d %% is the limit", p.Group, p.Name, metadata, lvmMetadataPercent)
	}
	if free := int64(float64(size) * (100 - data) / 100); need > free {
		return fmt.Errorf("pool %s/%s: the transaction may write %d bytes, %d are free", p.Group, p.Name, need, free)
	}
	return nil
}

func percent(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0 && f <= 100) {
		return 0, fmt.Errorf("%q is no percentage", s)
	}
	return f, nil
}

// kept is a snapshot of ours; ok is false for any other volume.
func (v volume) kept(origin volume) (s Snapshot, ok bool) {
	tags := strings.Split(v.Tags, ",")
	id, named := strings.CutPrefix(v.Name, lvmPrefix)
	if !named || checkID(id) != nil || v.Group != origin.Group || v.Origin != origin.Name || !slices.Contains(tags, lvmTag) {
		return Snapshot{}, false
	}
	for _, t := range tags {
		if begun, is := strings.CutPrefix(t, lvmBegun); is {
			if sec, err := strconv.ParseInt(begun, 10, 64); err == nil {
				return Snapshot{ID: id, Name: "lvm:" + v.Group + "/" + v.Name, Created: time.Unix(sec, 0).UTC()}, true
			}
		}
	}
	return Snapshot{}, false
}

// root finds the volume of the machine's root, its pool, all volumes and how the file system is mounted.
func (l *LVM) root(ctx context.Context, s Scope, id string) (v, pool volume, all []volume, m Mount, err error) {
	fail := func(err error) (volume, volume, []volume, Mount, error) { return volume{}, volume{}, nil, Mount{}, err }
	ms, err := mounts()
	if err != nil {
		return fail(err)
	}
	m, ok := at(ms, s.Root)
	if !ok || m.Point != s.Root || m.Root != "/" {
		return fail(fmt.Errorf("%s is not the top of a file system", s.Root))
	}
	if m.Type != "ext4" && m.Type != "xfs" { // btrfs would meet its own number twice
		return fail(fmt.Errorf("%s is %s: ext4 or xfs is wanted", s.Root, m.Type))
	}
	dev, err := deviceOf(s.Root)
	if err != nil {
		return fail(err)
	}
	out, err := run(ctx, id, "lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", strings.Join(lvmFields, ","))
	if err != nil {
		return fail(err)
	}
	if all, err = decodeVolumes(out); err != nil {
		return fail(err)
	}
	if v, pool, err = thin(all, unix.Major(dev), unix.Minor(dev)); err != nil {
		return fail(err)
	}
	return v, pool, all, m, nil
}

// anyID marks the programs that are run for no snapshot in particular.
const anyID = "snapshots"

// Usable looks at the pool too: one that runs full takes its volumes along.
func (l *LVM) Usable(ctx context.Context, s Scope, need int64) error {
	_, pool, _, _, err := l.root(ctx, s, anyID)
	if err != nil {
		return unusable("%w", err)
	}
	if err := pool.room(need + margin); err != nil {
		return unusable("%w", err)
	}
	ms, err := mounts()
	if err != nil {
		return err
	}
	return whole(ms, s, need)
}

func (l *LVM) find(ctx context.Context, s Scope, id string) (origin volume, kept Snapshot, m Mount, ok bool, err error) {
	origin, _, all, m, err := l.root(ctx, s, id)
	if err != nil {
		return volume{}, Snapshot{}, Mount{}, false, err
	}
	for _, v := range all {
		if kept, ok := v.kept(origin); ok && kept.ID == id {
			return origin, kept, m, true, nil
		}
	}
	return origin, Snapshot{}, m, false, nil
}

// Take makes the snapshot. The kernel freezes the file system meanwhile, so that all of it is in the snapshot, flushed.
func (l *LVM) Take(ctx context.Context, s Scope, id string) (Snapshot, error) {
	if err := checkID(id); err != nil {
		return Snapshot{}, err
	}
	origin, kept, _, ok, err := l.find(ctx, s, id)
	if err != nil || ok {
		return kept, err
	}
	begun := l.Now().UTC().Truncate(time.Second)
	if _, err := run(ctx, id, "lvcreate", "--yes", "--snapshot", "--setactivationskip", "y", "--addtag", lvmTag,
		"--addtag", lvmBegun+strconv.FormatInt(begun.Unix(), 10), "--name", lvmPrefix+id, origin.Group+"/"+origin.Name); err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %s: %w", id, err)
	}
	if _, kept, _, ok, err = l.find(ctx, s, id); err == nil && !ok {
		err = fmt.Errorf("snapshot %s: lvcreate said yes, and there is none", id)
	}
	return kept, err
}

// Restore mounts the snapshot and makes good what differs.
func (l *LVM) Restore(ctx context.Context, s Scope, id string) (err error) {
	if err := checkID(id); err != nil {
		return err
	}
	origin, kept, m, ok, err := l.find(ctx, s, id)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("snapshot %s: %w", id, os.ErrNotExist)
	}
	name := origin.Group + "/" + lvmPrefix + id
	if _, err := run(ctx, id, "lvchange", "--yes", "--activate", "y", "--ignoreactivationskip", name); err != nil {
		return fmt.Errorf("snapshot %s: %w", id, err)
	}
	defer func() {
		if _, derr := run(context.WithoutCancel(ctx), id, "lvchange", "--activate", "n", name); derr != nil {
			err = errors.Join(err, derr)
		}
	}()
	options := "ro"
	if m.Type == "xfs" { // which refuses the number of one that is mounted
		options = "ro,nouuid"
	}
	ms, err := mounts()
	if err != nil {
		return err
	}
	o, err := s.options(ms, l.Dir)
	if err != nil {
		return err
	}
	o.Proof, o.Before = tree.Shared, kept.Created
	return mounted(ctx, id, "/dev/"+name, l.Dir, options, func(top string) error {
		if _, err := tree.Restore(ctx, top, s.Root, o); err != nil {
			return fmt.Errorf("snapshot %s: %w", id, err)
		}
		return nil
	})
}

// Delete removes a snapshot of ours.
func (l *LVM) Delete(ctx context.Context, s Scope, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	origin, _, _, ok, err := l.find(ctx, s, id)
	if err != nil || !ok {
		return err
	}
	_, err = run(ctx, id, "lvremove", "--yes", origin.Group+"/"+lvmPrefix+id)
	return err
}

// List names the snapshots of the root's volume that carry our tags.
func (l *LVM) List(ctx context.Context, s Scope) ([]Snapshot, error) {
	origin, _, all, _, err := l.root(ctx, s, anyID)
	if err != nil {
		return nil, err
	}
	var out []Snapshot
	for _, v := range all {
		if kept, ok := v.kept(origin); ok {
			out = append(out, kept)
		}
	}
	return oldestFirst(out), nil
}
