package fleet

import (
	"context"
	"database/sql"
	"fmt"
)

// PageBits is how many chunk numbers one page of a site's bitmap of sent chunks covers.
const PageBits = 4096

// Account is what was sent to a site over its WAN, in bytes.
type Account struct {
	Site      string
	Payload   int64             // as encoded
	Plain     int64             // decoded
	Needed    int64             // decoded, each chunk once
	Duplicate int64             // decoded, of chunks sent before
	Splits    int64             // leases granted beside the first
	Day       string            // local day of Today, 2026-11-21; empty: none yet
	Today     int64             // bytes of the link used on Day, Promised among them
	Promised  int64             // bytes of the link that may be used without anything more being recorded
	Unsure    int64             // bytes promised by runs that were killed: sent or not, they are not in Payload
	Pages     map[uint32][]byte // PageBits/8 bytes each: bit i of page p is chunk p*PageBits+i
}

// Accounts returns the account of every site that was sent something.
func (s *Store) Accounts(ctx context.Context) (map[string]*Account, error) {
	out := map[string]*Account{}
	err := each(ctx, s.r, func(scan func(...any) error) error {
		a := &Account{Pages: map[uint32][]byte{}}
		err := scan(&a.Site, &a.Payload, &a.Plain, &a.Needed, &a.Duplicate, &a.Splits, &a.Day, &a.Today, &a.Promised, &a.Unsure)
		out[a.Site] = a
		return err
	}, `SELECT `+accountColumns+` FROM wan`)
	if err != nil {
		return nil, err
	}
	return out, each(ctx, s.r, func(scan func(...any) error) error {
		var site string
		var page uint32
		var bits []byte
		if err := scan(&site, &page, &bits); err != nil {
			return err
		}
		if out[site] == nil || len(bits) != PageBits/8 {
			return fmt.Errorf("wan account of %s: page %d is not valid", site, page)
		}
		out[site].Pages[page] = bits
		return nil
	}, `SELECT site, page, bits FROM sent`)
}

const accountColumns = `site, payload, plain, needed, duplicate, splits, day, today, promised, unsure`

// PutAccounts records accounts in one transaction. Pages holds only those that changed.
func (s *Store) PutAccounts(ctx context.Context, list []Account) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		for _, a := range list {
			if _, err := tx.ExecContext(ctx, `INSERT INTO wan (`+accountColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (site) DO UPDATE SET
				payload = excluded.payload, plain = excluded.plain, needed = excluded.needed, duplicate = excluded.duplicate, splits = excluded.splits,
				day = excluded.day, today = excluded.today, promised = excluded.promised, unsure = excluded.unsure`,
				a.Site, a.Payload, a.Plain, a.Needed, a.Duplicate, a.Splits, a.Day, a.Today, a.Promised, a.Unsure); err != nil {
				return err
			}
			for page, bits := range a.Pages {
				if _, err := tx.ExecContext(ctx, `INSERT INTO sent VALUES (?, ?, ?) ON CONFLICT (site, page) DO UPDATE SET bits = excluded.bits`,
					a.Site, page, bits); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
