package snapshot

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/patchmesh/patchmesh/install/snapshot/tree"
	"github.com/patchmesh/patchmesh/install/snapshot/treetest"
)

const mountinfo = `22 1 252:0 / / rw,relatime shared:1 - xfs /dev/mapper/vg0-root rw,attr2
23 22 0:21 / /proc rw,nosuid shared:5 - proc proc rw
24 22 8:1 / /boot rw shared:6 - ext4 /dev/sda1 rw
25 24 8:2 / /boot/efi rw - vfat /dev/sda2 rw,fmask=0022
26 22 0:31 / /var/lib/with\040blank rw - ext4 /dev/sdb1 rw
27 22 0:40 / /usr ro - ext4 /dev/sdc1 ro
28 22 0:41 / /opt/share rw - nfs4 server:/x rw
29 22 0:42 / /home rw - ext4 /dev/sdd1 rw
30 22 0:43 /sub /root rw - btrfs /dev/sde subvolid=257,subvol=/sub
31 22 0:44 / /root rw - overlay overlay lowerdir=/l,upperdir=/u,workdir=/w
`

func TestParseMounts(t *testing.T) {
	ms, err := ParseMounts(strings.NewReader(mountinfo))
	if err != nil || len(ms) != 10 {
		t.Fatalf("%d, %v", len(ms), err)
	}
	want := Mount{Device: "252:0", Root: "/", Point: "/", Type: "xfs", Source: "/dev/mapper/vg0-root", Options: []string{"rw", "relatime", "rw", "attr2"}}
	if diff := cmp.Diff(want, ms[0]); diff != "" {
		t.Error(diff)
	}
	for p, want := range map[string]string{"/": "/", "/boot/grub": "/boot", "/boot/efi/x": "/boot/efi", "/bootx": "/", "/var/lib/with blank/x": "/var/lib/with blank"} {
		if m, ok := at(ms, p); !ok || m.Point != want {
			t.Errorf("%s lies in %q", p, m.Point)
		}
	}
	if m, _ := at(ms, "/root/x"); m.Type != "overlay" || m.option("upperdir") != "/u" {
		t.Errorf("the last mount at one point: %+v", m)
	}
	if diff := cmp.Diff([]string{"/", "/efi"}, []string{must(relative("/boot", "/boot")), must(relative("/boot", "/boot/efi"))}); diff != "" {
		t.Error(diff)
	}
	if got := below(ms, "/boot"); !cmp.Equal(got, []string{"/efi"}) {
		t.Errorf("below /boot: %q", got)
	}
	for _, bad := range []string{"x", "1 2 3:4 / / rw xfs /dev/x rw", "1 2 3:4 / relative rw - xfs /dev/x rw"} {
		if _, err := ParseMounts(strings.NewReader(bad)); err == nil {
			t.Errorf("accepted: %q", bad)
		}
	}
}

func must(p string, _ bool) string { return p }

