package policy

import (
	"bytes"
	"crypto/sha1" // Git names its objects so; see GitSchema
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// GitSchema identifies the second form of a policy document: the proof that a signed Git commit holds the policy. Its
// signature is the commit's own, so whoever hands it on can withhold it but not change it. What is hashed with SHA-1 in
// it, where the repository does, are two trees and one text: names in the trees and the text hold no control characters,
// which leaves the bytes of a known collision no place, and bundles are pinned by SHA-256 and signed apart. The formats
// are those of Git: gitformat-signature(5), "git help cat-file", and Documentation/technical/hash-function-transition.
const GitSchema = "patchmesh.io/policy-git/v1"

// Limits of the Git form.
const (
	MaxGitBytes    = 256 << 10 // of the whole document, as of every document on the wire
	MaxCommitBytes = 16 << 10  // of one commit object
	MaxTreeBytes   = 128 << 10 // of one tree object: some 2,000 policies
)

// GitDirectory is where policies stand in a repository, as NAME.yaml.
const GitDirectory = "policies"

// gitDocument is the canonical JSON of the Git form.
type gitDocument struct {
	Schema   string `json:"schema"`
	Name     string `json:"name"`
	Commit   string `json:"commit"`             // the whole commit object; its gpgsig is the document's signature
	Root     []byte `json:"root"`               // its tree
	Policies []byte `json:"policies"`           // the tree of policies/
	Policy   string `json:"policy"`             // the text; empty: the tree has none by this name
	Reverted string `json:"reverted,omitempty"` // the whole commit object that the commit says it reverts
}

// Commit is what a policy document in the Git form says of its commit.
type Commit struct {
	ID        string // 40 or 64 hex digits
	Tree      string
	Parents   []string
	Author    string // NAME <EMAIL>
	Time      time.Time
	Subject   string
	Reverts   string // the commit that the message says it reverts, or ""
	Payload   []byte // what the signature is over
	Signature []byte // armoured; empty: there is none
}

// GitObjects are the objects that prove a policy, as "git cat-file" writes them. Policy is nil for a deletion, Reverted
// for what reverts nothing.
type GitObjects struct {
	Name                   string
	Commit, Root, Policies []byte
	Policy, Reverted       []byte
}

// NewGit makes the document of a signed commit. It verifies nothing: Open does.
func NewGit(o GitObjects) (trust.Signed, error) {
	c, err := ParseCommit(o.Commit)
	if err != nil {
		return trust.Signed{}, invalid(err)
	}
	g := gitDocument{Schema: GitSchema, Name: o.Name, Commit: string(o.Commit), Root: o.Root, Policies: o.Policies,
		Policy: string(o.Policy), Reverted: string(o.Reverted)}
	b, err := manifest.EncodeCanonical(g)
	if err != nil {
		return trust.Signed{}, invalid(err)
	}
	s := trust.Signed{Doc: b, Sig: c.Signature}
	_, err = Read(s)
	return s, err
}

// readGit checks all that needs no key: the form, and every hash from the commit down to the text.
func readGit(s trust.Signed) (*Document, error) {
	if len(s.Doc) > MaxGitBytes {
		return nil, fmt.Errorf("%d bytes, at most %d", len(s.Doc), MaxGitBytes)
	}
	g := new(gitDocument)
	if err := manifest.DecodeCanonical("policy document", s.Doc, g); err != nil {
		return nil, err
	}
	switch {
	case !manifest.ValidName(g.Name):
		return nil, fmt.Errorf("name %.80q: want lower-case letters, digits, . _ -, at most 64", g.Name)
	case len(g.Policy) > MaxBytes:
		return nil, fmt.Errorf("policy of %d bytes: at most %d", len(g.Policy), MaxBytes)
	}
	c, err := ParseCommit([]byte(g.Commit))
	switch {
	case err != nil:
		return nil, err
	case len(c.Signature) == 0:
		return nil, fmt.Errorf("commit %s is not signed", c.ID)
	case !bytes.Equal(c.Signature, s.Sig):
		return nil, fmt.Errorf("the signature is not that of commit %s", c.ID)
	case c.Time.Unix() < 1:
		return nil, fmt.Errorf("commit %s is from before 1970", c.ID)
	}
	if err := g.descend(c); err != nil {
		return nil, fmt.Errorf("commit %s: %w", c.ID, err)
	}
	d := &Document{Schema: GitSchema, Name: g.Name, Revision: uint64(c.Time.Unix()), Created: timestamp(c.Time),
		Deleted: g.Policy == "", Policy: g.Policy, Commit: c}
	if g.Reverted == "" {
		return d, nil
	}
	r, err := ParseCommit([]byte(g.Reverted))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reverted commit: %w", err)
	case r.ID != c.Reverts:
		return nil, fmt.Errorf("commit %s does not say that it reverts %s", c.ID, r.ID)
	case !r.Time.Before(c.Time) || r.Time.Unix() < 1:
		return nil, fmt.Errorf("commit %s reverts %s, which is not older", c.ID, r.ID)
	}
	d.Reverts = uint64(r.Time.Unix())
	return d, nil
}

