package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// Build builds the programs of this module into a directory, for whoever cannot rely on "make build".
func Build(ctx context.Context, dir string) error {
	args := []string{"build", "-trimpath", "-o", dir + "/"}
	for _, name := range Programs() {
		args = append(args, "github.com/patchmesh/patchmesh/cmd/"+name)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	return nil
}
