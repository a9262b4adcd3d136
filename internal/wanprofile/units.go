package wanprofile

import (
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

type unit struct {
	name string
	size int64
}

func rateUnits() []unit { return []unit{{"Gbit", 1e9}, {"Mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}} }

func sizeUnits() []unit {
	return []unit{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
}

var number = regexp.MustCompile(`^[0-9]{1,15}(\.[0-9]{1,9})?$`)

// parse reads a number with one of the units, or without any, and returns the whole part of number times unit.
func parse(s string, units []unit) (int64, bool) {
	n, size := s, int64(1)
	for _, u := range units {
		if head, ok := strings.CutSuffix(s, u.name); ok && number.MatchString(head) {
			n, size = head, u.size
			break
		}
	}
	if !number.MatchString(n) {
		return 0, false
	}
	r, ok := new(big.Rat).SetString(n)
	if !ok {
		return 0, false
	}
	r.Mul(r, new(big.Rat).SetInt64(size))
	whole := new(big.Int).Quo(r.Num(), r.Denom())
	return whole.Int64(), whole.IsInt64()
}

// ParseRate reads bits per second, "6Mbit", "512kbit", "1.5Gbit" or a plain number, "/s" behind it or not, and returns
// bytes per second: 0, or MinRate to MaxRate.
func ParseRate(s string) (int64, error) {
	bits, ok := parse(strings.TrimSuffix(s, "/s"), rateUnits())
	rate := bits / 8
	switch {
	case !ok || rate > MaxRate:
		return 0, fmt.Errorf("rate %.40q: want bits per second such as 6Mbit or 512kbit", s)
	case bits > 0 && rate < MinRate:
		return 0, fmt.Errorf("rate %.40q is less than %s", s, FormatRate(MinRate))
	}
	return rate, nil
}

// FormatRate writes bytes per second in the largest unit of bits that holds them exactly: "6Mbit", "1500kbit". 0 is "0".
func FormatRate(bytesPerSecond int64) string { return format(8*bytesPerSecond, rateUnits()) }

// ParseSize reads bytes, "5GB", "500MB", "1.5GiB" or a plain number: 0, or MinPerDay to MaxPerDay.
func ParseSize(s string) (int64, error) {
	n, ok := parse(s, sizeUnits())
	switch {
	case !ok || n > MaxPerDay:
		return 0, fmt.Errorf("total %.40q: want bytes such as 5GB or 500MB, at most %s", s, FormatSize(MaxPerDay))
	case n > 0 && n < MinPerDay:
		return 0, fmt.Errorf("total %.40q is less than %s", s, FormatSize(MinPerDay))
	}
	return n, nil
}

// FormatSize writes bytes in the largest unit that holds them exactly: "5GB", "1536MiB". 0 is "0".
func FormatSize(bytes int64) string { return format(bytes, sizeUnits()) }

func format(n int64, units []unit) string {
	if n == 0 {
		return "0"
	}
	best := ""
	for _, u := range units {
		if s := strconv.FormatInt(n/u.size, 10) + u.name; n%u.size == 0 && (best == "" || len(s) < len(best)) {
			best = s
		}
	}
	return best
}
