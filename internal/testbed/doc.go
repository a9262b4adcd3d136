// Package testbed gives tests a small internet of their own: a network namespace for each host, a data centre behind
// a router, sites whose nodes hang on a bridge behind a router, and between the two a thin WAN with a rate, a delay,
// losses and a switch. Bytes are counted on the interfaces, not by the programs that send them. It knows nothing of
// patchmesh: what runs in a host is any command, see [Bed.Exec].
//
//	dc  10.200.0.1 -- dc-r --[ tbf | relay: delay, loss, cut | tbf ]-- site1-r --bridge-- site1-node1 10.11.0.11
//	dc2 10.200.0.2 ---/ |                                                       |-------- site1-node2 10.11.0.12
//	                    |                                                       \-------- site1-bystander 10.11.0.250
//	                    +-----[ ... ]-- site2-r --bridge-- site2-node1 10.12.0.11
//
// A bed touches only namespaces that it made: their names carry a prefix and the name of the bed, and each is noted
// below /run before it is made. It is taken down whatever happens to the test, because a second process watches over
// it (guard.go): a package that uses beds calls [Main] from its TestMain. It needs root, ip, tc, nft and
// /dev/net/tun; without them [New] skips the test and says so. Methods may be called from any goroutine.
package testbed
