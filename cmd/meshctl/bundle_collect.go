package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/collect"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/progress"
)

func newBundleCollect(env cli.Env) *cobra.Command {
	var o collect.Options
	var format, target string
	var out output
	c := &cobra.Command{
		Use:   "collect --format deb|rpm --target-os OS-RELEASE/ARCH --installed LIST --dest DIR",
		Short: "gather the updates that machines need, and all they pull in",
		Long: `Collect asks the distribution's repositories, with the real apt or dnf in a
configuration of its own, what machines with these packages need, and downloads
exactly that, with signatures checked, into a new directory for
"meshctl bundle build --from". What has not changed is left out. It needs access to
the repositories, and for rpm root, without which dnf resolves nothing; it changes
nothing on this machine.

--installed says what a machine has; give it once for each kind of machine:
  deb  its /var/lib/dpkg/status, or the output of: dpkg-query -W
  rpm  a copy of its rpmdb.sqlite, or the output of: rpm -qa
Names and versions alone are enough. With the database the resolver knows of every
dependency, and "bundle build --base" can prove with the same file that none is missing.

Without --only every update is collected. With it only the packages named, and what
they need; a package that no machine has is then to be installed on all. --install
adds packages to be installed on every machine, --remove allows one to go.

Without --source and --sources this machine's own sources are used, if it runs the
same system. dnf's keys are taken from files (gpgkey=file:///..., or --key), never from
the network. If there is nothing to do it says so, ends with 0 and makes nothing.`,
		Example: `  ssh till-1 dpkg-query -W > till-1.list
  meshctl bundle collect --format deb --target-os debian-12/amd64 \
      --installed till-1.list --dest ./debs
  meshctl bundle collect --format rpm --target-os rhel-9/x86_64 --installed rpmdb.sqlite \
      --sources rhel-9.repo --key RPM-GPG-KEY-redhat-release --only openssl --dest ./rpms`,
		Args: cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if err := out.check(c); err != nil {
				return err
			}
			if o.Dest == "" {
				return cli.Usage(c, "--dest is required: a directory that is not there yet")
			}
			if o.Target, err = parseTarget(target); err != nil {
				return cli.Usage(c, "--target-os %s", err)
			}
			o.Target.Format, o.Here = manifest.Format(format), here()
			o.Progress = progress.For(env.Stderr, out.json)
			r, err := collect.Run(c.Context(), o)
			if err != nil {
				return err
			}
			if out.json {
				return cli.JSON(env.Stdout, r)
			}
			return showCollected(env, &o, r)
		},
	}
	f := c.Flags()
	f.StringVar(&format, "format", "", "deb or rpm")
	f.StringVar(&target, "target-os", manifest.Any, "the machines' system: `OS-RELEASE/ARCH`")
	f.StringArrayVar(&o.Installed, "installed", nil, "`file` that says what a machine has; may be given several times")
	f.StringSliceVar(&o.Only, "only", nil, "`names` of the packages to collect (default: every update)")
	f.StringSliceVar(&o.Install, "install", nil, "`names` of packages that every machine is to have")
	f.StringSliceVar(&o.Remove, "remove", nil, "`names` of packages that may be removed")
	f.StringArrayVar(&o.Sources, "source", nil, "deb: a `line` of sources.list; rpm: a base URL; may be given several times")
	f.StringArrayVar(&o.Files, "sources", nil, "`file` with sources: .list or .sources, .repo; may be given several times")
	f.StringArrayVar(&o.Keys, "key", nil, "`file` with a public key of the sources; may be given several times")
	f.StringVar(&o.Dest, "dest", "", "`directory` to make")
	f.SetNormalizeFunc(targetByShortName)
	out.addFlags(c, "text", "json")
	return c
}

// targetByShortName lets --target-os be given as --os.
func targetByShortName(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if name == "os" {
		name = "target-os"
	}
	return pflag.NormalizedName(name)
}

// here is what this machine is.
func here() manifest.Facts {
	for _, name := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if b, err := os.ReadFile(name); err == nil {
			return install.ParseOSRelease(b)
		}
	}
	return manifest.Facts{OS: runtime.GOOS, Release: "unknown", Arch: runtime.GOARCH}
}

func showCollected(env cli.Env, o *collect.Options, r *collect.Result) error {
	var t cli.Table
	for _, p := range r.Packages {
		from := strings.Join(p.From, ", ")
		if from == "" {
			from = "-"
		}
		t.Row(string(p.Role), p.Name, p.Arch, from+" -> "+p.Version)
	}
	if _, err := t.WriteTo(env.Stdout); err != nil {
		return err
	}
	for _, k := range r.Kept {
		fmt.Fprintf(env.Stderr, "left out: %s   held, or something else would have to be removed for it\n", k)
	}
	if len(r.Packages) == 0 {
		_, err := fmt.Fprintln(env.Stdout, "nothing to do: no machine needs anything; nothing was made")
		return err
	}
	_, err := fmt.Fprintf(env.Stdout, "collected %s, %s in %s\n", cli.Count(len(r.Packages), "package"), cli.Bytes(r.Bytes), o.Dest)
	return err
}
