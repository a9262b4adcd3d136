package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/signer"
	"github.com/patchmesh/patchmesh/internal/trust"
)

func newApply(env cli.Env) *cobra.Command {
	s := &server{env: env}
	key := &keyFlags{env: env}
	var files policyFlags
	var dryRun bool
	var out output
	c := &cobra.Command{
		Use:   "apply -f FILE|DIR (--key FILE | --gpg ID)",
		Short: "put policies in force",
		Long: `Apply signs the policies in the files with the operator's key and gives them to
the seeder, each as the next revision of its name. Every node verifies the
signature itself. A policy that is in force already with the same text is left
alone. All files are checked before the first one is sent. Of a directory the
.yaml and .yml files in it and below are read.`,
		Example: `  meshctl apply -f policy.yaml --key operator.key
  meshctl apply -f policies/ --gpg 0xB5A2F3C1`,
		Args: cli.Args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := out.check(c); err != nil {
				return err
			}
			if err := files.check(c); err != nil {
				return err
			}
			if dryRun {
				p, err := planOf(c, s, files, false)
				if err != nil {
					return err
				}
				return showPlan(env.Stdout, &out, p)
			}
			texts, err := readPolicies(env, files)
			if err != nil {
				return err
			}
			sign, err := key.signer(c)
			if err != nil {
				return err
			}
			return s.do(c, func(ctx context.Context, client *api.Client) error {
				return applyAll(ctx, env, client, sign, texts, &out)
			})
		},
	}
	s.addFlags(c, 2*time.Minute) // a smart card waits for its owner
	key.addFlags(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would change, as \"meshctl diff\" does")
	files.addFlags(c)
	out.addFlags(c, "text", "json")
	return c
}

func applyAll(ctx context.Context, env cli.Env, client *api.Client, sign signer.Signer, texts []policyText, out *output) error {
	infos, err := client.Policies(ctx)
	if err != nil {
		return err
	}
	done := []api.PolicyInfo{}
	for _, t := range texts {
		last := find(infos, t.name)
		if current(last) == string(t.text) {
			if !out.json {
				fmt.Fprintf(env.Stdout, "policy %s unchanged (revision %d)\n", t.name, last.Revision)
			}
			done = append(done, last)
			continue
		}
		d, err := policy.NewDocument(t.text, last.Revision+1, env.Now())
		if err != nil {
			return err
		}
		info, err := put(ctx, client, sign, d)
		if err != nil {
			return err
		}
		done = append(done, info)
		if !out.json {
			fmt.Fprintf(env.Stdout, "policy %s applied (revision %d): %s %s %s\n", info.Name, info.Revision, info.Bundle, info.Version, info.Checksum)
		}
	}
	if out.json {
		return cli.JSON(env.Stdout, done)
	}
	return nil
}

func find(infos []api.PolicyInfo, name string) api.PolicyInfo {
	for _, i := range infos {
		if i.Name == name {
			return i
		}
	}
	return api.PolicyInfo{Name: name}
}

// current is the text of the policy in force, or "".
func current(i api.PolicyInfo) string {
	d, err := policy.Read(i.Document)
	if err != nil {
		return ""
	}
	return d.Policy
}

// put signs a document and submits it.
func put(ctx context.Context, client *api.Client, sign signer.Signer, d *policy.Document) (api.PolicyInfo, error) {
	b, err := d.Encode()
	if err != nil {
		return api.PolicyInfo{}, err
	}
	sig, err := sign.Sign(ctx, b)
	if err != nil {
		return api.PolicyInfo{}, err
	}
	return client.PutPolicy(ctx, trust.Signed{Doc: b, Sig: sig})
}

func newPolicy(env cli.Env) *cobra.Command {
	s := &server{env: env}
	c := &cobra.Command{Use: "policy", Short: "policies in force"}
	s.addFlags(c, 2*time.Minute)
	c.AddCommand(newPolicyList(s), newPolicyGet(s), newPolicyDelete(s), newPolicyHistory(s), newPolicySchema(env), newPolicyCRD(env))
	return c
}

func newPolicyDelete(s *server) *cobra.Command {
	key := &keyFlags{env: s.env}
	c := &cobra.Command{
		Use:   "delete NAME (--key FILE | --gpg ID)",
		Short: "withdraw a policy",
		Long: `Delete signs and submits a revision that withdraws the policy. Nodes start no
install for it any more; what is installed stays.`,
		Args: cli.Args(1, 1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return s.signed(c, key, func(ctx context.Context, client *api.Client, sign signer.Signer) error {
				last, err := policyInForce(ctx, client, args[0])
				if err != nil {
					return err
				}
				if last.Deleted {
					_, err := fmt.Fprintf(s.env.Stdout, "policy %s is deleted already (revision %d)\n", last.Name, last.Revision)
					return err
				}
				d, err := policy.NewDeletion(args[0], last.Revision+1, s.env.Now())
				if err != nil {
					return err
				}
				info, err := put(ctx, client, sign, d)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(s.env.Stdout, "policy %s deleted (revision %d)\n", info.Name, info.Revision)
				return err
			})
		},
	}
	key.addFlags(c)
	return c
}
