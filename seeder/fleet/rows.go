package fleet

import (
	"context"
	"database/sql"
	"strings"
)

// insertRows inserts rows of as many columns each, many by one statement: with a server each statement is a round trip.
// head ends with VALUES, tail follows the values and returns something of each row that was inserted, which scan gets. Rows
// with a NULL go first and by themselves: a NULL has no type, and the text would be another for each place that has one.
func insertRows(ctx context.Context, tx *sql.Tx, head, tail string, rows [][]any, scan func(func(...any) error) error) error {
	var whole [][]any
	for _, row := range rows {
		if !null(row) {
			whole = append(whole, row)
			continue
		}
		if err := insert(ctx, tx, head, tail, [][]any{row}, scan); err != nil {
			return err
		}
	}
	for _, size := range []int{64, 8, 1} { // three texts to prepare
		for len(whole) >= size {
			if err := insert(ctx, tx, head, tail, whole[:size], scan); err != nil {
				return err
			}
			whole = whole[size:]
		}
	}
	return nil
}

func insert(ctx context.Context, tx *sql.Tx, head, tail string, rows [][]any, scan func(func(...any) error) error) error {
	marks := "(" + strings.Repeat("?, ", len(rows[0])-1) + "?)"
	var args []any
	for _, row := range rows {
		args = append(args, row...)
	}
	return each(ctx, tx, scan, head+strings.Repeat(marks+", ", len(rows)-1)+marks+tail, args...)
}

func null(row []any) bool {
	for _, v := range row {
		if b, ok := v.([]byte); ok && b == nil || v == nil {
			return true
		}
	}
	return false
}
