package seeder

import (
	"context"
	"time"
)

// every does something each time that so much has passed, until ctx ends.
func every(ctx context.Context, d time.Duration, do func()) error {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			do()
		case <-ctx.Done():
			return nil
		}
	}
}
