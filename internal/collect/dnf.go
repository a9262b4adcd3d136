package collect

import (
	"context"
	"github.com/patchmesh/patchmesh/internal/packages"
)

type dnf struct{ work }

func (*dnf) prepare(ctx context.Context) error { return nil }
func (*dnf) resolve(ctx context.Context, m Machine) ([]packages.Package, []string, error) {
	return nil, nil, nil
}
func (*dnf) download(ctx context.Context, dir string, ps []packages.Package) error { return nil }
func (*dnf) keys(ctx context.Context, dir string) ([]string, error)                { return nil, nil }
