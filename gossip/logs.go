package gossip

import (
	"bytes"
	"context"
	"log" //nolint:depguard // memberlist and mdns take nothing else; what they write goes to slog
	"log/slog"
	"strings"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// The libraries below write a line for every bad packet, so a flood of packets would be a flood of lines.
const (
	linesPerSecond = 1
	linesBurst     = 10
)

// bridge is the writer behind a library's logger. It lowers the levels by one, because what the library takes
// for an error is a peer's doing, passes on a line each second and counts the rest.
type bridge struct {
	to         *slog.Logger
	limit      *rate.Limiter
	suppressed atomic.Uint64
}

// libraryLogger is the only kind of logger that memberlist and mdns take.
type libraryLogger = log.Logger

func newBridge(to *slog.Logger, library string) (*bridge, *libraryLogger) {
	b := &bridge{to: to.With("library", library), limit: rate.NewLimiter(linesPerSecond, linesBurst)}
	return b, log.New(b, "", 0)
}

func (b *bridge) Write(p []byte) (int, error) {
	level, text := slog.LevelDebug, string(bytes.TrimSpace(p))
	for prefix, l := range map[string]slog.Level{"[ERR] ": slog.LevelWarn, "[ERROR] ": slog.LevelWarn, "[WARN] ": slog.LevelInfo, "[INFO] ": slog.LevelDebug, "[DEBUG] ": slog.LevelDebug} {
		if rest, ok := strings.CutPrefix(text, prefix); ok {
			level, text = l, rest
		}
	}
	ctx := context.Background()
	if !b.to.Enabled(ctx, level) {
		return len(p), nil
	}
	if !b.limit.Allow() {
		b.suppressed.Add(1)
		return len(p), nil
	}
	b.to.Log(ctx, level, "library line", "text", text, "suppressed", b.suppressed.Load())
	return len(p), nil
}
