// SPDX-License-Identifier: Apache-2.0

// A memberlist node for the tests: hashicorp/memberlist as it is, told what to do by lines on standard
// input, telling what it sees in lines of JSON on standard output. tests/helpers/member_node.c is the
// same with zcache's own membership.
//
//	join ADDR...      exchanges all state with these
//	update TEXT       says TEXT of itself
//	key add|use|remove HEX
//	members           one line: all that are alive or suspect
//	leave             tells the others that it goes
//	quit              ends, without a word
//
// Each command is answered by a line {"did": COMMAND, "error": WORDS or ""}.
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

var (
	lock sync.Mutex
	out  = json.NewEncoder(os.Stdout)
)

func say(v map[string]any) {
	lock.Lock()
	defer lock.Unlock()
	if err := out.Encode(v); err != nil {
		os.Exit(1)
	}
}

type node struct {
	lock sync.Mutex
	meta []byte
}

func (n *node) NodeMeta(limit int) []byte {
	n.lock.Lock()
	defer n.lock.Unlock()
	return bytes.Clone(n.meta)
}
func (n *node) NotifyMsg(m []byte) {
	say(map[string]any{"event": "message", "hex": hex.EncodeToString(m)})
}
func (n *node) GetBroadcasts(overhead, limit int) [][]byte { return nil }
func (n *node) LocalState(join bool) []byte                { return nil }
func (n *node) MergeRemoteState(buf []byte, join bool)     {}

func tell(event string, m *memberlist.Node) {
	say(map[string]any{"event": event, "name": m.Name, "addr": m.Addr.String(), "port": m.Port,
		"meta": hex.EncodeToString(m.Meta)})
}
func (n *node) NotifyJoin(m *memberlist.Node)   { tell("join", m) }
func (n *node) NotifyLeave(m *memberlist.Node)  { tell("gone", m) }
func (n *node) NotifyUpdate(m *memberlist.Node) { tell("update", m) }
func (n *node) NotifyConflict(m, other *memberlist.Node) {
	tell("conflict", m)
}

func obey(n *node, list *memberlist.Memberlist, ring *memberlist.Keyring, words []string) error {
	rest := words[1:]
	switch words[0] {
	case "join":
		_, err := list.Join(rest)
		return err
	case "update":
		n.lock.Lock()
		n.meta = []byte(strings.Join(rest, " "))
		n.lock.Unlock()
		return list.UpdateNode(10 * time.Second)
	case "key":
		key, err := hex.DecodeString(rest[1])
		if err != nil || ring == nil {
			return fmt.Errorf("no such key: %v", err)
		}
		switch rest[0] {
		case "add":
			return ring.AddKey(key)
		case "use":
			return ring.UseKey(key)
		case "remove":
			return ring.RemoveKey(key)
		}
	case "members":
		all := []map[string]any{}
		for _, m := range list.Members() {
			all = append(all, map[string]any{"name": m.Name, "addr": m.Addr.String(), "port": m.Port,
				"state": map[bool]string{true: "suspect", false: "alive"}[m.State != memberlist.StateAlive]})
		}
		say(map[string]any{"event": "members", "members": all, "health": list.GetHealthScore()})
		return nil
	case "leave":
		return list.Leave(10 * time.Second)
	}
	return fmt.Errorf("not understood")
}

func main() {
	name := flag.String("name", "", "of the node")
	bind := flag.String("bind", "", "address")
	port := flag.Int("port", 7946, "for UDP and TCP")
	keys := flag.String("keys", "", "hex, with commas; the first encrypts")
	label := flag.String("label", "", "of the cluster")
	compress := flag.Bool("compress", false, "what is sent")
	timing := flag.String("timing", "fast", "lan: memberlist's DefaultLANConfig; fast: zcache's")
	flag.Parse()

	n := &node{meta: []byte(*name)}
	c := memberlist.DefaultLANConfig()
	c.Name, c.BindAddr, c.BindPort, c.AdvertisePort = *name, *bind, *port, *port
	c.AdvertiseAddr = *bind
	c.Label, c.EnableCompression = *label, *compress
	c.Delegate, c.Events, c.Conflict = n, n, n
	c.Logger = log.New(os.Stderr, *name+" ", log.Ltime|log.Lmicroseconds)
	if *timing == "fast" {
		c.ProbeInterval = 500 * time.Millisecond
		c.ProbeTimeout = 200 * time.Millisecond
		c.SuspicionMult = 3
		c.PushPullInterval = 15 * time.Second
	}
	if *keys != "" {
		var all [][]byte
		for _, k := range strings.Split(*keys, ",") {
			b, err := hex.DecodeString(k)
			if err != nil {
				log.Fatal(err)
			}
			all = append(all, b)
		}
		ring, err := memberlist.NewKeyring(all, all[0])
		if err != nil {
			log.Fatal(err)
		}
		c.Keyring = ring
	}
	list, err := memberlist.Create(c)
	if err != nil {
		log.Fatal(err)
	}
	say(map[string]any{"event": "ready", "name": *name, "addr": net.ParseIP(*bind).String(), "port": *port})
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		words := strings.Fields(in.Text())
		if len(words) == 0 {
			continue
		}
		if words[0] == "quit" {
			return
		}
		done := map[string]any{"did": words[0], "error": ""}
		if err := obey(n, list, c.Keyring, words); err != nil {
			done["error"] = err.Error()
		}
		say(done)
	}
	if err := in.Err(); err != nil && err != io.EOF {
		log.Fatal(err)
	}
}