// descend follows the hashes: commit, tree, policies/, NAME.yaml.
func (g *gitDocument) descend(c *Commit) error {
	hash := gitHash(c.ID)
	if hash("tree", g.Root) != c.Tree {
		return errors.New("the root tree is not the commit's")
	}
	root, err := ParseTree(g.Root, len(c.ID)/2)
	if err != nil {
		return fmt.Errorf("root tree: %w", err)
	}
	dir, ok := find(root, GitDirectory)
	if !ok || !dir.Dir() {
		return errors.New("there is no directory " + GitDirectory)
	}
	if hash("tree", g.Policies) != dir.ID {
		return errors.New("the tree of policies is not the commit's")
	}
	files, err := ParseTree(g.Policies, len(c.ID)/2)
	if err != nil {
		return fmt.Errorf("tree of policies: %w", err)
	}
	file, ok := find(files, g.Name+".yaml")
	switch {
	case !ok && g.Policy == "":
		return nil // the deletion
	case !ok:
		return fmt.Errorf("there is no %s/%s.yaml", GitDirectory, g.Name)
	case g.Policy == "":
		return fmt.Errorf("%s/%s.yaml is there, the document says it is not", GitDirectory, g.Name)
	case !file.Regular():
		return fmt.Errorf("%s/%s.yaml is not a plain file", GitDirectory, g.Name)
	case hash("blob", []byte(g.Policy)) != file.ID:
		return fmt.Errorf("the text is not that of %s/%s.yaml", GitDirectory, g.Name)
	case !plain(g.Policy):
		return fmt.Errorf("%s/%s.yaml holds control characters, or is not UTF-8", GitDirectory, g.Name)
	}
	return nil
}

// TreeEntry is one line of a tree object.
type TreeEntry struct {
	Mode string // octal, as it stands there
	Name string
	ID   string // hex
}

// Dir reports whether the entry is a directory.
func (e TreeEntry) Dir() bool { return e.Mode == "40000" }

// Regular reports whether the entry is a plain file, no link and no other repository.
func (e TreeEntry) Regular() bool { return e.Mode == "100644" || e.Mode == "100755" }

func find(es []TreeEntry, name string) (TreeEntry, bool) {
	for _, e := range es {
		if e.Name == name {
			return e, true
		}
	}
	return TreeEntry{}, false
}

// ParseTree reads a tree object with hashes of size bytes. A name occurs once.
func ParseTree(b []byte, size int) ([]TreeEntry, error) {
	if len(b) > MaxTreeBytes {
		return nil, fmt.Errorf("%d bytes, at most %d", len(b), MaxTreeBytes)
	}
	var out []TreeEntry
	seen := map[string]bool{}
	for len(b) > 0 {
		head, rest, ok := bytes.Cut(b, []byte{0})
		mode, name, two := strings.Cut(string(head), " ")
		switch {
		case !ok || !two || len(rest) < size:
			return nil, errors.New("it is cut off")
		case name == "" || !plain(name) || strings.ContainsAny(name, "/\n\t"):
			return nil, fmt.Errorf("name %.80q", name)
		case seen[name]:
			return nil, fmt.Errorf("name %.80q occurs twice", name)
		case !treeMode.MatchString(mode):
			return nil, fmt.Errorf("mode %.10q of %.80q", mode, name)
		}
		seen[name] = true
		out = append(out, TreeEntry{mode, name, hex.EncodeToString(rest[:size])})
		b = rest[size:]
	}
	return out, nil
}

