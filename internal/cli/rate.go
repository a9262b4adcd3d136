package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ParseRate reads "6Mbit", "512kbit", "1Gbit" or a plain number of bits per second, and returns bytes per second.
func ParseRate(s string) (int64, error) {
	number, unit := strings.TrimSuffix(s, "/s"), 1.0
	for suffix, factor := range map[string]float64{"kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9} {
		if n, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = n, factor
		}
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || math.IsNaN(v) || v < 0 || v*unit > 1e12 {
		return 0, fmt.Errorf("%q: want bits per second such as 6Mbit or 512kbit", s)
	}
	if v > 0 && v*unit < 8 {
		return 0, fmt.Errorf("%q is less than a byte per second", s)
	}
	return int64(v * unit / 8), nil
}
