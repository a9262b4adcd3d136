package manifest

import "github.com/patchmesh/patchmesh/internal/chunk"

// Catalog is the list of a bundle's distinct chunks in a fixed order that every node derives alike: the chunks of
// the index first, then those of the files in index order, each at its first appearance. A chunk's position in it
// is its number in bitmaps on the wire. Before the index is known the catalog holds the index chunks only; adding
// the index appends and never renumbers.
type Catalog struct {
	Chunks     []ChunkRef
	IndexCount int // how many of Chunks belong to the index
	Complete   bool
	pos        map[chunk.ID]int
}

// NewCatalog builds the catalog; x may be nil when the index is not known yet.
func NewCatalog(m *Manifest, x *Index) *Catalog {
	c := &Catalog{pos: make(map[chunk.ID]int)}
	for _, r := range m.Index.Chunks {
		c.add(r)
	}
	c.IndexCount = len(c.Chunks)
	if x != nil {
		c.Extend(x)
	}
	return c
}

// Extend appends the chunks of the index's files and marks the catalog complete.
func (c *Catalog) Extend(x *Index) {
	for i := range x.Files {
		for _, r := range x.Files[i].Chunks {
			c.add(r)
		}
	}
	c.Complete = true
}

func (c *Catalog) add(r ChunkRef) {
	if _, ok := c.pos[r.ID]; !ok {
		c.pos[r.ID] = len(c.Chunks)
		c.Chunks = append(c.Chunks, r)
	}
}

// Position returns a chunk's number.
func (c *Catalog) Position(id chunk.ID) (int, bool) { i, ok := c.pos[id]; return i, ok }

// Bytes is the sum of the sizes of the distinct chunks: what has to reach a site that holds nothing yet.
func (c *Catalog) Bytes() (n int64) {
	for _, r := range c.Chunks {
		n += r.Size
	}
	return n
}