func FuzzParseMounts(f *testing.F) {
	f.Add(mountinfo)
	f.Add(`1 2 3:4 / /a\134\04 rw - x y`)
	f.Fuzz(func(t *testing.T, s string) {
		ms, err := ParseMounts(strings.NewReader(s))
		for _, m := range ms {
			if err == nil && !strings.HasPrefix(m.Point, "/") {
				t.Errorf("%+v", m)
			}
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte(`{"id":"a-1","begun":"2026-11-21T10:00:00Z","bytes":5,"cross":["/boot"]}`))
	f.Add([]byte(`{"id":"../a","begun":"2026-11-21T10:00:00Z","bytes":5}`))
	f.Add([]byte(`{"id":"a","begun":"2026-11-21T10:00:00Z","bytes":-1,"cross":["boot"]}{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		if strings.ContainsAny(r.ID, "/.") || r.Bytes < 0 {
			t.Errorf("%+v", r)
		}
		name := filepath.Join(t.TempDir(), "r")
		if err := r.write(name); err != nil {
			t.Fatal(err)
		}
		if again, err := readRecord(name); err != nil || !again.Begun.Equal(r.Begun) || again.ID != r.ID || !slices.Equal(again.Cross, r.Cross) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

// volumes is what lvs 2.03.16 said of a pool with a volume and a snapshot; the numbers of active ones are put in.
func volumes(t testing.TB) []volume {
	t.Helper()
	b, err := os.ReadFile("testdata/lvs.json")
	if err != nil {
		t.Fatal(err)
	}
	all, err := decodeVolumes(b)
	if err != nil || len(all) != 4 {
		t.Fatalf("%d volumes, %v", len(all), err)
	}
	return all
}

func TestVolumes(t *testing.T) {
	all := volumes(t)
	v, pool, err := thin(all, 253, 4)
	if err != nil || v.Name != "root" || pool.Name != "pool" {
		t.Fatalf("%+v, %+v, %v", v, pool, err)
	}
	for _, dev := range [][2]uint32{{253, 2}, {253, 9}, {8, 1}} { // the pool itself, a plain volume, no volume
		if v, _, err := thin(all, dev[0], dev[1]); err == nil {
			t.Errorf("%d: %+v", dev, v)
		}
	}
	var kept []Snapshot
	for _, o := range all {
		if k, ok := o.kept(v); ok {
			kept = append(kept, k)
		}
	}
	want := []Snapshot{{ID: "one", Name: "lvm:vgmesh/mesh-one", Created: time.Unix(1795257243, 0).UTC()}}
	if diff := cmp.Diff(want, kept); diff != "" {
		t.Error(diff)
	}
	for name, change := range map[string]func(*volume){
		"another prefix": func(v *volume) { v.Name = "mush-one" }, "another origin": func(v *volume) { v.Origin = "home" },
		"another group": func(v *volume) { v.Group = "vg1" }, "no tag": func(v *volume) { v.Tags = "mesh-install.begun=1795257243" },
		"no time": func(v *volume) { v.Tags = "mesh-install" }, "not a time": func(v *volume) { v.Tags = "mesh-install,mesh-install.begun=x" },
	} {
		o := all[0]
		change(&o)
		if k, ok := o.kept(v); ok {
			t.Errorf("%s: %+v", name, k)
		}
	}
}

func TestPoolRoom(t *testing.T) {
	for _, c := range []struct {
		data, metadata string
		need           int64
		ok             bool
	}{
		{"50.00", "12.34", 41_943_040, true}, {"50.00", "12.34", 41_943_041, false}, {"0.00", "79.99", 1, true}, {"0.00", "80.00", 1, false},
		{"100.00", "1.00", 1, false}, {"", "1.00", 0, false}, {"1.00", "", 0, false}, {"NaN", "1", 0, false}, {"-1", "1", 0, false},
	} {
		p := volume{Size: "83886080", Data: c.data, Metadata: c.metadata}
		if err := p.room(c.need); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := (volume{Size: "1.5", Data: "1", Metadata: "1"}).room(0); err == nil {
		t.Error("a size with a fraction")
	}
}

func FuzzDecodeVolumes(f *testing.F) {
	b, err := os.ReadFile("testdata/lvs.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := decodeVolumes(b)
		if err != nil {
			return
		}
		for _, v := range all {
			if k, ok := v.kept(v); ok && checkID(k.ID) != nil {
				t.Errorf("%+v", k)
			}
			_ = v.room(1)
		}
	})
}

func TestTimeshiftFiles(t *testing.T) {
	const config = `{ "backup_device_uuid" : "%", "parent_device_uuid" : "", "do_first_run" : "false", "btrfs_mode" : "false", "exclude" : [ "/root/**" ] }`
	c, err := decodeShiftConfig([]byte(strings.Replace(config, "%", "0f1e2d3c-1111-2222-3333-444455556666", 1)))
	if err != nil || c.btrfs() || c.place() != "timeshift/snapshots" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, uuid := range []string{"", "../../sda", "x y"} {
		if _, err := decodeShiftConfig([]byte(strings.Replace(config, "%", uuid, 1))); err == nil {
			t.Errorf("device %q is accepted", uuid)
		}
	}
	info := `{ "created" : "1795257243", "sys-uuid" : "", "app-version" : "22.11.2", "file_count" : "77", "tags" : "ondemand", "comments" : "mesh-install one", "live" : "false", "type" : "rsync" }`
	id, created, err := decodeShiftInfo([]byte(info))
	if err != nil || id != "one" || created.Unix() != 1795257243 {
		t.Errorf("%q, %s, %v", id, created, err)
	}
	for _, comment := range []string{"", "mine", "mesh-install ", "mesh-install ../x", "mesh-installone"} {
		if id, _, err := decodeShiftInfo([]byte(strings.Replace(info, "mesh-install one", comment, 1))); id != "" || err != nil {
			t.Errorf("comment %q: %q, %v", comment, id, err)
		}
	}
}

func FuzzDecodeShiftInfo(f *testing.F) {
	f.Add([]byte(`{"created":"1795257243","comments":"mesh-install one"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, _, err := decodeShiftInfo(b); err == nil && id != "" && checkID(id) != nil {
			t.Errorf("%q", id)
		}
	})
}

// excludes are Timeshift's own, and each form of a pattern.
const excludes = `# a comment
/dev/*
/var/run/*
/lost+found
/root/.local/share/[Tt]rash
+ /home/*/keep
/home/*/**
/root/**
*.o
- cache/
a**z
mid/dle
/tree/***
[!x]?.q
back\*slash
`

// The filter says of every path what the real rsync does.
func TestFilter(t *testing.T) {
	treetest.Need(t, map[string]string{"rsync": "rsync"})
	top := t.TempDir()
	for _, p := range []string{
		"dev/sda", "dev/sub/x", "var/run/x", "var/running", "lost+found/x", "root/.local/share/Trash/x", "root/x", "home/ann/keep", "home/ann/lose", "home/ann/sub/keep",
		"home/file", "usr/x.o", "usr/x.oo", "usr/cache/x", "usr/deep/cache/y", "azz", "usr/a/b/z/c", "usr/mid/dle", "usr/mid/dled", "amid/dle", "tree/x/y", "usr/tree/x",
		"usr/ab.q", "usr/xb.q", "usr/b.q", "usr/back*slash", "usr/backXslash", "+ /odd",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(top, p)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(top, p), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	list := filepath.Join(t.TempDir(), "exclude.list")
	if err := os.WriteFile(list, []byte(excludes), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("rsync", "-a", "-n", "--out-format=%n", "--exclude-from="+list, top+"/", "/nonexistent/").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "./" && !strings.HasSuffix(line, "directory /nonexistent") {
			want["/"+strings.TrimSuffix(line, "/")] = true
		}
	}
	f, err := parseFilter(excludes)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	err = filepath.WalkDir(top, func(p string, e os.DirEntry, err error) error {
		rel, _ := relative(top, p)
		if rel == "/" {
			return err
		}
		if f.skips(rel) {
			if e.IsDir() {
				return filepath.SkipDir
			}
			return err
		}
		got[rel] = true
		return err
	})
	if diff := cmp.Diff(want, got); err != nil || diff != "" || len(want) < 10 {
		t.Errorf("%v\n%s", err, diff)
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(excludes, "/home/ann/x")
	f.Add("[", "/[")
	f.Add("a[]]b\n[a-\n\\", "/a]b")
	f.Fuzz(func(t *testing.T, list, p string) {
		if rules, err := parseFilter(list); err == nil {
			rules.skips("/" + p)
		}
	})
}

// What Timeshift's rsync keeps, by its own command line, is put back; what it does not keep stays as it is.
func TestRsyncTree(t *testing.T) {
	treetest.Need(t, map[string]string{"rsync": "rsync", "getfattr": "attr", "lsattr": "e2fsprogs"})
	dir := t.TempDir()
	machine, kept, list := filepath.Join(dir, "machine"), filepath.Join(dir, "localhost"), filepath.Join(dir, "exclude.list")
	write := func(name, text string) {
		t.Helper()
		p := filepath.Join(machine, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"usr/one", "usr/two", "usr/link", "home/ann/letter", "root/secret"} {
		write(name, "old")
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := func(name string) string { return filepath.Join(machine, name) }
	do(os.Remove(p("usr/link")))
	do(os.Link(p("usr/two"), p("usr/link")))
	do(exec.Command("setfattr", "-n", "trusted.mark", "-v", "x", p("usr/one")).Run())
	do(os.WriteFile(list, []byte(excludes), 0o600))
	do(os.Chtimes(p("usr"), time.Unix(1e9, 1), time.Unix(1e9, 1))) // rsync gives no time to what was made in the same second
	before := treetest.Manifest(t, p("usr"))
	out, err := exec.Command("rsync", "-aii", "--recursive", "--delete", "--force", "--stats", "--sparse", "--delete-excluded", "--exclude-from="+list, machine+"/", kept+"/").CombinedOutput()
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	f, err := parseFilter(excludes)
	do(err)
	treetest.Forge(t, p("usr/one"))
	write("usr/three", "new")
	write("home/ann/letter", "new")
	write("root/secret", "new")
	do(os.Remove(p("usr/two")))
	do(os.Remove(p("usr/link")))
	write("usr/two", "new")
	do(os.Link(p("usr/two"), p("usr/link")))
	o := tree.Options{Plain: true, Skip: f.skips}
	if _, err := tree.Restore(t.Context(), kept, machine, o); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"home/ann/letter": "new", "root/secret": "new", "usr/one": "old", "usr/two": "old", "usr/link": "old"} {
		if got, err := os.ReadFile(p(name)); string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// Hard links are what it does not keep: all the rest is as it was, the attribute of the forged file too.
	if diff := cmp.Diff(strings.ReplaceAll(before, " as link", " "), treetest.Manifest(t, p("usr"))); diff != "" {
		t.Error(diff)
	}
}
