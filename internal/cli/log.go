package cli

import (
	"log/slog"

	"github.com/spf13/cobra"
)

// Log is what a person chooses of a daemon's log.
type Log struct{ verbose, json bool }

// AddFlags adds the flags; more says what --verbose shows.
func (l *Log) AddFlags(c *cobra.Command, more string) {
	c.Flags().BoolVarP(&l.verbose, "verbose", "v", false, more)
	c.Flags().BoolVar(&l.json, "json-log", false, "log as JSON")
}

// Logger writes to env.Stderr.
func (l *Log) Logger(env Env) *slog.Logger {
	opt := &slog.HandlerOptions{Level: slog.LevelInfo}
	if l.verbose {
		opt.Level = slog.LevelDebug
	}
	if l.json {
		return slog.New(slog.NewJSONHandler(env.Stderr, opt))
	}
	return slog.New(slog.NewTextHandler(env.Stderr, opt))
}
