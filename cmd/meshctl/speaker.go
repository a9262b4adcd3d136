package main

import (
	"context"
	"errors"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// speaker is who says what a site is doing: the seeder, or a node of the site, which needs no WAN for it.
type speaker interface {
	Site(ctx context.Context, name string) (status.Site, error)
	Policies(ctx context.Context) ([]api.PolicyInfo, error)
	Reports(ctx context.Context, q api.ReportQuery) (api.ReportPage, error)
}

// speaker is the seeder if one is named and no socket is given, and else the daemon of this machine.
func (s *server) speaker(socket string) (speaker, error) {
	access, found, err := s.access.Resolve(s.env.Getenv)
	if err != nil {
		return nil, err
	}
	if found && socket == "" {
		return api.NewClient(access)
	}
	return newLocal(socket)
}

// local is the daemon of this machine. It keeps no reports of others, and none that the seeder has.
type local struct {
	*api.NodeClient
	named bool // by --socket
}

func newLocal(socket string) (*local, error) {
	named := socket != ""
	if !named {
		socket = nodeSocket
	}
	client, err := api.NewNodeClient(socket)
	return &local{client, named}, err
}

// Site is the daemon's own site; "" is that one too.
func (l *local) Site(ctx context.Context, name string) (status.Site, error) {
	x, err := l.Status(ctx)
	var p *problem.Error
	switch {
	case !l.named && errors.As(err, &p) && p.Code == problem.DaemonUnreachable:
		p.WithNext("on a node, check that meshd runs; elsewhere name the seeder: --server, MESHCTL_SERVER or ~/.config/meshctl/config.yaml")
	case err == nil && name != "" && x.Site != name:
		err = problem.New(problem.NotFound, "this node is of site %s and knows no site %s", x.Site, name).WithNext("ask the seeder: --server")
	}
	return x, err
}

// Reports implements speaker.
func (l *local) Reports(context.Context, api.ReportQuery) (api.ReportPage, error) {
	return api.ReportPage{}, nil
}