var (
	treeMode   = regexp.MustCompile(`^(40000|100644|100664|100755|120000|160000)$`)
	objectID   = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	person     = regexp.MustCompile(`^(.*) (\d{1,15}) [+-]\d{4}$`)
	revertLine = regexp.MustCompile(`\bThis reverts commit ([0-9a-f]{64}|[0-9a-f]{40})\b`)
)

// ParseCommit reads a commit object: its headers, and the signature apart from what it is over.
func ParseCommit(raw []byte) (*Commit, error) {
	if len(raw) > MaxCommitBytes {
		return nil, fmt.Errorf("commit of %d bytes: at most %d", len(raw), MaxCommitBytes)
	}
	if !plain(string(raw)) {
		return nil, errors.New("commit holds control characters, or is not UTF-8")
	}
	head, message, ok := strings.Cut(string(raw), "\n\n")
	if !ok {
		return nil, errors.New("commit has no message")
	}
	c := new(Commit)
	var payload, signature []string
	var key string
	for i, line := range strings.Split(head, "\n") {
		var value string
		if line != "" && line[0] == ' ' {
			if i == 0 {
				return nil, errors.New("commit begins with a continuation")
			}
			value = line[1:]
		} else {
			key, value, _ = strings.Cut(line, " ")
			if err := c.header(i, key, value, signature != nil); err != nil {
				return nil, fmt.Errorf("commit: %w", err)
			}
		}
		if key == "gpgsig" || key == "gpgsig-sha256" {
			signature = append(signature, value)
		} else {
			payload = append(payload, line)
		}
	}
	if c.Tree == "" || c.Author == "" || c.Time.IsZero() {
		return nil, errors.New("commit: want one tree, one author and one committer")
	}
	c.Payload = []byte(strings.Join(payload, "\n") + "\n\n" + message)
	if signature != nil {
		c.Signature = []byte(strings.Join(signature, "\n") + "\n")
	}
	c.Subject, _, _ = strings.Cut(strings.TrimLeft(message, "\n"), "\n")
	if m := revertLine.FindStringSubmatch(message); m != nil && len(m[1]) == len(c.Tree) {
		c.Reverts = m[1]
	}
	c.ID = gitHash(c.Tree)("commit", raw)
	return c, nil
}

// header takes one header line. Those that are not named here are Git's and say nothing to us.
func (c *Commit) header(i int, key, value string, signed bool) error {
	switch key {
	case "tree":
		if i != 0 || !objectID.MatchString(value) {
			return fmt.Errorf("tree %.70q", value)
		}
		c.Tree = value
	case "parent":
		if !objectID.MatchString(value) || len(value) != len(c.Tree) {
			return fmt.Errorf("parent %.70q", value)
		}
		c.Parents = append(c.Parents, value)
	case "author", "committer":
		m := person.FindStringSubmatch(value)
		if m == nil {
			return fmt.Errorf("%s %.80q", key, value)
		}
		if key == "author" {
			if c.Author != "" {
				return errors.New("two authors")
			}
			c.Author = m[1]
			return nil
		}
		if !c.Time.IsZero() {
			return errors.New("two committers")
		}
		secs, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil {
			return err
		}
		c.Time = time.Unix(secs, 0).UTC()
	case "gpgsig", "gpgsig-sha256":
		if signed {
			return errors.New("two signatures")
		}
		if (key == "gpgsig") != (len(c.Tree) == 40) {
			return fmt.Errorf("%s in a repository of the other hash", key)
		}
	case "":
		return errors.New("an empty header")
	}
	return nil
}

// gitHash returns the function that names objects where names are as long as like.
func gitHash(like string) func(kind string, b []byte) string {
	return func(kind string, b []byte) string {
		b = append(fmt.Appendf(nil, "%s %d\x00", kind, len(b)), b...)
		if len(like) == 64 {
			h := sha256.Sum256(b)
			return hex.EncodeToString(h[:])
		}
		h := sha1.Sum(b)
		return hex.EncodeToString(h[:])
	}
}

// BlobID is Git's name of a text in the repository that id is a name of.
func BlobID(id string, text []byte) string { return gitHash(id)("blob", text) }

// plain reports whether s is UTF-8 without control characters but line ends and tabs.
func plain(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f })
}
