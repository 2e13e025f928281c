// Command server offers one pinned map over gRPC: server PIN SOCKET.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"

	"github.com/cilium/ebpf"
	"google.golang.org/grpc"

	"mapd.bench/peer"
)

// chunk is how many bytes of keys one message of a dump carries at most.
const chunk = 128 << 10

type server struct {
	peer.UnimplementedPeerServer
	m *ebpf.Map
}

func (s *server) Lookup(_ context.Context, in *peer.LookupRequest) (*peer.LookupResponse, error) {
	value, err := s.m.LookupBytes(in.Key)
	return &peer.LookupResponse{Value: value}, err
}

func (s *server) Dump(_ *peer.DumpRequest, out peer.Peer_DumpServer) error {
	var key, value []byte
	columns := &peer.Columns{}
	elements := s.m.Iterate()
	for elements.Next(&key, &value) {
		columns.Keys = append(columns.Keys, key...)
		columns.Values = append(columns.Values, value...)
		if len(columns.Keys) >= chunk {
			if err := out.Send(columns); err != nil {
				return err
			}
			columns = &peer.Columns{}
		}
	}
	if err := elements.Err(); err != nil {
		return err
	}
	return out.Send(columns)
}

func main() {
	m, err := ebpf.LoadPinnedMap(os.Args[1], nil)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	s := grpc.NewServer()
	peer.RegisterPeerServer(s, &server{m: m})
	fmt.Println("ready")
	log.Fatal(s.Serve(listener))
}
