// Package node is the peer daemon: it joins a site, hears of documents, shares chunks with its neighbours, stages
// what the policy in force asks for, has it installed by another process, and says what state it is in.
//
// One goroutine, the loop in loop.go, owns all mutable state: the swarm, the documents, the phases, the neighbours'
// statements. Sessions, the installer, the local API and gossip hand it functions to run (post) and never touch its
// state. What must be decided is decided in pure code: node/swarm (chunks, uplink), life.go (phases), schedule.go (when an
// install may start), clock.go (what time it is in the site), dial.go (whom to dial when). What must survive is written before it is acted on, through internal/durable.
//
// Files below Config.State, each written atomically by the loop unless said otherwise:
//
//	lock                 held while the daemon runs
//	identity.key         libp2p private key, Ed25519; written by Join
//	enrolment.json       who we are and whom we trust; written by Join
//	roster.json          the newest roster, as signed
//	policies/NAME.json   the newest revision of each policy, as signed, deletions included
//	bundles/HEX.json     manifests in use, as signed
//	state.json           phases, floors, counters
//	peers.json           where neighbours were last seen
//	outbox/SEQ.json      reports the seeder has not acknowledged; SEQ.damaged: one that could not be read
//	receipts/NUMBER-HASH.json  the newest of the node's receipts, each naming the one before
//	chunks/              the chunk store (chunker/store)
//	request.json         what the installer is asked for
package node
