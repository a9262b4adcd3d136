package main

import (
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// maxDatabaseName bounds a database's name, password and all.
const maxDatabaseName = 4 << 10

// database is where the fleet's state is kept, when it is not the file in the state directory.
type database struct {
	Name string `yaml:"database"`
	File string `yaml:"databaseFile"`
}

func (d *database) addFlags(c *cobra.Command) {
	c.Flags().StringVar(&d.Name, "database", d.Name, "`postgres://USER@HOST/DATABASE` to keep the fleet's state in (default: SQLite, STATE/seeder.db)")
	c.Flags().StringVar(&d.File, "database-file", d.File, "`file` that holds the database's name, so that its password is in no argument")
}

// source returns what fleet.Open takes; empty is the file in the state directory.
func (d *database) source(c *cobra.Command) (string, error) {
	name := d.Name
	switch {
	case d.Name != "" && d.File != "":
		return "", cli.Usage(c, "--database and --database-file are both given")
	case d.File != "":
		b, err := readFile(d.File, maxDatabaseName)
		if err != nil {
			return "", err
		}
		if name = strings.TrimSpace(string(b)); !fleet.IsPostgres(name) || strings.ContainsAny(name, "\r\n") {
			return "", problem.New(problem.InvalidFile, "%s does not hold one line postgres://USER:PASSWORD@HOST/DATABASE", d.File)
		}
		return name, nil
	case name == "":
		return "", nil
	case !fleet.IsPostgres(name):
		return "", problem.New(problem.Usage, "a database is named postgres://USER@HOST/DATABASE").WithNext("leave it out for SQLite, in the state directory")
	}
	u, err := url.Parse(name)
	if err != nil {
		return "", problem.New(problem.Usage, "the name of the database is no URL") // the error would show a password
	}
	if _, has := u.User.Password(); c.Flags().Changed("database") && (has || u.Query().Has("password")) {
		return "", problem.New(problem.Usage, "a password in an argument can be read by every user of the machine").
			WithNext("write the database's name into a file of the seeder's user and give --database-file")
	}
	return name, nil
}
