package gitops

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// Limits of one commit.
const (
	MaxPolicies  = 1000
	MaxSites     = 2000
	maxTextBytes = 24 << 20 // of all files of one directory
)

// Snapshot is what one commit holds.
type Snapshot struct {
	Commit   *policy.Commit
	Policies map[string][]byte // text by name
	Sites    map[string][]byte
	Keys     []trust.Key // of keys/*.asc

	raw, root, policies []byte // the objects, for proofs
}

// Snapshot reads one commit. An error means that the commit cannot be used; nothing in it was looked at in part.
func (m *Mirror) Snapshot(ctx context.Context, id string) (*Snapshot, error) {
	s, err := m.trees(ctx, id)
	if err != nil {
		return nil, err
	}
	size := len(s.Commit.ID) / 2
	root, err := policy.ParseTree(s.root, size)
	if err != nil {
		return nil, refused(s.Commit.ID, "its root tree cannot be used").Because(err)
	}
	if s.Policies, err = m.texts(ctx, s, policy.GitDirectory, s.policies, MaxPolicies, ".yaml", policy.MaxBytes); err != nil {
		return nil, err
	}
	for _, e := range root {
		if e.Name != "sites" && e.Name != "keys" {
			continue
		}
		tree, err := m.objects(ctx, "tree", policy.MaxTreeBytes, e.ID)
		if err != nil {
			return nil, refused(s.Commit.ID, "%s cannot be read", e.Name).Because(err)
		}
		if e.Name == "sites" {
			s.Sites, err = m.texts(ctx, s, e.Name, tree[0], MaxSites, ".yaml", maxSiteBytes)
		} else {
			err = m.keys(ctx, s, tree[0])
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// trees reads a commit and the two trees that a proof needs.
func (m *Mirror) trees(ctx context.Context, id string) (*Snapshot, error) {
	raw, err := m.objects(ctx, "commit", policy.MaxCommitBytes, id)
	if err != nil {
		return nil, refused(id, "it cannot be read").Because(err)
	}
	c, err := policy.ParseCommit(raw[0])
	if err != nil {
		return nil, refused(id, "it cannot be read").Because(err)
	}
	if c.ID != id {
		return nil, refused(id, "its bytes have the name %s", c.ID)
	}
	s := &Snapshot{Commit: c, raw: raw[0]}
	root, err := m.objects(ctx, "tree", policy.MaxTreeBytes, c.Tree)
	if err != nil {
		return nil, refused(id, "its root tree cannot be read").Because(err)
	}
	s.root = root[0]
	es, err := policy.ParseTree(s.root, len(id)/2)
	if err != nil {
		return nil, refused(id, "its root tree cannot be used").Because(err)
	}
	for _, e := range es {
		if e.Name == policy.GitDirectory && e.Dir() {
			tree, err := m.objects(ctx, "tree", policy.MaxTreeBytes, e.ID)
			if err != nil {
				return nil, refused(id, "%s cannot be read", policy.GitDirectory).Because(err)
			}
			s.policies = tree[0]
			return s, nil
		}
	}
	return nil, refused(id, "there is no directory %s", policy.GitDirectory).
		WithNext("a directory that is not there deletes nothing; keep one with a README in it to withdraw the last policy")
}

// texts reads the files of a directory. What is not a plain file NAME+ext is refused, but for README and what begins with
// a dot: a file that is misspelt must not look like one that was deleted.
func (m *Mirror) texts(ctx context.Context, s *Snapshot, dir string, tree []byte, most int, ext string, limit int) (map[string][]byte, error) {
	es, err := policy.ParseTree(tree, len(s.Commit.ID)/2)
	if err != nil {
		return nil, refused(s.Commit.ID, "%s cannot be used", dir).Because(err)
	}
	var names, ids []string
	for _, e := range es {
		name, ok := strings.CutSuffix(e.Name, ext)
		switch {
		case strings.HasPrefix(e.Name, ".") || strings.HasPrefix(e.Name, "README"):
			continue
		case !ok || !e.Regular() || !manifest.ValidName(strings.ToLower(name)):
			return nil, refused(s.Commit.ID, "%s/%s is not a plain file NAME%s", dir, e.Name, ext)
		case len(names) == most:
			return nil, refused(s.Commit.ID, "more than %d files in %s", most, dir)
		}
		names, ids = append(names, name), append(ids, e.ID)
	}
	out := make(map[string][]byte, len(names))
	total := 0
	for len(ids) > 0 { // a few at a time: each answer has a limit
		n := min(len(ids), maxAnswer/2/limit)
		texts, err := m.objects(ctx, "blob", limit, ids[:n]...)
		if err != nil {
			return nil, refused(s.Commit.ID, "the files in %s cannot be read", dir).Because(err)
		}
		for i, text := range texts {
			if total += len(text); total > maxTextBytes {
				return nil, refused(s.Commit.ID, "%s has more than %d bytes", dir, maxTextBytes)
			}
			out[names[i]] = text
		}
		names, ids = names[n:], ids[n:]
	}
	return out, nil
}

func (m *Mirror) keys(ctx context.Context, s *Snapshot, tree []byte) error {
	files, err := m.texts(ctx, s, "keys", tree, trust.MaxKeys, ".asc", trust.MaxKeyringBytes)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		keys, err := trust.ReadKeys(files[name])
		if err != nil {
			return refused(s.Commit.ID, "keys/%s.asc is no public key", name).Because(err)
		}
		s.Keys = append(s.Keys, keys...)
	}
	return nil
}

// Proof makes the document by which nodes see for themselves that the commit holds a policy, or holds it no longer.
// reverted is the commit that it says it reverts, where that matters, or nil.
func (s *Snapshot) Proof(name string, text []byte, reverted *Snapshot) (trust.Signed, error) {
	o := policy.GitObjects{Name: name, Commit: s.raw, Root: s.root, Policies: s.policies, Policy: text}
	if reverted != nil {
		o.Reverted = reverted.raw
	}
	return policy.NewGit(o)
}

// Holds reports whether the commit has exactly this text for a policy.
func (s *Snapshot) Holds(name string, text []byte) bool {
	es, err := policy.ParseTree(s.policies, len(s.Commit.ID)/2)
	if err != nil {
		return false
	}
	for _, e := range es {
		if e.Name == name+".yaml" {
			return text != nil && e.Regular() && e.ID == policy.BlobID(s.Commit.ID, text)
		}
	}
	return text == nil
}

// At reads a commit as far as a proof needs it.
func (m *Mirror) At(ctx context.Context, id string) (*Snapshot, error) { return m.trees(ctx, id) }

func refused(id, format string, args ...any) *problem.Error {
	return problem.New(problem.CommitRefused, "commit %.12s: %s", id, fmt.Sprintf(format, args...)).
		WithDone("nothing was changed; the last good commit stays in force")
}
