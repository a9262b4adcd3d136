package tree

import "context"

// Room is what a tree takes on its disk.
type Room struct {
	Files int64 // inodes, directories too
	Bytes int64
}

// Measure adds up what Copy would keep, without a look at any content.
func Measure(ctx context.Context, top string, o Options) (Room, error) {
	e, err := newEngine(o)
	if err != nil {
		return Room{}, err
	}
	a, err := openTop(top)
	if err != nil {
		return Room{}, err
	}
	defer a.drop()
	e.keptLive = true
	m := &measurer{seen: map[inode]bool{}}
	err = e.run(ctx, a, nil, m)
	return m.size, err
}

type measurer struct {
	size Room
	seen map[inode]bool
}

func (m *measurer) enter(n *node) (bool, error) {
	if n.ia.linked() {
		if m.seen[n.ia.id()] {
			return false, nil
		}
		m.seen[n.ia.id()] = true
	}
	m.size.Files++
	m.size.Bytes += n.ia.blocks * 512
	return n.ia.isDir(), nil
}

func (m *measurer) leave(*node) error { return nil }
func (m *measurer) left(*node) error  { return nil }
