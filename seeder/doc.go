// Package seeder is the data-centre side: it keeps the bundles, hands every site its signed documents, grants one
// uplink lease a site, sends chunks to the lease holders at the pace that site and link allow, takes the nodes' reports
// and answers the management API. It is not trusted for integrity: it can withhold, but it cannot forge, since bundles
// are signed by the build key and policies by an operator; it signs only the rosters.
//
// New opens everything, Run serves until its context ends. What each part owns:
//
//	members   who is on which roster          members.go    read by the connection gater
//	library   bundles and their chunks        library.go    uploads, catalogue, chunk numbers
//	desired   policies in force               policies.go
//	boards    the documents of each site      boards.go     computed from the three above
//	leases    who may use which WAN           leases.go     decisions in seeder/lease
//	pace      how fast each WAN is used       pace.go       by internal/wanprofile; bytes count as they cross the link
//	ledger    what was sent over which WAN    ledger.go     promised on disk before it is sent, counted every second
//	presence  what nodes last said            presence.go   flushed every second
//	shelf     chunks on their way out       shelf.go      each in memory once
//	intake    reports on their way to disk    intake.go     acknowledged after the commit
//
// Each has one lock of its own and calls no other part while holding it. Files below Config.State:
//
//	identity.pem   Ed25519 key: peer ID of the mesh, certificate of the API
//	roster.key     OpenPGP key that signs rosters; roster.pub is its public half
//	admin.token    the administrator's bearer token
//	admin.json     an api.Access for meshctl
//	seeder.sock    the management API for who may open it
//	seeder.db      everything but chunks (seeder/fleet)
//	store/         chunks (chunker/store); its lock is the lock of the whole directory
//	encoded/       copies of chunks that are smaller (chunker/store/encoded); may be deleted
package seeder
