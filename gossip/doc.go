// Package gossip is a site's membership and discovery: hints about which node is alive at which address, and the
// spread of the newest signed roster. It decides nothing about chunks, and nothing that matters for safety hangs on
// it: whoever holds the site's key can lie here. The roster is the authority on who belongs to the site; its owner
// verifies every document that arrives.
//
// A Mesh is memberlist behind package guard, with three additions. Names that the roster does not give to that peer
// ID are refused. A node says in its metadata which version of the roster it follows, and one that is behind fetches
// the document from one that is ahead, also from a node that its own roster does not name yet. And since memberlist
// neither finds others by itself nor heals a split, the mesh calls known addresses again and again, at a rate that
// the nodes of a site share.
//
// Run owns the mesh; all callbacks of Config are called from the goroutine of Run (Roster and Seeds too), one at a
// time, and must not wait for it. The other methods may be called from any goroutine, from callbacks too.
package gossip
