package fleet

import (
	"context"
	"database/sql/driver"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// connector opens connections to PostgreSQL that speak the SQL of this package.
type connector struct {
	driver.Connector
	ready    func(context.Context, *pgx.Conn) error // called with every new connection; nil: nothing
	readOnly bool
}

// Connect implements driver.Connector.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	d, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	p := d.(*stdlib.Conn)
	if c.ready != nil {
		if err := c.ready(ctx, p.Conn()); err != nil {
			p.Close()
			return nil, err
		}
	}
	return conn{p, c.readOnly}, nil
}

// conn rewrites what goes to the server.
type conn struct {
	*stdlib.Conn
	readOnly bool
}

func (c conn) CheckNamedValue(v *driver.NamedValue) error { return plainValue(v) }

func (c conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.Conn.ExecContext(ctx, postgresSQL(query, args), args)
}

// QueryContext asks again over another connection where this one turns out to be lost, if asking changes nothing.
func (c conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.Conn.QueryContext(ctx, postgresSQL(query, args), args)
	if err != nil && c.readOnly && c.Conn.Conn().PgConn().TxStatus() != 'T' && ctx.Err() == nil && lost(err) {
		return nil, driver.ErrBadConn
	}
	return rows, err
}

// PrepareContext prepares nothing: the types of the arguments are not known yet. The driver prepares each text once for a
// connection and keeps it.
func (c conn) PrepareContext(_ context.Context, query string) (driver.Stmt, error) {
	return stmt{c, query}, nil
}

func (c conn) Prepare(query string) (driver.Stmt, error) { return stmt{c, query}, nil }

type stmt struct {
	conn
	query string
}

func (s stmt) Close() error                               { return nil }
func (s stmt) NumInput() int                              { return -1 }
func (s stmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }
func (s stmt) Query([]driver.Value) (driver.Rows, error)  { return nil, driver.ErrSkip }

func (s stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.ExecContext(ctx, s.query, args)
}

func (s stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.query, args)
}
