// Command client measures server: client SOCKET ENTRIES. The map has 8-byte keys 0..ENTRIES-1.
//
// It reads commands and answers each with one line of JSON:
//
//	flight WIDTH N SEED  N lookups of random keys by WIDTH goroutines
//	one N SEED           N lookups, one after the other
//	dump                 every element
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand"
	"os"
	"sort"
	"strconv"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"mapd.bench/peer"
)

type answer struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu"`
	Count   int     `json:"count"`
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
}

type client struct {
	peer.PeerClient
	entries int
}

// lookup checks what it gets: a wrong answer ends the measurement.
func (c *client) lookup(key uint64) {
	request := make([]byte, 8)
	binary.LittleEndian.PutUint64(request, key)
	response, err := c.Lookup(context.Background(), &peer.LookupRequest{Key: request})
	if err != nil {
		log.Fatal(err)
	}
	if value := binary.LittleEndian.Uint64(response.Value); value != 3*key+1 {
		log.Fatalf("key %d: %d", key, value)
	}
}

func (c *client) keys(n, seed int) []int {
	order := rand.New(rand.NewSource(int64(seed))).Perm(c.entries)
	if n > c.entries {
		n = c.entries
	}
	return order[:n]
}

func (c *client) flight(width int, keys []int) answer {
	var all sync.WaitGroup
	for worker := 0; worker < width; worker++ {
		all.Add(1)
		go func(mine int) {
			defer all.Done()
			for ; mine < len(keys); mine += width {
				c.lookup(uint64(keys[mine]))
			}
		}(worker)
	}
	all.Wait()
	return answer{Count: len(keys)}
}

func (c *client) one(keys []int) answer {
	took := make([]float64, len(keys))
	for at, key := range keys {
		began := time.Now()
		c.lookup(uint64(key))
		took[at] = time.Since(began).Seconds()
	}
	sort.Float64s(took)
	return answer{Count: len(keys), P50: took[len(took)/2], P99: took[len(took)*99/100]}
}

func (c *client) dump() answer {
	stream, err := c.Dump(context.Background(), &peer.DumpRequest{})
	if err != nil {
		log.Fatal(err)
	}
	count := 0
	for {
		columns, err := stream.Recv()
		if err == io.EOF {
			return answer{Count: count}
		}
		if err != nil {
			log.Fatal(err)
		}
		count += len(columns.Keys) / 8
	}
}

// prepare gives what is to be measured; what it does by itself is not.
func (c *client) prepare(command string, n []int) func() answer {
	switch command {
	case "flight":
		keys := c.keys(n[1], n[2])
		return func() answer { return c.flight(n[0], keys) }
	case "one":
		keys := c.keys(n[0], n[1])
		return func() answer { return c.one(keys) }
	case "dump":
		return c.dump
	}
	log.Fatalf("no command %s", command)
	return nil
}

func cpu() float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		log.Fatal(err)
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}

func main() {
	connection, err := grpc.Dial("unix:"+os.Args[1], grpc.WithInsecure())
	if err != nil {
		log.Fatal(err)
	}
	entries, err := strconv.Atoi(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	c := &client{peer.NewPeerClient(connection), entries}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var command string
		n := make([]int, 3)
		fmt.Sscan(lines.Text(), &command, &n[0], &n[1], &n[2]) // as many numbers as there are
		work := c.prepare(command, n)
		began, used := time.Now(), cpu()
		done := work()
		done.Seconds, done.CPU = time.Since(began).Seconds(), cpu()-used
		line, err := json.Marshal(done)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(line))
	}
}
