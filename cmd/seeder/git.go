package main

import (
	"bytes"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/seeder"
)

// Limits of the webhook's secret, in bytes: a short one can be guessed.
const (
	minSecret = 16
	maxSecret = 1024
)

// git is the repository to follow.
func (o *options) git(c *cobra.Command) (seeder.GitConfig, error) {
	cfg := seeder.GitConfig{Repository: o.GitRepository, Branch: o.GitBranch}
	var err error
	if cfg.Poll, err = time.ParseDuration(o.GitPoll); err != nil {
		return cfg, cli.Usage(c, "--git-poll %q: want a time like 3m", o.GitPoll)
	}
	if o.GitWebhookSecret == "" {
		return cfg, nil
	}
	b, err := readFile(o.GitWebhookSecret, maxSecret)
	if err != nil {
		return cfg, err
	}
	cfg.WebhookSecret = bytes.TrimSpace(b)
	if len(cfg.WebhookSecret) < minSecret {
		return cfg, problem.New(problem.InvalidFile, "the webhook's secret in %s is short: want at least %d characters", o.GitWebhookSecret, minSecret)
	}
	return cfg, nil
}
