// Package turn decides when it is a node's turn to start, by the grant that its site holds and what its neighbours say:
// the site keeps its own canary, its cap and its failure budget, with the WAN down too. Pure; safe for concurrent use.
package turn
