package main

import (
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// pieceSize of the torrents: that of our chunks on average.
const pieceSize = 256 << 10

// metainfo is the torrent of one file (BEP 3), with one tracker; and its info-hash.
func metainfo(file, announce string) (torrent []byte, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var pieces strings.Builder
	var length int64
	for buf := make([]byte, pieceSize); ; {
		n, err := io.ReadFull(f, buf)
		if n > 0 {
			sum := sha1.Sum(buf[:n])
			pieces.Write(sum[:])
			length += int64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	str := func(s string) string { return fmt.Sprintf("%d:%s", len(s), s) }
	info := "d" + "6:length" + fmt.Sprintf("i%de", length) + "4:name" + str(filepath.Base(file)) + "12:piece length" + fmt.Sprintf("i%de", pieceSize) + "6:pieces" + str(pieces.String()) + "e"
	return []byte("d" + "8:announce" + str(announce) + "4:info" + info + "e"), nil
}

// tracker tells BitTorrent clients of each other (BEP 3, compact answers of BEP 23). It keeps no time: a client is in
// until it says that it stopped.
type tracker struct {
	mu     sync.Mutex
	swarms map[string]map[string]peer // by info-hash, by address
}

type peer struct {
	ip   [4]byte
	port uint16
	left bool // it lacks something
}

// forget makes it a tracker that has seen nobody.
func (t *tracker) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.swarms = map[string]map[string]peer{}
}

// seeded reports whether somebody has said that it has everything.
func (t *tracker) seeded() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, all := range t.swarms {
		for _, p := range all {
			if !p.left {
				return true
			}
		}
	}
	return false
}

// ServeHTTP implements http.Handler.
func (t *tracker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host).To4()
	port, perr := strconv.ParseUint(q.Get("port"), 10, 16)
	if err != nil || perr != nil || ip == nil || len(q.Get("info_hash")) != sha1.Size {
		http.Error(w, "not an announcement", http.StatusBadRequest)
		return
	}
	me := peer{ip: [4]byte(ip), port: uint16(port), left: q.Get("left") != "0"}
	_, _ = w.Write(t.announce(q.Get("info_hash"), me, q.Get("event") == "stopped")) // who hung up asks again
}

// announce takes a peer in, or out, and returns the others.
func (t *tracker) announce(swarm string, me peer, stopped bool) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := fmt.Sprint(me.ip, me.port)
	all := t.swarms[swarm]
	if all == nil {
		all = map[string]peer{}
		t.swarms[swarm] = all
	}
	if stopped {
		delete(all, key)
	} else {
		all[key] = me
	}
	var compact []byte
	seeds := 0
	for k, p := range all {
		if !p.left {
			seeds++
		}
		if k != key {
			compact = binary.BigEndian.AppendUint16(append(compact, p.ip[:]...), p.port)
		}
	}
	return fmt.Appendf(nil, "d8:completei%de10:incompletei%de8:intervali10e12:min intervali5e5:peers%d:%se", seeds, len(all)-seeds, len(compact), compact)
}
